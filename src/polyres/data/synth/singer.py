"""A singer made of recorded syllables: notes chained to phrases, with doubles, harmonies and a room."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from polyres.core.errors import InputError
from polyres.data.synth.effects import echo, place, reverberate, tilt_eq
from polyres.data.synth.melody import Key, MelodyNote, draw_key, draw_melody

SAMPLE_RATE_HZ = 44_100
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg")
_NOTE_NAME = re.compile(r"^([A-G])([#b]?)(-?\d)$")
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_GATE_DB = -30.0
_FRAME_SAMPLES = 441
_KEPT_SOUNDS = 400


def pitch_of(name: str) -> int | None:
    """Return the MIDI pitch of a note name such as A3 or F#4 (C4 is 60), or None when it is none."""
    match = _NOTE_NAME.match(name)
    if match is None:
        return None
    letter, sign, octave = match.groups()
    return 12 * (int(octave) + 1) + _SEMITONES[letter] + {"": 0, "#": 1, "b": -1}[sign]


@dataclass
class VoiceBank:
    """Recorded syllables by pitch; sounds are read, gated and faded when first needed."""

    paths: dict[int, list[Path]]
    _sounds: dict[Path, np.ndarray] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> VoiceBank:
        """List a folder whose sub-folders are named after the pitch of the recordings in them.

        Args:
            folder: holds sub-folders such as `A3` and `D4` with audio files.

        Returns:
            The bank.

        Raises:
            InputError: if no such sub-folder with audio files is there.
        """
        folder = Path(folder)
        paths: dict[int, list[Path]] = {}
        for sub in sorted(folder.iterdir()) if folder.is_dir() else ():
            pitch = pitch_of(sub.name)
            if pitch is not None and sub.is_dir():
                found = sorted(path for path in sub.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES)
                if found:
                    paths[pitch] = found
        if not paths:
            raise InputError(f"no recordings in '{folder}'; it needs sub-folders named after pitches, such as A3")
        return cls(paths)

    def nearest_pitch(self, pitch: float) -> int:
        """Return the recorded pitch nearest to the wanted one."""
        return min(self.paths, key=lambda known: abs(known - pitch))

    def sound(self, path: Path) -> np.ndarray:
        """Return one recording, mono float32 `[T]` at 44.1 kHz, without offset and silence, faded at both ends."""
        sound = self._sounds.get(path)
        if sound is None:
            if len(self._sounds) >= _KEPT_SOUNDS:
                self._sounds.clear()
            sound = self._sounds[path] = clean_syllable(*_read_mono(path))
        return sound


def _read_mono(path: Path) -> tuple[np.ndarray, int]:
    wave, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    return wave.mean(axis=1), rate_hz


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
    return _faded(cut, 220, 880)


def _faded(wave: np.ndarray, fade_in: int, fade_out: int) -> np.ndarray:
    wave = wave.copy()
    fade_in, fade_out = min(fade_in, len(wave) // 2), min(fade_out, len(wave) // 2)
    if fade_in:
        wave[:fade_in] *= np.linspace(0.0, 1.0, fade_in, dtype=np.float32)
    if fade_out:
        wave[-fade_out:] *= np.linspace(1.0, 0.0, fade_out, dtype=np.float32)
    return wave


@dataclass(frozen=True)
class SingerStyle:
    """One singer and one arrangement; pitches in MIDI semitones, times in seconds."""

    centre: int
    recorded_shift: int
    tempo_bpm: float
    vibrato_cents: float
    vibrato_hz: float
    glide_cents: float
    voices: tuple[tuple[int, float, float, float], ...]  # scale steps, cents, pan, level
    tilt_db: float
    reverb: tuple[float, float] | None
    echo_beats: tuple[float, float] | None


def draw_style(rng: np.random.Generator) -> SingerStyle:
    """Draw a singer: range, vibrato, doubles, harmonies, colour and room."""
    # A low singer is the recordings slowed down: its formants move along, which makes another, larger person.
    shift = int(rng.choice([-9, -7, -5, 0, 0, 0, 0, 2, 3]))
    centre = int(rng.integers(56, 71)) + shift
    voices: list[tuple[int, float, float, float]] = [(0, 0.0, float(rng.normal(0.0, 0.1)), 1.0)]
    if rng.random() < 0.4:
        width, level = float(rng.uniform(0.3, 0.9)), float(rng.uniform(0.3, 0.7))
        cents = float(rng.uniform(4.0, 14.0))
        voices += [(0, cents, -width, level), (0, -cents, width, level)]
    if rng.random() < 0.4:
        steps = int(rng.choice([2, -2, 4, 7, -7]))
        voices.append((steps, float(rng.normal(0.0, 6.0)), float(rng.uniform(-0.8, 0.8)), float(rng.uniform(0.2, 0.6))))
    return SingerStyle(
        centre=centre,
        recorded_shift=shift,
        tempo_bpm=float(rng.uniform(70.0, 150.0)),
        vibrato_cents=float(rng.choice([0.0, rng.uniform(8.0, 45.0)])),
        vibrato_hz=float(rng.uniform(4.5, 6.5)),
        glide_cents=float(rng.uniform(0.0, 120.0)),
        voices=tuple(voices),
        tilt_db=float(rng.uniform(-1.5, 2.0)),
        reverb=(float(rng.uniform(0.3, 2.0)), float(rng.uniform(0.01, 0.15))) if rng.random() < 0.7 else None,
        echo_beats=(float(rng.choice([0.5, 0.75, 1.0])), float(rng.uniform(0.1, 0.35))) if rng.random() < 0.3 else None,
    )


def sing_note(
    sound: np.ndarray, ratio: float, duration_s: float, style: SingerStyle, rng: np.random.Generator
) -> np.ndarray:
    """Sing one syllable at another pitch by resampling it with glide and vibrato.

    Args:
        sound: mono `[T]` at 44.1 kHz.
        ratio: wanted frequency against recorded frequency, above 0.
        duration_s: longest result in seconds; shorter syllables end earlier.
        style: vibrato and glide.
        rng: draws their phase and size.

    Returns:
        float32 `[T]`.
    """
    length = min(round(duration_s * SAMPLE_RATE_HZ), int(len(sound) / ratio))
    if length < 2:
        return np.zeros(0, np.float32)
    time_s = np.arange(length) / SAMPLE_RATE_HZ
    depth = np.clip((time_s - 0.2) / 0.4, 0.0, 1.0) * style.vibrato_cents
    cents = depth * np.sin(2 * np.pi * style.vibrato_hz * time_s + rng.uniform(0, 2 * np.pi))
    cents = cents + rng.normal(0.0, 5.0) - abs(rng.normal(0.0, 0.5)) * style.glide_cents * np.exp(-time_s / 0.06)
    position = np.cumsum(ratio * 2.0 ** (cents / 1200.0))
    note = np.interp(position, np.arange(len(sound)), sound, right=0.0).astype(np.float32)
    return _faded(note, 220, 2200)


def sing_melody(
    bank: VoiceBank, melody: Sequence[MelodyNote], key: Key, length_s: float, style: SingerStyle, seed: int
) -> np.ndarray:
    """Sing a melody with all voices of a style.

    Args:
        bank: recorded syllables.
        melody: what to sing.
        key: gives the harmonies their steps.
        length_s: length of the result in seconds.
        style: singer and arrangement.
        seed: seed of syllables and small variations.

    Returns:
        float32 `[2, T]` with T = round(length_s * 44100).
    """
    rng = np.random.default_rng([seed, 1])
    words = [(int(rng.integers(1 << 30)), float(rng.normal(0.0, 2.0))) for _ in melody]
    line_level = np.cumsum(rng.normal(0.0, 0.5, len(melody))) if len(melody) else np.zeros(0)
    line_level = np.clip(line_level - line_level.mean() if len(melody) else line_level, -6.0, 6.0)
    mixed = np.zeros((2, round(length_s * SAMPLE_RATE_HZ)), np.float32)
    for number, (steps, cents, pan, level) in enumerate(style.voices):
        rng = np.random.default_rng([seed, 2, number])
        voice = np.zeros(mixed.shape[1], np.float32)
        for note, (word, accent_db), swell_db in zip(melody, words, line_level, strict=True):
            pitch = key.pitch(note.degree + steps, style.centre) - style.recorded_shift
            recorded = bank.nearest_pitch(pitch)
            sound = bank.sound(bank.paths[recorded][word % len(bank.paths[recorded])])
            ratio = 2.0 ** ((pitch - recorded + style.recorded_shift + cents / 100.0) / 12.0)
            sung = sing_note(sound, ratio, note.duration_s * 1.04, style, rng)
            start = max(0, round((note.start_s + rng.normal(0.0, 0.012)) * SAMPLE_RATE_HZ))
            sung = sung[: max(0, len(voice) - start)]
            voice[start : start + len(sung)] += sung * np.float32(10.0 ** ((accent_db + swell_db) / 20.0))
        mixed += np.float32(level) * place(voice, float(np.clip(pan, -1.0, 1.0)))
    return mixed


def sing_track(
    bank: VoiceBank, seed: int, length_s: float, key: Key | None = None
) -> tuple[np.ndarray, dict[str, object]]:
    """Make one vocals track: draw a singer and a melody, sing it and place it in a room.

    Args:
        bank: recorded syllables.
        seed: the track depends on it alone.
        length_s: length in seconds, above 0.
        key: key to sing in; None draws one.

    Returns:
        float32 `[2, T]` peaking at -3 dBFS, and a JSON-able description.
    """
    rng = np.random.default_rng([seed, 0])
    key = key or draw_key(rng)
    style = draw_style(rng)
    melody = draw_melody(rng, key, max(0.0, length_s - 1.0), style.centre, style.tempo_bpm)
    wave = sing_melody(bank, melody, key, length_s, style, seed)
    wave = tilt_eq(wave, SAMPLE_RATE_HZ, style.tilt_db, low_cut_hz=70.0)
    peak = max(float(np.abs(wave).max(initial=0.0)), 1e-9)
    drive = float(rng.uniform(0.5, 2.5))
    wave = np.tanh(drive * wave / peak).astype(np.float32)
    if style.echo_beats is not None:
        delay_samples = round(style.echo_beats[0] * 60.0 / style.tempo_bpm * SAMPLE_RATE_HZ)
        wave = echo(wave, delay_samples, 0.5, style.echo_beats[1])
    if style.reverb is not None:
        wave = reverberate(wave, SAMPLE_RATE_HZ, *style.reverb, rng)
    wave *= np.float32(0.7 / max(float(np.abs(wave).max(initial=0.0)), 1e-9))
    return wave, {"seed": seed, "key": asdict(key), "style": asdict(style), "notes": len(melody)}
