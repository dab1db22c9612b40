"""Audio effects, and mixes of stems: balance, loudness, and a limiter that applies one gain to all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
from pydantic import Field
from scipy.ndimage import minimum_filter1d, uniform_filter1d
from scipy.signal import butter, lfilter, oaconvolve, sosfilt

from polyres.core.config import Config
from polyres.synth.instruments.oscillators import SAMPLE_RATE_HZ

_TILT_TAPS = 2049
_CONTROL_SAMPLES = 16


@lru_cache(maxsize=64)
def _tilt_filter(sample_rate_hz: int, tilt_db: float) -> np.ndarray:
    """Return the taps of a filter without delay whose gain is a straight line over octaves, float32 `[2049]`."""
    frequency_hz = np.maximum(np.fft.rfftfreq(_TILT_TAPS - 1, 1.0 / sample_rate_hz), 1.0)
    gain = 10.0 ** (tilt_db * np.clip(np.log2(frequency_hz / 1000.0), -3.0, 3.0) / 20.0)
    taps = np.roll(np.fft.irfft(gain), _TILT_TAPS // 2)
    return (np.append(taps, taps[0]) * np.hanning(_TILT_TAPS)).astype(np.float32)


def tilt_eq(wave: np.ndarray, sample_rate_hz: int, tilt_db: float, low_cut_hz: float = 0.0) -> np.ndarray:
    """Tilt the spectrum about 1 kHz and cut the lowest band. `wave`: float `[..., T]`; returns float32 `[..., T]`."""
    shaped = np.asarray(wave, np.float32)
    if tilt_db:
        taps = _tilt_filter(sample_rate_hz, tilt_db).reshape((1,) * (shaped.ndim - 1) + (-1,))
        shaped = oaconvolve(shaped, taps, mode="full", axes=-1)[..., _TILT_TAPS // 2 :][..., : wave.shape[-1]]
    if low_cut_hz > 0.0:
        shaped = sosfilt(butter(2, low_cut_hz, "highpass", fs=sample_rate_hz, output="sos"), shaped)
    return shaped.astype(np.float32)


@dataclass(frozen=True)
class Band:
    """One band of an equaliser; `kind` is low_shelf, peak or high_shelf, `width` the quality factor Q."""

    kind: str
    frequency_hz: float
    gain_db: float
    width: float = 0.707


def band_filter(band: Band, sample_rate_hz: int) -> np.ndarray:
    """Return the second-order section of one band: float64 `[6]`, as scipy's `sosfilt` takes it.

    Source: Bristow-Johnson, Audio EQ Cookbook.
    """
    root = 10.0 ** (band.gain_db / 40.0)
    turn = 2.0 * np.pi * min(band.frequency_hz, 0.49 * sample_rate_hz) / sample_rate_hz
    cosine, slope = np.cos(turn), np.sin(turn) / (2.0 * band.width)
    if band.kind == "peak":
        above = [1.0 + slope * root, -2.0 * cosine, 1.0 - slope * root]
        below = [1.0 + slope / root, -2.0 * cosine, 1.0 - slope / root]
    else:
        # A high shelf is a low shelf seen from the other end of the spectrum.
        sign = 1.0 if band.kind == "low_shelf" else -1.0
        side = 2.0 * np.sqrt(root) * slope
        plus, minus, mirrored = root + 1.0, root - 1.0, sign * cosine
        above = [
            root * (plus - minus * mirrored + side),
            sign * 2.0 * root * (minus - plus * mirrored),
            root * (plus - minus * mirrored - side),
        ]
        below = [
            plus + minus * mirrored + side,
            sign * -2.0 * (minus + plus * mirrored),
            plus + minus * mirrored - side,
        ]
    return np.array([*above, *below]) / below[0]


def equalise(wave: np.ndarray, sample_rate_hz: int, bands: Sequence[Band]) -> np.ndarray:
    """Apply an equaliser. `wave`: float `[..., T]`; returns float32 `[..., T]`."""
    if not bands:
        return wave.astype(np.float32)
    sections = np.stack([band_filter(band, sample_rate_hz) for band in bands])
    return sosfilt(sections, wave).astype(np.float32)


@dataclass(frozen=True)
class Compressor:
    """Above `threshold_db` a sound grows by 1 dB where it would have grown by `ratio`; times are those of a desk."""

    threshold_db: float
    ratio: float
    attack_s: float = 0.005
    release_db_per_s: float = 60.0


def compress(wave: np.ndarray, sample_rate_hz: int, settings: Compressor) -> np.ndarray:
    """Compress the dynamics, all channels linked: `wave` `[C, T]`."""
    peaks = block_peaks(wave, _CONTROL_SAMPLES)
    over_db = 20.0 * np.log10(np.maximum(peaks, 1e-7)) - settings.threshold_db
    block_s = _CONTROL_SAMPLES / sample_rate_hz
    # The level falls in a straight line after each peak: a running maximum in coordinates that fall with it.
    fall_db = settings.release_db_per_s * block_s * np.arange(len(over_db))
    held_db = np.maximum.accumulate(over_db + fall_db) - fall_db
    wanted_db = np.maximum(held_db, 0.0) * (1.0 / settings.ratio - 1.0)
    share = 1.0 - np.exp(-block_s / max(settings.attack_s, 1e-5))
    start = (1.0 - share) * wanted_db[:1]  # as if the sound had begun long before
    gain_db = lfilter([share], [1.0, share - 1.0], wanted_db, zi=start)[0]
    return wave.astype(np.float32) * ramped(10.0 ** (gain_db / 20.0), _CONTROL_SAMPLES, wave.shape[-1])


def block_peaks(wave: np.ndarray, block_samples: int) -> np.ndarray:
    """Return the highest magnitude of every block over all channels: `wave` `[C, T]` to `[ceil(T / block_samples)]`."""
    length = wave.shape[-1]
    blocks = -(-length // block_samples)
    level = np.zeros(blocks * block_samples, np.float32)
    np.abs(wave).max(axis=0, out=level[:length])
    return level.reshape(blocks, block_samples).max(axis=1)


def ramped(gains: np.ndarray, block_samples: int, length: int) -> np.ndarray:
    """Interpolate gains per block linearly to gains per sample: `gains` `[blocks]` to `[length]`."""
    steps = np.diff(gains, append=gains[-1:]).astype(np.float32)
    share = np.arange(block_samples, dtype=np.float32) / block_samples
    return (gains.astype(np.float32)[:, None] + steps[:, None] * share).reshape(-1)[:length]


def saturate(wave: np.ndarray, drive: float, bias: float = 0.0) -> np.ndarray:
    """Saturate like an overdriven amplifier, keeping the RMS: `wave` `[..., T]`."""
    power = float(np.mean(np.square(wave, dtype=np.float32)))
    if drive <= 0.0 or power <= 0.0:
        return wave.astype(np.float32)
    bent = np.tanh(np.float32(drive / (3.0 * np.sqrt(power))) * wave + np.float32(bias)) - np.float32(np.tanh(bias))
    if bias:
        bent -= bent.mean(axis=-1, keepdims=True)
    return (bent * np.float32(np.sqrt(power / max(float(np.mean(np.square(bent))), 1e-20)))).astype(np.float32)


def widen(wave: np.ndarray, width: float) -> np.ndarray:
    """Scale the side signal, keeping the power: `wave` `[2, T]`."""
    middle, side = 0.5 * (wave[0] + wave[1]), np.float32(0.5 * width) * (wave[0] - wave[1])
    moved = np.stack([middle + side, middle - side])
    before, after = (float(np.mean(np.square(w, dtype=np.float32))) for w in (wave, moved))
    return (moved * np.float32(np.sqrt(before / after) if after > 0.0 else 1.0)).astype(np.float32)


def place(wave: np.ndarray, pan: float) -> np.ndarray:
    """Place a mono voice `[T]` in stereo `[2, T]` with constant power; `pan` from -1 (left) to 1 (right)."""
    angle = (pan + 1.0) * np.pi / 4.0
    return np.stack([np.cos(angle) * wave, np.sin(angle) * wave]).astype(np.float32)


def echo(wave: np.ndarray, delay_samples: int, feedback: float, level: float, repeats: int = 4) -> np.ndarray:
    """Add a ping-pong echo: `wave` `[2, T]`."""
    result = wave.astype(np.float32).copy()
    repeat = wave
    for number in range(1, repeats + 1):
        shift = number * delay_samples
        if shift >= wave.shape[1]:
            break
        repeat = repeat[::-1]
        result[:, shift:] += np.float32(level * feedback ** (number - 1)) * repeat[:, : wave.shape[1] - shift]
    return result


def reverberate(
    wave: np.ndarray, sample_rate_hz: int, decay_s: float, level: float, rng: np.random.Generator
) -> np.ndarray:
    """Add reverb of exponentially decaying noise: `wave` `[2, T]`."""
    time_s = np.arange(max(1, round(decay_s * sample_rate_hz))) / sample_rate_hz
    room = rng.standard_normal((2, len(time_s))) * 10.0 ** (-3.0 * time_s / decay_s)
    room = 0.5 * (room + np.roll(room, 1, axis=1))  # rooms swallow the treble first
    room[:, : int(0.012 * sample_rate_hz)] = 0.0
    room *= np.sqrt(level) / np.maximum(np.sqrt((room**2).sum(axis=1, keepdims=True)), 1e-9)
    dry = wave.astype(np.float32)
    return dry + oaconvolve(dry, room.astype(np.float32), axes=1)[:, : wave.shape[1]]


_CHANCES = {
    # equaliser, compressor, saturation, echo, room, width
    "drums": (0.7, 0.6, 0.35, 0.05, 0.4, 0.4),
    "bass": (0.7, 0.6, 0.35, 0.03, 0.08, 0.1),
    "other": (0.7, 0.35, 0.2, 0.2, 0.4, 0.5),
    "vocals": (0.8, 0.7, 0.2, 0.3, 0.65, 0.2),
}


@dataclass(frozen=True)
class EffectChain:
    """Effects in the order in which they are applied; None or an empty one is left out."""

    bands: tuple[Band, ...] = ()
    threshold_db: float | None = None
    ratio: float = 1.0
    attack_s: float = 0.01
    release_db_per_s: float = 60.0
    drive: float = 0.0
    bias: float = 0.0
    echo_s: float | None = None
    echo_feedback: float = 0.0
    echo_level: float = 0.0
    room_s: float | None = None
    room_level: float = 0.0
    width: float = 1.0

    def to_dict(self) -> dict[str, object]:
        """Return the active effects as JSON-able values."""
        plain = EffectChain()
        return {key: value for key, value in asdict(self).items() if value != getattr(plain, key)}


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw from a log-uniform distribution."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def draw_chain(stem: str, rng: np.random.Generator, beat_s: float = 0.5) -> EffectChain:
    """Draw effects for a stem."""
    eq, press, bend, delay, room, wide = (rng.random() < chance for chance in _CHANCES.get(stem, _CHANCES["other"]))
    bands = (
        Band("low_shelf", log_uniform(rng, 60.0, 300.0), float(rng.uniform(-5.0, 4.0))),
        Band("peak", log_uniform(rng, 200.0, 5000.0), float(rng.uniform(-6.0, 5.0)), log_uniform(rng, 0.4, 3.0)),
        Band("high_shelf", log_uniform(rng, 3000.0, 11_000.0), float(rng.uniform(-7.0, 6.0))),
    )
    threshold_db, ratio = float(rng.uniform(-16.0, -2.0)), float(rng.uniform(1.5, 6.0))
    attack_s, release_db_per_s = log_uniform(rng, 0.001, 0.04), log_uniform(rng, 20.0, 200.0)
    drive, bias = log_uniform(rng, 0.3, 4.0), float(rng.uniform(0.0, 0.3))
    echo_s, echo_feedback = float(rng.choice([0.5, 0.75, 1.0]) * beat_s), float(rng.uniform(0.2, 0.55))
    echo_level, room_s = log_uniform(rng, 0.05, 0.35), log_uniform(rng, 0.2, 2.5)
    room_level, width = log_uniform(rng, 0.005, 0.12 if stem != "vocals" else 0.25), float(rng.uniform(0.3, 1.5))
    return EffectChain(
        bands=bands if eq else (),
        threshold_db=threshold_db if press else None,
        ratio=ratio if press else 1.0,
        attack_s=attack_s,
        release_db_per_s=release_db_per_s,
        drive=drive if bend else 0.0,
        bias=bias if bend else 0.0,
        echo_s=echo_s if delay else None,
        echo_feedback=echo_feedback if delay else 0.0,
        echo_level=echo_level if delay else 0.0,
        room_s=room_s if room else None,
        room_level=room_level if room else 0.0,
        width=width if wide else 1.0,
    )


def apply_chain(wave: np.ndarray, chain: EffectChain, rng: np.random.Generator) -> np.ndarray:
    """Apply an effect chain to a stem: `wave` `[2, T]`."""
    power = float(np.mean(np.square(wave, dtype=np.float32))) if wave.size else 0.0
    if power <= 0.0:
        return wave.astype(np.float32)
    result = equalise(wave, SAMPLE_RATE_HZ, chain.bands)
    if chain.threshold_db is not None:
        at_db = chain.threshold_db + 10.0 * float(np.log10(power)) + 10.0
        settings = Compressor(at_db, chain.ratio, chain.attack_s, chain.release_db_per_s)
        result = compress(result, SAMPLE_RATE_HZ, settings)
    if chain.drive:
        result = saturate(result, chain.drive, chain.bias)
    if chain.echo_s is not None:
        delay_samples = max(1, round(chain.echo_s * SAMPLE_RATE_HZ))
        result = echo(result, delay_samples, chain.echo_feedback, chain.echo_level)
    if chain.room_s is not None:
        result = reverberate(result, SAMPLE_RATE_HZ, chain.room_s, chain.room_level, rng)
    if chain.width != 1.0:
        result = widen(result, chain.width)
    after = float(np.mean(np.square(result)))
    return result * np.float32(np.sqrt(power / after)) if after > 0.0 else result


_BLOCK_SAMPLES = 16
_SILENCE_DB = -120.0


class MixConfig(Config):
    """Balance and loudness of mixes; levels are RMS over the seconds in which a stem plays, in dB.

    `balance_db` gives mean and spread of each stem against the others. The mixture's loudness is drawn from
    `loudness_dbfs`; what then passes the ceiling is limited, but never by more than about `most_limited_db`.
    """

    balance_db: dict[str, tuple[float, float]] = {
        "drums": (0.0, 2.5),
        "bass": (-1.0, 2.5),
        "other": (-1.0, 3.0),
        "vocals": (1.0, 2.5),
    }
    loudness_dbfs: tuple[float, float] = (-22.0, -11.0)
    ceiling_dbfs: tuple[float, float] = (-3.0, -0.3)
    most_limited_db: float = Field(6.0, ge=0)


def active_rms(wave: np.ndarray) -> float:
    """Return the RMS over the seconds that are at most 30 dB below the loudest one: `wave` `[C, T]`."""
    starts = range(0, wave.shape[1], SAMPLE_RATE_HZ)
    power = np.array([float(np.mean(np.square(wave[:, start : start + SAMPLE_RATE_HZ]))) for start in starts] or [0.0])
    return float(np.sqrt(power[power >= power.max() * 1e-3].mean()))


def limit_together(waves: Mapping[str, np.ndarray], ceiling: float, reach_s: float = 0.004) -> dict[str, np.ndarray]:
    """Keep the mixture and every stem below a ceiling with one gain curve for all, so that the sum still holds."""
    if not waves:
        return {}
    length = next(iter(waves.values())).shape[1]
    peaks = block_peaks(np.sum(list(waves.values()), axis=0), _BLOCK_SAMPLES)
    for wave in waves.values():
        peaks = np.maximum(peaks, block_peaks(wave, _BLOCK_SAMPLES))
    knee = 0.7 * ceiling
    bent = knee + (ceiling - knee) * np.tanh((peaks - knee) / (ceiling - knee))
    gain = np.where(peaks > knee, bent / np.maximum(peaks, knee), 1.0)
    # Every mean of minima over a window that holds a block is at most the gain that this block needs.
    reach = max(1, round(reach_s * SAMPLE_RATE_HZ / _BLOCK_SAMPLES))
    lowest = minimum_filter1d(gain, 2 * reach + 3, mode="nearest")
    curve = ramped(uniform_filter1d(lowest, 2 * reach + 1, mode="nearest"), _BLOCK_SAMPLES, length)
    return {stem: np.asarray(wave * curve, np.float32) for stem, wave in waves.items()}


def mix_stems(waves: Mapping[str, np.ndarray], rng: np.random.Generator, config: MixConfig) -> dict[str, np.ndarray]:
    """Balance stems at random, set the mixture's loudness and limit it: `waves` `[2, T]`."""
    balanced = {}
    for stem, wave in waves.items():
        mean_db, spread_db = config.balance_db.get(stem, (-1.0, 2.5))
        wanted_db = mean_db + spread_db * float(np.clip(rng.standard_normal(), -2.0, 2.0))
        level = active_rms(wave)
        if 20.0 * np.log10(max(level, 1e-12)) > _SILENCE_DB:
            balanced[stem] = wave * np.float32(10.0 ** (wanted_db / 20.0) / level)
    return master(balanced, rng, config)


def master(waves: Mapping[str, np.ndarray], rng: np.random.Generator, config: MixConfig) -> dict[str, np.ndarray]:
    """Set a mixture's loudness with its balance kept, and limit it: `waves` `[2, T]`."""
    loudness_db, ceiling_db = float(rng.uniform(*config.loudness_dbfs)), float(rng.uniform(*config.ceiling_dbfs))
    if not waves:
        return {}
    ceiling = 10.0 ** (ceiling_db / 20.0)
    mixture = np.sum(list(waves.values()), axis=0)
    peak = max(float(np.abs(wave).max(initial=1e-9)) for wave in [mixture, *waves.values()])
    gain = 10.0 ** (loudness_db / 20.0) / max(active_rms(mixture), 1e-9)
    gain = np.float32(min(gain, ceiling * 10.0 ** (config.most_limited_db / 20.0) / peak))
    return limit_together({stem: wave * gain for stem, wave in waves.items()}, ceiling)
