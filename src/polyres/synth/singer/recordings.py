"""Recordings of sung notes, and their change of pitch and length with the formants kept."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from polyres.audio.files import read_audio
from polyres.core.errors import InputError

_HOP_S = 0.005
_WINDOW_S = 0.04
_VOICED = 0.6
_UNVOICED_S = 0.006
_FINER = 4
_COARSER = 3


@dataclass(frozen=True)
class Marked:
    """A mono sound cut into periods.

    `finer` is the sound at four times its rate; `position` says in samples where each period has its centre, `period`
    how long it is there, `voiced` whether the sound has a pitch there. A sound without marks is too short to be cut.
    """

    finer: np.ndarray
    sample_rate_hz: int
    position: np.ndarray
    period: np.ndarray
    voiced: np.ndarray

    @property
    def length_samples(self) -> int:
        """Length of the sound at its own rate."""
        return len(self.finer) // _FINER

    @property
    def frequency_hz(self) -> float | None:
        """Median of the voiced pitch, or None where there is none."""
        return self.sample_rate_hz / float(np.median(self.period[self.voiced])) if self.voiced.any() else None


def track_pitch(
    wave: np.ndarray, sample_rate_hz: float, low_hz: float = 65.0, high_hz: float = 1100.0
) -> tuple[np.ndarray, np.ndarray]:
    """Follow the pitch of a mono sound every 5 ms.

    Source: McLeod and Wyvill 2005, A Smarter Way to Find Pitch (normalised square difference).
    """
    hop, size = round(_HOP_S * sample_rate_hz), round(max(_WINDOW_S, 2.2 / low_hz) * sample_rate_hz)
    if len(wave) < size:
        return np.zeros(0), np.zeros(0)
    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(wave, np.float32), size)[::hop]
    longest = min(int(np.ceil(sample_rate_hz / low_hz)) + 1, size - 2)
    shortest = max(2, int(sample_rate_hz / high_hz))
    padded = 1 << (size + longest).bit_length()
    spectrum = np.fft.rfft(frames, padded)
    products = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, padded)[:, : longest + 1]
    power = np.concatenate([np.zeros((len(frames), 1)), np.cumsum(np.square(frames, dtype=np.float64), axis=1)], axis=1)
    lags = np.arange(longest + 1)
    energy = power[:, size - lags] + power[:, [size]] - power[:, lags]
    likeness = 2.0 * products / np.maximum(energy, 1e-9)
    inner = likeness[:, shortest:longest]
    peaks = (inner >= likeness[:, shortest - 1 : longest - 1]) & (inner > likeness[:, shortest + 1 : longest + 1])
    heights = np.where(peaks, inner, -1.0)
    best = heights.max(axis=1)
    # The first peak nearly as high as the highest one: later ones are its multiples.
    lag = shortest + np.argmax(heights >= 0.9 * best[:, None], axis=1)
    rows = np.arange(len(lag))
    before, at, after = (likeness[rows, lag + step] for step in (-1, 0, 1))
    bend = np.minimum(before - 2.0 * at + after, -1e-9)
    return sample_rate_hz / (lag + 0.5 * (before - after) / bend), np.where(best > 0.0, at, 0.0)


def mark_periods(wave: np.ndarray, sample_rate_hz: int, expected_hz: float | None = None) -> Marked:
    """Cut a mono sound into periods. `wave`: float `[T]`."""
    around = (65.0, 1100.0) if expected_hz is None else (expected_hz / 2**0.5, expected_hz * 2**0.5)
    # A third of the rate holds all harmonics that tell a voice's pitch, at a third of the work.
    coarser = _COARSER if len(wave) > _COARSER else 1
    slow_hz = sample_rate_hz / coarser
    frequency_hz, strength = track_pitch(resample_poly(wave, 1, coarser) if len(wave) else wave, slow_hz, *around)
    finer = resample_poly(np.asarray(wave, np.float32), _FINER, 1).astype(np.float32)
    hop = coarser * round(_HOP_S * slow_hz)
    centre = coarser * round(max(_WINDOW_S, 2.2 / around[0]) * slow_hz) // 2
    # The glottis closes where the larger excursions point.
    sign = 1.0 if np.sum(np.asarray(wave, np.float64) ** 3) >= 0.0 else -1.0
    position: list[float] = []
    period: list[float] = []
    voiced: list[bool] = []
    now = 0.0
    while len(frequency_hz) and now < len(wave):
        frame = int(np.clip(round((now - centre) / hop), 0, len(frequency_hz) - 1))
        sung = strength[frame] > _VOICED
        length = sample_rate_hz / frequency_hz[frame] if sung else _UNVOICED_S * sample_rate_hz
        if sung:
            reach = 0.5 * length if not (voiced and voiced[-1]) else 0.2 * length
            first = max(0, round(_FINER * (now - reach)))
            part = finer[first : max(first + 1, round(_FINER * (now + reach)))]
            if len(part):
                now = max((first + int(np.argmax(sign * part))) / _FINER, position[-1] + 1.0 if position else 0.0)
        position.append(now)
        period.append(length)
        voiced.append(bool(sung))
        now += length
    return Marked(finer, sample_rate_hz, np.array(position), np.array(period), np.array(voiced, bool))


def resynthesise(sound: Marked, frequency_hz: np.ndarray, source: np.ndarray, size: float = 1.0) -> np.ndarray:
    """Sing a sound along another pitch and time.

    Source: Moulines and Charpentier 1990, Pitch-Synchronous Waveform Processing Techniques (TD-PSOLA).
    """
    length = len(frequency_hz)
    result = np.zeros(length, np.float32)
    if not len(sound.position) or not length:
        return result
    between = 0.5 * (sound.position[1:] + sound.position[:-1])
    nearest = np.searchsorted(between, source)
    last = len(sound.finer) - 1
    now = 0.0
    while now < length:
        start = int(now)
        mark = int(nearest[start])
        period = float(sound.period[mark])
        step = sound.sample_rate_hz / float(frequency_hz[start]) if sound.voiced[mark] else period
        half = max(2, int(period / size))
        offset = np.arange(max(-half, -start), min(half, length - 1 - start) + 1)
        taken = _FINER * (sound.position[mark] + size * (offset + (start - now)))
        index = np.clip(np.rint(taken), 0, last).astype(np.int64)
        inside = (taken >= 0.0) & (taken <= last)
        window = (0.5 + 0.5 * np.cos(np.pi * offset / (half + 1))) * inside
        # Grains that lie closer together than they were add up to more.
        level = np.sqrt(step / (half + 1))
        result[start + offset[0] : start + offset[-1] + 1] += (level * window * sound.finer[index]).astype(np.float32)
        now += max(step, 2.0)
    return result


SAMPLE_RATE_HZ = 44_100
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".aiff", ".aif", ".mp3")
_NOTE_NAME = re.compile(r"^([A-G])([#b]?)(-?\d)$")
_NOTE_IN_NAME = re.compile(r"(?<![A-Za-z0-9#])([A-Ga-g])(#|b|sharp|flat|s)?(\d)(?![A-Za-z0-9])")
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SIGNS = {"": 0, "#": 1, "s": 1, "sharp": 1, "b": -1, "flat": -1}
_SUNG = range(33, 97)
_GATE_DB = -30.0
_FRAME_SAMPLES = 441
_KEPT_SOUNDS = 400


def pitch_of(name: str) -> int | None:
    """Return the MIDI pitch of a note name such as A3 or F#4 (C4 is 60), or None when it is none."""
    match = _NOTE_NAME.match(name)
    if match is None:
        return None
    letter, sign, octave = match.groups()
    return 12 * (int(octave) + 1) + _SEMITONES[letter] + _SIGNS[sign]


def pitch_in(name: str) -> int | None:
    """Find a note name within a longer one, such as `vowel_a_F#4_soft`."""
    found = None
    for letter, sign, octave in _NOTE_IN_NAME.findall(name):
        pitch = 12 * (int(octave) + 1) + _SEMITONES[letter.upper()] + _SIGNS[sign]
        found = pitch if pitch in _SUNG else found
    return found


@dataclass
class VoiceBank:
    """Recordings by pitch; sounds are read, cleaned and cut into periods when first needed."""

    paths: dict[int, list[Path]]
    _sounds: dict[Path, Marked] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> VoiceBank:
        """List the sung notes in a folder, at any depth."""
        folder = Path(folder)
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
        paths: dict[int, list[Path]] = {}
        for path in found:
            inside = path.relative_to(folder)
            if any(part.startswith(".") for part in inside.parts):
                continue
            pitch = _pitch_by_name(folder.name, inside)
            if pitch is None:
                pitch = heard_pitch(*_read_mono(path))
            if pitch is not None:
                paths.setdefault(pitch, []).append(path)
        if not found:
            raise InputError(f"no recordings in '{folder}'; it needs audio files of sung notes, such as A3/la.wav")
        if not paths:
            raise InputError(f"no recording in '{folder}' has a pitch; name the files after notes, such as la_A3.wav")
        return cls(paths)

    def nearest_pitch(self, pitch: float) -> int:
        """Return the recorded pitch nearest to the wanted one."""
        return min(self.paths, key=lambda known: abs(known - pitch))

    def sound(self, path: Path, pitch: int) -> Marked:
        """Return one recording at 44.1 kHz, cleaned and cut into periods."""
        sound = self._sounds.get(path)
        if sound is None:
            if len(self._sounds) >= _KEPT_SOUNDS:
                self._sounds.clear()
            clean = clean_syllable(*_read_mono(path))
            sound = self._sounds[path] = mark_periods(clean, SAMPLE_RATE_HZ, frequency_of(pitch))
        return sound


def frequency_of(pitch: float) -> float:
    """Return the frequency in Hz of a MIDI pitch."""
    return 440.0 * 2.0 ** ((pitch - 69.0) / 12.0)


def _pitch_by_name(root: str, inside: Path) -> int | None:
    """Look for a pitch in the names on the way to a file, the nearest first."""
    folders: Iterable[str] = (*reversed(inside.parts[:-1]), root)
    by_folder = next((pitch for pitch in map(pitch_of, folders) if pitch is not None), None)
    return by_folder if by_folder is not None else pitch_in(inside.stem)


def heard_pitch(wave: np.ndarray, sample_rate_hz: int) -> int | None:
    """Hear the pitch of a sung note: `wave` `[T]`."""
    wave = clean_syllable(wave, sample_rate_hz)[: 2 * SAMPLE_RATE_HZ]
    frequency_hz, strength = track_pitch(wave, SAMPLE_RATE_HZ)
    clear = strength > 0.8
    if clear.sum() < 10:
        return None
    pitch = round(float(69.0 + 12.0 * np.log2(np.median(frequency_hz[clear]) / 440.0)))
    return pitch if pitch in _SUNG else None


def _read_mono(path: Path) -> tuple[np.ndarray, int]:
    wave, rate_hz = read_audio(path)
    return wave.mean(axis=0), rate_hz


def clean_syllable(wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Remove offset, silence and noise around a sung syllable and bring it to 44.1 kHz: `wave` `[T]`."""
    wave = wave - np.median(wave) if len(wave) else wave
    if sample_rate_hz != SAMPLE_RATE_HZ:
        times = np.arange(int(len(wave) * SAMPLE_RATE_HZ / sample_rate_hz)) * sample_rate_hz / SAMPLE_RATE_HZ
        wave = np.interp(times, np.arange(len(wave)), wave)
    frames = len(wave) // _FRAME_SAMPLES
    if frames == 0:
        return np.zeros(0, np.float32)
    level = np.sqrt((wave[: frames * _FRAME_SAMPLES].reshape(frames, -1) ** 2).mean(axis=1))
    loud = np.flatnonzero(level > level.max() * 10.0 ** (_GATE_DB / 20.0))
    if level.max() < 1e-4:
        return np.zeros(0, np.float32)
    start = max(0, (loud[0] - 2) * _FRAME_SAMPLES)
    cut = wave[start : (loud[-1] + 2) * _FRAME_SAMPLES].astype(np.float32)
    # A slow gate keeps the recording's noise out of the gaps between its two halves.
    gate = np.clip(level / (level.max() * 10.0 ** (-36.0 / 20.0)), 0.0, 1.0) ** 2
    centres = (np.arange(frames) + 0.5) * _FRAME_SAMPLES - start
    cut = cut * np.interp(np.arange(len(cut)), centres, gate).astype(np.float32)
    cut *= np.float32(0.1 / max(float(np.sqrt((cut**2).mean())), 1e-6))
    return faded(cut, 220, 880)


def faded(wave: np.ndarray, fade_in: int, fade_out: int) -> np.ndarray:
    """Return a copy of a mono wave `[T]` with straight fades of so many samples, at most half its length each."""
    wave = wave.copy()
    fade_in, fade_out = min(fade_in, len(wave) // 2), min(fade_out, len(wave) // 2)
    if fade_in:
        wave[:fade_in] *= np.linspace(0.0, 1.0, fade_in, dtype=np.float32)
    if fade_out:
        wave[-fade_out:] *= np.linspace(1.0, 0.0, fade_out, dtype=np.float32)
    return wave
