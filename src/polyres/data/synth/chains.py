"""Effect chains: what an engineer might put on a stem, drawn afresh for every song."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from polyres.data.synth.effects import (
    Band,
    Compressor,
    compress,
    echo,
    equalise,
    reverberate,
    saturate,
    widen,
)
from polyres.data.synth.oscillators import SAMPLE_RATE_HZ

_CHANCES = {
    # equaliser, compressor, saturation, echo, room, width
    "drums": (0.7, 0.6, 0.35, 0.05, 0.4, 0.4),
    "bass": (0.7, 0.6, 0.35, 0.03, 0.08, 0.1),
    "other": (0.7, 0.35, 0.2, 0.2, 0.4, 0.5),
    "vocals": (0.8, 0.7, 0.2, 0.3, 0.65, 0.2),
}


@dataclass(frozen=True)
class Chain:
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
        """Return what is not at rest, as JSON holds it."""
        plain = Chain()
        return {key: value for key, value in asdict(self).items() if value != getattr(plain, key)}


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def draw_chain(stem: str, rng: np.random.Generator, beat_s: float = 0.5) -> Chain:
    """Draw effects for a stem.

    Args:
        stem: its name sets the odds; unknown ones are treated as `other`.
        rng: source of every choice; every call draws equally many numbers.
        beat_s: length of a beat in seconds, for echoes in time.

    Returns:
        The chain.
    """
    eq, press, bend, delay, room, wide = (rng.random() < chance for chance in _CHANCES.get(stem, _CHANCES["other"]))
    bands = (
        Band("low_shelf", _log_uniform(rng, 60.0, 300.0), float(rng.uniform(-5.0, 4.0))),
        Band("peak", _log_uniform(rng, 200.0, 5000.0), float(rng.uniform(-6.0, 5.0)), _log_uniform(rng, 0.4, 3.0)),
        Band("high_shelf", _log_uniform(rng, 3000.0, 11_000.0), float(rng.uniform(-7.0, 6.0))),
    )
    threshold_db, ratio = float(rng.uniform(-16.0, -2.0)), float(rng.uniform(1.5, 6.0))
    attack_s, release_db_per_s = _log_uniform(rng, 0.001, 0.04), _log_uniform(rng, 20.0, 200.0)
    drive, bias = _log_uniform(rng, 0.3, 4.0), float(rng.uniform(0.0, 0.3))
    echo_s, echo_feedback = float(rng.choice([0.5, 0.75, 1.0]) * beat_s), float(rng.uniform(0.2, 0.55))
    echo_level, room_s = _log_uniform(rng, 0.05, 0.35), _log_uniform(rng, 0.2, 2.5)
    room_level, width = _log_uniform(rng, 0.005, 0.12 if stem != "vocals" else 0.25), float(rng.uniform(0.3, 1.5))
    return Chain(
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


def apply_chain(wave: np.ndarray, chain: Chain, rng: np.random.Generator) -> np.ndarray:
    """Send a stem through its effects.

    Args:
        wave: float `[2, T]` at 44.1 kHz.
        chain: the effects; the compressor's threshold counts from 10 dB above the RMS.
        rng: draws the room's reflections.

    Returns:
        float32 `[2, T]` with the RMS of the input; silence stays silence.
    """
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
