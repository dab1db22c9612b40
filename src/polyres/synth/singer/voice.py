"""A built-in singer: glottal pulses and breath through moving formants, with consonants, vibrato and glides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, lfilter, sosfilt

from polyres.synth.instruments.oscillators import SAMPLE_RATE_HZ
from polyres.synth.scores.midi import Note

VOWELS: dict[str, tuple[tuple[float, float], ...]] = {
    "a": ((800.0, 80.0), (1150.0, 90.0), (2900.0, 120.0), (3900.0, 130.0), (4950.0, 140.0)),
    "e": ((400.0, 60.0), (1900.0, 80.0), (2700.0, 120.0), (3600.0, 130.0), (4950.0, 150.0)),
    "i": ((300.0, 55.0), (2200.0, 90.0), (2950.0, 100.0), (3700.0, 120.0), (4950.0, 140.0)),
    "o": ((450.0, 70.0), (800.0, 80.0), (2830.0, 100.0), (3800.0, 130.0), (4950.0, 135.0)),
    "u": ((330.0, 50.0), (700.0, 60.0), (2700.0, 170.0), (3800.0, 180.0), (4950.0, 200.0)),
    "m": ((250.0, 60.0), (1100.0, 200.0), (2200.0, 250.0), (3200.0, 300.0), (4500.0, 300.0)),
}
"""Centre and bandwidth of five formants in Hz, after published averages of sung vowels."""

_TABLE_SAMPLES = 2048
_FRAMES = 12
_FRICATIVES_HZ = ((4500.0, 9500.0), (2200.0, 6500.0), (1200.0, 7500.0))
_GLIDE_S = 0.06
_FADE_S = 0.012
_RELEASE_S = 0.05


@dataclass(frozen=True)
class Voice:
    """A drawn singer; `tilt` is the source's fall in dB per octave, `size` scales all formants."""

    octave: int
    size: float
    tilt: float
    breath: float
    vibrato_hz: float
    vibrato_cents: float
    drift_cents: float
    consonants: float
    doubled: bool


def draw_voice(rng: np.random.Generator) -> Voice:
    """Draw a singer between child and bass."""
    octave = int(rng.choice([-1, 0], p=[0.45, 0.55]))
    return Voice(
        octave=octave,
        size=float(rng.uniform(0.82, 1.0) if octave else rng.uniform(0.98, 1.25)),
        tilt=float(rng.uniform(-11.0, -4.0)),
        breath=float(np.exp(rng.uniform(np.log(0.005), np.log(0.12)))),
        vibrato_hz=float(rng.uniform(4.6, 6.4)),
        vibrato_cents=float(rng.uniform(5.0, 55.0)),
        drift_cents=float(rng.uniform(3.0, 14.0)),
        consonants=float(rng.uniform(0.3, 1.2)),
        doubled=bool(rng.random() < 0.3),
    )


def formant_response(frequency_hz: np.ndarray, formants: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return the complex response of a vocal tract.

    Source: Klatt 1980, "Software for a cascade/parallel formant synthesizer", cascade of second-order resonators.
    """
    response = np.ones(len(frequency_hz), complex)
    for centre_hz, width_hz in formants:
        response *= centre_hz**2 / (centre_hz**2 - frequency_hz**2 + 1j * frequency_hz * width_hz)
    return response


def _between(first: str, last: str, share: float, size: float) -> list[tuple[float, float]]:
    """Return the formants on the way from one vowel to another."""
    pairs = zip(VOWELS[first], VOWELS[last], strict=True)
    return [
        (size * (a[0] ** (1.0 - share) * b[0] ** share), size * ((1.0 - share) * a[1] + share * b[1])) for a, b in pairs
    ]


def _tables(pitch_hz: float, first: str, last: str, voice: Voice) -> np.ndarray:
    """Return single cycles on the way from one vowel to another, float32 `[frames, 2048]` of equal power."""
    count = int(min(16_000.0 / pitch_hz, _TABLE_SAMPLES // 2 - 1))
    harmonics_hz = pitch_hz * np.arange(1, count + 1)
    # A glottal pulse falls by about 12 dB per octave; the mouth gives back 6 of them.
    source = 10.0 ** ((voice.tilt + 6.0) * np.log2(harmonics_hz / pitch_hz) / 20.0)
    spectra = np.zeros((_FRAMES, _TABLE_SAMPLES // 2 + 1), complex)
    for frame in range(_FRAMES):
        formants = _between(first, last, frame / (_FRAMES - 1), voice.size)
        spectra[frame, 1 : count + 1] = source * formant_response(harmonics_hz, formants)
    cycles = np.fft.irfft(spectra, _TABLE_SAMPLES)
    return (cycles / np.sqrt(np.mean(cycles**2, axis=1, keepdims=True))).astype(np.float32)


def pitch_curve(
    length: int, pitch: float, before: float | None, voice: Voice, rng: np.random.Generator, strain: float = 1.0
) -> np.ndarray:
    """Draw how a sung pitch moves: a glide from the note before, a late vibrato, slow drift: `[length]`."""
    time_s = np.arange(length) / SAMPLE_RATE_HZ
    start = pitch - 0.7 if before is None else before
    glide = (start - pitch) * np.exp(-time_s / (_GLIDE_S / 3.0))
    swell = np.clip((time_s - 0.2) / 0.3, 0.0, 1.0)
    vibrato = voice.vibrato_cents * swell * np.sin(2 * np.pi * (voice.vibrato_hz * time_s + rng.random()))
    points = rng.standard_normal(int(time_s[-1] / 0.15) + 3)
    drift = voice.drift_cents * np.interp(time_s / 0.15, np.arange(len(points)), points)
    drift *= np.clip(time_s / 0.1, 0.0, 1.0)
    semitones = pitch + glide + strain * (vibrato + 0.5 * drift) / 100.0
    return np.asarray(440.0 * 2.0 ** ((semitones - 69.0) / 12.0))


def _voiced(frequency_hz: np.ndarray, vowels: tuple[str, str], voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """Sing along a pitch from one vowel to the next, float64 `[T]`."""
    length = len(frequency_hz)
    tables = _tables(float(np.median(frequency_hz)), *vowels, voice)
    phase = np.cumsum(frequency_hz) / SAMPLE_RATE_HZ
    # Mouths move early in a note and then rest.
    path = np.clip(np.arange(length) / (0.35 * length + 1), 0.0, 1.0) * (_FRAMES - 1.001)
    frame = path.astype(np.int32)
    place = (phase - np.floor(phase)) * _TABLE_SAMPLES
    index = place.astype(np.int32) % _TABLE_SAMPLES
    flat, position = tables.reshape(-1), frame * _TABLE_SAMPLES + index
    low = flat[position]
    tone = low + (path - frame) * (flat[position + _TABLE_SAMPLES] - low)
    noise = rng.standard_normal(length) * (0.6 + 0.4 * np.sin(2 * np.pi * phase))
    return tone + voice.breath * _breath(noise, vowels[1], voice)


def _breath(noise: np.ndarray, vowel: str, voice: Voice) -> np.ndarray:
    """Send noise through the formants, at the power of the noise."""
    wave = noise
    for centre_hz, width_hz in VOWELS[vowel][1:4]:
        radius = np.exp(-np.pi * 3.0 * width_hz / SAMPLE_RATE_HZ)
        turn = 2.0 * np.pi * min(voice.size * centre_hz, 18_000.0) / SAMPLE_RATE_HZ
        wave = wave + 3.0 * lfilter([1.0 - radius], [1.0, -2.0 * radius * np.cos(turn), radius**2], noise)
    return np.asarray(wave / max(float(np.sqrt(np.mean(wave**2))), 1e-9) * np.sqrt(np.mean(noise**2)))


def _consonant(voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """Draw a fricative or a burst, float64 `[T]`."""
    low_hz, high_hz = _FRICATIVES_HZ[int(rng.integers(len(_FRICATIVES_HZ)))]
    plosive = rng.random() < 0.45
    length = round((rng.uniform(0.008, 0.03) if plosive else rng.uniform(0.04, 0.13)) * SAMPLE_RATE_HZ)
    edges = [voice.size * low_hz, min(voice.size * high_hz, 16_000.0)]
    sections = butter(2, edges, "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
    noise = sosfilt(sections, rng.standard_normal(length))
    time = np.arange(length) / length
    shape = np.exp(-4.0 * time) if plosive else np.sin(np.pi * time) ** 0.7
    return np.asarray(rng.uniform(0.15, 0.6) * voice.consonants * noise * shape)


def _fades(length: int, held: int) -> np.ndarray:
    """Return the level of a note that is held and then released."""
    time_s = np.arange(length) / SAMPLE_RATE_HZ
    rise = np.minimum(time_s / _FADE_S, 1.0)
    fall = np.clip(1.0 - (time_s - held / SAMPLE_RATE_HZ) / _RELEASE_S, 0.0, 1.0)
    return np.asarray(np.sin(0.5 * np.pi * rise) ** 2 * fall**2)


def _sing_line(notes: Sequence[Note], voice: Voice, rng: np.random.Generator, length: int) -> np.ndarray:
    """Sing notes one after another, float64 `[length]`."""
    wave = np.zeros(length)
    vowel, before, end_s = "a", None, -1.0
    for note in sorted(notes, key=lambda n: n.start_s):
        start = round(note.start_s * SAMPLE_RATE_HZ)
        if start >= length:
            break
        held = max(round((note.end_s - note.start_s) * SAMPLE_RATE_HZ), round(0.05 * SAMPLE_RATE_HZ))
        count = held + round(_RELEASE_S * SAMPLE_RATE_HZ)
        pitch = note.pitch + 12.0 * voice.octave
        legato = note.start_s - end_s < 0.06
        following = str(rng.choice(list(VOWELS)[:5]))
        entry = "m" if not legato and rng.random() < 0.2 else vowel
        curve = pitch_curve(count, pitch, before if legato else None, voice, rng)
        sound = _voiced(curve, (entry, following), voice, rng) * _fades(count, held)
        sound *= (note.velocity / 127.0) ** 1.2
        _add(wave, sound, start)
        if not legato or rng.random() < 0.6:
            burst = _consonant(voice, rng) * (note.velocity / 127.0)
            _add(wave, burst, start - len(burst) // 2)
        vowel, before, end_s = following, pitch, note.end_s
    return wave


def _add(wave: np.ndarray, sound: np.ndarray, start: int) -> None:
    """Add a sound at its position; what exceeds the end is cut."""
    first, last = max(start, 0), min(start + len(sound), len(wave))
    if first < last:
        wave[first:last] += sound[first - start : last - start]


def sing_formants(
    notes: Sequence[Note], rng: np.random.Generator, length_s: float, voice: Voice | None = None
) -> np.ndarray:
    """Sing a melody on vowels with consonants, without any recording: `[2, T]`."""
    voice = voice or draw_voice(rng)
    length = round(length_s * SAMPLE_RATE_HZ)
    lead = _sing_line(notes, voice, rng, length)
    sides = np.stack([lead, lead])
    if voice.doubled:
        for side in range(2):
            again = _sing_line(notes, voice, rng, length)
            delay = round(rng.uniform(0.012, 0.03) * SAMPLE_RATE_HZ)
            sides[side, delay:] += 0.6 * again[: max(length - delay, 0)]
    loud = np.abs(sides).max(axis=0) > 1e-3
    level = float(np.sqrt(np.mean(sides[:, loud] ** 2))) if loud.any() else 1.0
    return np.asarray(0.1 / level * sides, np.float32)
