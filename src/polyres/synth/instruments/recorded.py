"""Play a score with recordings of single notes and hits, one folder per instrument."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.signal import butter, resample_poly, sosfilt

from polyres.audio.files import read_audio
from polyres.core.errors import InputError
from polyres.synth.effects import log_uniform
from polyres.synth.instruments.drum_machine import role_of
from polyres.synth.instruments.oscillators import SAMPLE_RATE_HZ
from polyres.synth.scores.midi import Note, Score
from polyres.synth.singer.recordings import track_pitch

_SUFFIXES = (".wav", ".flac", ".ogg")
_NOTE = re.compile(r"([a-g])([b#]?)(-?\d)$")
_STEPS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_HITS = (
    (r"kick|kdrum|^ks", "kick"),
    (r"snare|^s[ces]$", "snare"),
    (r"clap", "clap"),
    (r"h(i|igh)?-?hat-?open|^ho$", "open"),
    (r"hat|^h[a-z]$", "closed"),
    (r"ride", "ride"),
    (r"crash|china|splash", "crash"),
    (r"^t[lm]$|tom[3-9]|low-?tom", "low_tom"),
    (r"^th$|tom", "high_tom"),
)
_INSTEAD = {"clap": "snare", "crash": "open", "ride": "closed", "open": "closed", "low_tom": "high_tom"}
_RELEASE_S = 0.08
_COARSER = 4
_AMPLIFIED = 0.5
_HELD = 256  # sounds in memory, about 1.4 MB each
RECORDED_SHARE = 0.75
"""How likely a stem is played by recorded instruments where there are some."""
_FARTHEST = 7
"""Semitones that a recording is moved at most; notes outside sound octaves away."""


@dataclass(frozen=True)
class Sound:
    """One recorded note or hit; `level` is the RMS of its first half second."""

    path: Path
    level: float


@dataclass(frozen=True)
class Recorded:
    """The sounds of one instrument, softest first: by MIDI pitch, or by the role of a drum."""

    name: str
    notes: dict[int, list[Sound]]
    hits: dict[str, list[Sound]]


@lru_cache(maxsize=4)
def open_recordings(folder: str) -> tuple[Recorded, ...]:
    """Read a folder of instruments.

    Each sub-folder is an instrument; those whose names begin with `drums` and `bass` play these stems, the rest play
    the other one. A file begins with its note (`eb2_f_rr1.ogg`; c4 is middle C) or its drum (`snare_03.wav`). Notes an
    octave or two away from their names are heard and moved; how loud a file is says how hard it was played.
    """
    try:
        folders = sorted(path for path in Path(folder).iterdir() if path.is_dir())
    except OSError as error:
        raise InputError(f"cannot open '{folder}' ({error.strerror}); give a folder of instruments") from error
    found = tuple(one for one in map(_read_instrument, folders) if one.notes or one.hits)
    if not found:
        raise InputError(
            f"no instrument in '{folder}'; it needs folders such as bass_electric with files such as eb2_soft.wav"
        )
    return found


def _read_instrument(folder: Path) -> Recorded:
    one = Recorded(folder.name, {}, {})
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES):
        word = path.stem.lower().split("_")[0]
        note = _NOTE.match(word)
        role = next((role for pattern, role in _HITS if re.search(pattern, word)), None)
        if folder.name.startswith("drums") and role is not None:
            one.hits.setdefault(role, []).append(_open_sound(path))
        elif note is not None and "staccato" not in path.stem:
            sharp = {"b": -1, "#": 1, "": 0}[note[2]]
            one.notes.setdefault(12 * (int(note[3]) + 1) + _STEPS[note[1]] + sharp, []).append(_open_sound(path))
    for sounds in (*one.notes.values(), *one.hits.values()):
        sounds.sort(key=lambda sound: sound.level)
    octaves = _octaves_off(one.notes)
    return Recorded(one.name, {pitch + 12 * octaves: sounds for pitch, sounds in one.notes.items()}, one.hits)


@lru_cache(maxsize=_HELD)
def _read(path: Path) -> np.ndarray:
    """Read a sound from where it begins: float32 `[2, T]` at 44.1 kHz."""
    wave, rate_hz = read_audio(path)
    if rate_hz != SAMPLE_RATE_HZ:
        raise InputError(f"'{path}' has {rate_hz} Hz; recordings of instruments need {SAMPLE_RATE_HZ}")
    wave = np.repeat(wave, 2, axis=0) if len(wave) == 1 else wave[:2]
    loud = np.abs(wave).max(axis=0)
    return wave[:, int(np.argmax(loud > 0.02 * loud.max(initial=0.0))) :]


def _open_sound(path: Path) -> Sound:
    return Sound(path, float(np.sqrt(np.mean(np.square(_read(path)[:, : SAMPLE_RATE_HZ // 2])))))


def _octaves_off(notes: dict[int, list[Sound]]) -> int:
    """Hear how many octaves the notes sound above their names: the median over all of them."""
    heard = []
    for pitch, sounds in notes.items():
        wave = resample_poly(_read(sounds[-1].path).mean(axis=0)[SAMPLE_RATE_HZ // 10 : SAMPLE_RATE_HZ], 1, _COARSER)
        frequency_hz, periodic = track_pitch(wave, SAMPLE_RATE_HZ / _COARSER, low_hz=27.0)
        if (periodic > 0.8).any():
            heard.append(12 * np.log2(np.median(frequency_hz[periodic > 0.8]) / 440) + 69 - pitch)
    return round(float(np.median(heard)) / 12) if heard else 0


def _pick(sounds: Sequence[Sound], velocity: int, rng: np.random.Generator) -> Sound:
    """Choose a recording that was played about as hard as asked, with a little chance."""
    wanted = len(sounds) * velocity / 128 + rng.normal(0.0, 0.06 * len(sounds))
    return sounds[int(np.clip(wanted, 0, len(sounds) - 1))]


def _play_note(one: Recorded, note: Note, rng: np.random.Generator) -> np.ndarray:
    """Return one note `[2, T]`: the nearest recording at another speed, damped where the note ends."""
    lowest, highest = min(one.notes) - _FARTHEST, max(one.notes) + _FARTHEST
    pitch = note.pitch
    pitch += 12 * max(0, -(-(lowest - pitch) // 12)) - 12 * max(0, -(-(pitch - highest) // 12))
    nearest = min(one.notes, key=lambda there: (abs(there - pitch), there))
    wave = _read(_pick(one.notes[nearest], note.velocity, rng).path)
    speed = 2.0 ** ((pitch - nearest + rng.normal(0.0, 0.03)) / 12.0)
    held, release = (round(seconds * SAMPLE_RATE_HZ) for seconds in (note.end_s - note.start_s, _RELEASE_S))
    length = max(1, min(held + release, int((wave.shape[1] - 1) / speed)))
    times = np.arange(length) * speed
    played = np.stack([np.interp(times, np.arange(len(side)), side) for side in wave])
    damped = min(length, release)
    played[:, length - damped :] *= np.linspace(1.0, 0.0, damped)
    return played


def _amplify(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Play through an amplifier that distorts, from hardly to heavily, and a cabinet."""
    drive = log_uniform(rng, 0.5, 30.0)
    loud = float(np.quantile(np.abs(wave[:, ::8]), 0.995)) + 1e-6
    cabinet = butter(
        2,
        (log_uniform(rng, 40.0, 120.0), log_uniform(rng, 3000.0, 7000.0)),
        "bandpass",
        fs=SAMPLE_RATE_HZ,
        output="sos",
    )
    return np.asarray(sosfilt(cabinet, np.tanh(drive * wave / loud)), np.float32)


def _events(one: Recorded, notes: Sequence[Note], rng: np.random.Generator) -> Iterator[tuple[float, np.ndarray]]:
    """Yield start in seconds and sound of every note that the instrument can play."""
    for note in sorted(notes, key=lambda one_note: (one_note.start_s, one_note.pitch)):
        if one.hits:
            role = role_of(note.pitch)
            while role not in one.hits and role in _INSTEAD:
                role = _INSTEAD[role]
            if role in one.hits:
                yield note.start_s, _read(_pick(one.hits[role], note.velocity, rng).path)
        else:
            yield note.start_s, _play_note(one, note, rng) * (note.velocity / 127.0) ** 0.5


def render_recorded(
    score: Score, rng: np.random.Generator, length_s: float, folder: str, stems: Collection[str]
) -> dict[str, np.ndarray]:
    """Play stems of a score with recorded instruments, drawn anew for every part.

    `folder`: as for `open_recordings`; returns stem name to float32 `[2, T]` at 44.1 kHz with T = round(length_s *
    44100), not normalised; stems for which there is no instrument are left out.
    """
    length = round(length_s * SAMPLE_RATE_HZ)
    waves: dict[str, np.ndarray] = {}
    for stem in stems:
        able = [one for one in open_recordings(folder) if one.name.startswith(stem)]
        if stem == "other":
            able = [one for one in open_recordings(folder) if not one.name.startswith(("drums", "bass"))]
        parts: dict[tuple[int, int], list[Note]] = {}
        for note in score.stems.get(stem, ()):
            parts.setdefault((0, 0) if stem == "drums" else (note.channel, note.program), []).append(note)
        if not parts or not able:
            continue
        total = np.zeros((2, length), np.float32)
        for _, notes in sorted(parts.items()):
            wave = np.zeros((2, length), np.float32)
            for start_s, sound in _events(able[int(rng.integers(len(able)))], notes, rng):
                start = round(start_s * SAMPLE_RATE_HZ)
                kept = max(0, min(sound.shape[1], length - start))
                wave[:, start : start + kept] += sound[:, :kept].astype(np.float32)
            if stem != "drums" and rng.random() < _AMPLIFIED:
                wave = _amplify(wave, rng)
            level = float(np.sqrt(np.mean(np.square(wave)))) + 1e-9
            total += np.float32(10.0 ** (rng.normal(0.0, 2.0 if stem == "other" else 0.0) / 20.0) / level) * wave
        waves[stem] = total
    return waves
