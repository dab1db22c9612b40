"""A drum machine: kits of synthesised hits, from deep kicks to metallic cymbals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.signal import butter, sosfilt

from polyres.synth.instruments.oscillators import SAMPLE_RATE_HZ
from polyres.synth.scores.midi import Note

_VARIANTS = 3
_METAL_HZ = np.array([205.3, 304.4, 369.6, 522.7, 540.0, 800.0])

Hit = Callable[[np.random.Generator], np.ndarray]


def _time_s(length_s: float) -> np.ndarray:
    return np.arange(max(1, round(length_s * SAMPLE_RATE_HZ))) / SAMPLE_RATE_HZ


def _band(wave: np.ndarray, low_hz: float | None, high_hz: float | None, order: int = 2) -> np.ndarray:
    if low_hz is not None and high_hz is not None:
        sections = butter(order, [low_hz, min(high_hz, 20_000.0)], "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
    elif low_hz is not None:
        sections = butter(order, low_hz, "highpass", fs=SAMPLE_RATE_HZ, output="sos")
    else:
        sections = butter(order, high_hz, "lowpass", fs=SAMPLE_RATE_HZ, output="sos")
    return np.asarray(sosfilt(sections, wave))


def sweep(time_s: np.ndarray, from_hz: float, to_hz: float, fall_s: float) -> np.ndarray:
    """Return a sine whose frequency falls exponentially. `time_s`: float `[T]`; returns float64 `[T]`."""
    cycles = to_hz * time_s + (from_hz - to_hz) * fall_s * (1.0 - np.exp(-time_s / fall_s))
    return np.sin(2.0 * np.pi * cycles)


def _kick(rng: np.random.Generator) -> Hit:
    end_hz = float(np.exp(rng.uniform(np.log(30.0), np.log(75.0))))
    start_hz = end_hz * rng.uniform(2.5, 12.0)
    # One kit in four rings like a long sub kick, which is what a bass line is most easily taken for.
    shortest_s, longest_s = (0.4, 0.9) if rng.uniform() < 0.25 else (0.05, 0.45)
    fall_s, decay_s = rng.uniform(0.008, 0.05), float(np.exp(rng.uniform(np.log(shortest_s), np.log(longest_s))))
    click, drive = rng.uniform(0.0, 0.5), rng.uniform(0.3, 4.0)
    click_hz = rng.uniform(1000.0, 6000.0)

    def hit(draw: np.random.Generator) -> np.ndarray:
        time_s = _time_s(min(6.0 * decay_s, 2.4))
        body = sweep(time_s, start_hz, end_hz, fall_s) * np.exp(-time_s / decay_s)
        noise = _band(draw.standard_normal(len(time_s)), None, click_hz) * np.exp(-time_s / 0.003)
        return np.asarray(np.tanh(drive * (body + click * noise)) / np.tanh(drive))

    return hit


def _snare(rng: np.random.Generator) -> Hit:
    tone_hz, decay_s = rng.uniform(140.0, 330.0), rng.uniform(0.03, 0.14)
    noise_decay_s, noise = float(np.exp(rng.uniform(np.log(0.04), np.log(0.25)))), rng.uniform(0.4, 1.2)
    low_hz, high_hz = rng.uniform(300.0, 2500.0), rng.uniform(6000.0, 18_000.0)
    tone, drive = rng.uniform(0.2, 1.0), rng.uniform(0.3, 3.0)

    def hit(draw: np.random.Generator) -> np.ndarray:
        time_s = _time_s(6.0 * max(decay_s, noise_decay_s))
        body = sweep(time_s, 1.6 * tone_hz, tone_hz, 0.012) + 0.5 * sweep(time_s, 2.4 * tone_hz, 1.6 * tone_hz, 0.01)
        wires = _band(draw.standard_normal(len(time_s)), low_hz, high_hz) * np.exp(-time_s / noise_decay_s)
        wave = tone * body * np.exp(-time_s / decay_s) + noise * wires
        return np.asarray(np.tanh(drive * wave) / drive)

    return hit


def _clap(rng: np.random.Generator) -> Hit:
    centre_hz, decay_s = rng.uniform(900.0, 2200.0), rng.uniform(0.06, 0.25)
    bursts, gap_s = int(rng.integers(2, 5)), rng.uniform(0.006, 0.016)

    def hit(draw: np.random.Generator) -> np.ndarray:
        time_s = _time_s(0.05 + 5.0 * decay_s)
        shape = np.zeros(len(time_s))
        for number in range(bursts):
            since_s = time_s - number * gap_s
            fall_s = decay_s if number == bursts - 1 else 0.006
            shape = np.maximum(shape, np.where(since_s >= 0, np.exp(-np.maximum(since_s, 0.0) / fall_s), 0.0))
        return 1.5 * _band(draw.standard_normal(len(time_s)), 0.5 * centre_hz, 3.0 * centre_hz) * shape

    return hit


def _metal(rng: np.random.Generator, decay_s: tuple[float, float], low_hz: tuple[float, float]) -> Hit:
    fall_s = float(np.exp(rng.uniform(np.log(decay_s[0]), np.log(decay_s[1]))))
    tuning, metal = rng.uniform(0.8, 3.0), rng.uniform(0.0, 0.8)
    cut_hz, dark_hz = rng.uniform(*low_hz), rng.uniform(9000.0, 19_000.0)

    def hit(draw: np.random.Generator) -> np.ndarray:
        time_s = _time_s(5.0 * fall_s)
        partials = np.sign(np.sin(2.0 * np.pi * tuning * _METAL_HZ[:, None] * time_s + draw.uniform(0, 6.3, (6, 1))))
        wave = metal * partials.mean(axis=0) + (1.0 - metal) * draw.standard_normal(len(time_s))
        return 0.7 * _band(_band(wave, cut_hz, None, 4), None, dark_hz) * np.exp(-time_s / fall_s)

    return hit


def _tom(rng: np.random.Generator, pitch_hz: float) -> Hit:
    decay_s, drop = rng.uniform(0.08, 0.3), rng.uniform(1.2, 2.2)

    def hit(draw: np.random.Generator) -> np.ndarray:
        time_s = _time_s(5.0 * decay_s)
        noise = _band(draw.standard_normal(len(time_s)), 200.0, 3000.0) * np.exp(-time_s / 0.015)
        return sweep(time_s, drop * pitch_hz, pitch_hz, 0.03) * np.exp(-time_s / decay_s) + 0.2 * noise

    return hit


def _wood(rng: np.random.Generator) -> Hit:
    pitch_hz, decay_s = rng.uniform(450.0, 1900.0), rng.uniform(0.012, 0.06)

    def hit(draw: np.random.Generator) -> np.ndarray:
        time_s = _time_s(6.0 * decay_s)
        wave = np.sin(2.0 * np.pi * pitch_hz * time_s) + 0.6 * np.sin(2.0 * np.pi * 1.48 * pitch_hz * time_s)
        return (wave + 0.2 * draw.standard_normal(len(time_s))) * np.exp(-time_s / decay_s)

    return hit


def role_of(pitch: int) -> str:
    """Name the instrument of a General MIDI drum note."""
    for name, pitches in _ROLES.items():
        if pitch in pitches:
            return name
    return "wood"


_ROLES: dict[str, tuple[int, ...]] = {
    "kick": (35, 36),
    "snare": (38, 40),
    "clap": (39,),
    "closed": (42, 44, 69, 70, 82),
    "open": (46,),
    "ride": (51, 53, 59),
    "crash": (49, 52, 55, 57),
    "low_tom": (41, 43, 45, 64, 66),
    "high_tom": (47, 48, 50, 60, 61, 62, 63, 65),
}
_GAINS_DB = {
    "kick": (0.0, 2.0),
    "snare": (-4.0, 2.5),
    "clap": (-7.0, 3.0),
    "closed": (-13.0, 4.0),
    "open": (-13.0, 4.0),
    "ride": (-15.0, 4.0),
    "crash": (-12.0, 3.0),
    "low_tom": (-5.0, 3.0),
    "high_tom": (-6.0, 3.0),
    "wood": (-11.0, 4.0),
}


def _draw_instrument(role: str, rng: np.random.Generator) -> Hit:
    makers: dict[str, Callable[[], Hit]] = {
        "kick": lambda: _kick(rng),
        "snare": lambda: _snare(rng),
        "clap": lambda: _clap(rng),
        "closed": lambda: _metal(rng, (0.012, 0.07), (4000.0, 10_000.0)),
        "open": lambda: _metal(rng, (0.1, 0.4), (3000.0, 9000.0)),
        "ride": lambda: _metal(rng, (0.3, 0.9), (2500.0, 7000.0)),
        "crash": lambda: _metal(rng, (0.4, 1.0), (1500.0, 5000.0)),
        "low_tom": lambda: _tom(rng, float(rng.uniform(60.0, 110.0))),
        "high_tom": lambda: _tom(rng, float(rng.uniform(110.0, 220.0))),
        "wood": lambda: _wood(rng),
    }
    return makers[role]()


def play_drums(notes: Sequence[Note], rng: np.random.Generator, length_samples: int) -> np.ndarray:
    """Play drum notes on a freshly drawn kit. Returns float32 `[2, T]`."""
    kit: dict[str, tuple[list[np.ndarray], float, float]] = {}
    wave = np.zeros((2, length_samples), np.float32)
    for note in sorted(notes, key=lambda n: (n.start_s, n.pitch)):
        role = role_of(note.pitch)
        if role not in kit:
            hit = _draw_instrument(role, rng)
            mean_db, spread_db = _GAINS_DB[role]
            gain = 10.0 ** (rng.normal(mean_db, spread_db) / 20.0)
            pan = 0.0 if role in ("kick", "snare") else float(rng.uniform(-0.6, 0.6))
            kit[role] = ([hit(rng) for _ in range(_VARIANTS)], gain, pan)
        variants, gain, pan = kit[role]
        sound = variants[int(rng.integers(_VARIANTS))]
        start = round(note.start_s * SAMPLE_RATE_HZ)
        kept = min(len(sound), length_samples - start)
        if kept <= 0:
            continue
        level = gain * (note.velocity / 127.0) ** 1.5
        angle = (pan + 1.0) * np.pi / 4.0
        sides = np.array([[np.cos(angle)], [np.sin(angle)]]) * np.sqrt(2.0)
        wave[:, start : start + kept] += (level * sides * sound[:kept]).astype(np.float32)
    return wave
