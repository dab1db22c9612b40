"""Recordings of sung notes: any folder of them, with the pitch taken from names or heard."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from polyres.core.errors import InputError
from polyres.data.audio import read_audio
from polyres.data.synth.psola import Marked, mark_periods, track_pitch

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
    """Find a note name within a longer one, such as `vowel_a_F#4_soft`.

    Args:
        name: without folder and suffix.

    Returns:
        MIDI pitch of the last note name that a person can sing, or None.
    """
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
        """List the sung notes in a folder, at any depth.

        Args:
            folder: audio files of one note each. The pitch is that of the nearest folder named after one (`A3`), else
                of a note name in the file's name (`la_F#4.wav`), else what is heard.

        Returns:
            The bank.

        Raises:
            InputError: if there is no recording, none with a pitch, or one that cannot be read.
        """
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
        """Return one recording at 44.1 kHz, cleaned and cut into periods.

        Args:
            path: the recording.
            pitch: MIDI pitch it was sung at.

        Returns:
            The sound; empty when nothing stands out of the noise.

        Raises:
            InputError: if it cannot be read.
        """
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
    """Hear the pitch of a sung note.

    Args:
        wave: mono `[T]`.
        sample_rate_hz: its rate.

    Returns:
        The nearest MIDI pitch of the first two seconds that sound, or None where there is no steady one.
    """
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
    """Remove offset, silence and noise around a sung syllable and bring it to 44.1 kHz.

    Args:
        wave: mono `[T]`, may carry a constant offset and a noise floor.
        sample_rate_hz: its rate.

    Returns:
        float32 `[T]`, RMS 0.1, faded at both ends; empty when nothing stands out of the noise.
    """
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
