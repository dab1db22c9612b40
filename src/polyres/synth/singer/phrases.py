"""Sing phrases with recorded notes, with doubles, harmonies, breath and reverb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.signal import butter, sosfilt

from polyres.synth.effects import echo, place, reverberate, tilt_eq
from polyres.synth.scores.composer import SCALES, Key, MelodyNote, draw_key, draw_melody, key_of
from polyres.synth.scores.midi import DRUM_CHANNEL, Score
from polyres.synth.singer.recordings import SAMPLE_RATE_HZ, Marked, VoiceBank, faded, frequency_of, resynthesise

_ONSET_S = 0.15
_ENDING_S = 0.12
_LONGEST_STRETCH = 2.5
_LOW_VOICE = 58


@dataclass(frozen=True)
class SingerStyle:
    """One singer and one arrangement; `centre` is a MIDI pitch, `size` a factor on the recording's formants."""

    centre: int
    size: float
    tempo_bpm: float
    vibrato_cents: float
    vibrato_hz: float
    glide_cents: float
    breath: float
    voices: tuple[tuple[int, float, float, float], ...]  # scale steps, cents, pan, level
    tilt_db: float
    reverb: tuple[float, float] | None
    echo_beats: tuple[float, float] | None


def draw_style(rng: np.random.Generator) -> SingerStyle:
    """Draw a singer: range, size, vibrato, breath, doubles, harmonies, colour and room."""
    low = rng.random() < 0.4
    voices: list[tuple[int, float, float, float]] = [(0, 0.0, float(rng.normal(0.0, 0.1)), 1.0)]
    if rng.random() < 0.4:
        width, level = float(rng.uniform(0.3, 0.9)), float(rng.uniform(0.3, 0.7))
        cents = float(rng.uniform(4.0, 14.0))
        voices += [(0, cents, -width, level), (0, -cents, width, level)]
    if rng.random() < 0.4:
        steps = int(rng.choice([2, -2, 4, 7, -7]))
        voices.append((steps, float(rng.normal(0.0, 6.0)), float(rng.uniform(-0.8, 0.8)), float(rng.uniform(0.2, 0.6))))
    return SingerStyle(
        centre=int(rng.integers(47, 58) if low else rng.integers(57, 72)),
        # Men have vocal tracts up to a quarter longer.
        size=float(rng.uniform(0.76, 0.92) if low else rng.uniform(0.9, 1.14)),
        tempo_bpm=float(rng.uniform(70.0, 150.0)),
        vibrato_cents=float(rng.choice([0.0, rng.uniform(8.0, 45.0)])),
        vibrato_hz=float(rng.uniform(4.5, 6.5)),
        glide_cents=float(rng.uniform(0.0, 120.0)),
        breath=float(np.exp(rng.uniform(np.log(0.003), np.log(0.08)))),
        voices=tuple(voices),
        tilt_db=float(rng.uniform(-1.5, 2.0)),
        reverb=(float(rng.uniform(0.3, 2.0)), float(rng.uniform(0.01, 0.15))) if rng.random() < 0.7 else None,
        echo_beats=(float(rng.choice([0.5, 0.75, 1.0])), float(rng.uniform(0.1, 0.35))) if rng.random() < 0.3 else None,
    )


def stretched(length: int, wanted: int) -> np.ndarray:
    """Map output samples to samples of a syllable: consonants at their speed, the middle stretched."""
    onset, ending = (min(round(s * SAMPLE_RATE_HZ), length // 3) for s in (_ONSET_S, _ENDING_S))
    result = min(wanted, int(_LONGEST_STRETCH * length))
    if result <= length:
        return np.arange(result, dtype=np.float64)
    return np.interp(np.arange(result), [0, onset, result - ending, result], [0, onset, length - ending, length])


def sing_note(
    sound: Marked, pitch: float, duration_s: float, style: SingerStyle, rng: np.random.Generator
) -> np.ndarray:
    """Sing one syllable at another pitch with its formants kept, with glide, vibrato and breath: `[T]`."""
    source = stretched(sound.length_samples, round(duration_s * SAMPLE_RATE_HZ))
    if len(source) < 2:
        return np.zeros(0, np.float32)
    time_s = np.arange(len(source)) / SAMPLE_RATE_HZ
    depth = np.clip((time_s - 0.2) / 0.4, 0.0, 1.0) * style.vibrato_cents
    cents = depth * np.sin(2 * np.pi * style.vibrato_hz * time_s + rng.uniform(0, 2 * np.pi))
    cents = cents + rng.normal(0.0, 5.0) - abs(rng.normal(0.0, 0.5)) * style.glide_cents * np.exp(-time_s / 0.06)
    note = resynthesise(sound, frequency_of(pitch) * 2.0 ** (cents / 1200.0), source, style.size)
    if style.breath:
        note = note + style.breath * _breath(note, rng)
    return faded(note.astype(np.float32), 220, 2200)


def _breath(note: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return air that follows the level of a note, float64 `[T]`."""
    air = sosfilt(
        butter(1, [1500.0, 9000.0], "bandpass", fs=SAMPLE_RATE_HZ, output="sos"), rng.standard_normal(len(note))
    )
    hop = 256
    padded = np.pad(note, (0, -len(note) % hop)).reshape(-1, hop)
    level = np.sqrt(np.mean(padded**2, axis=1))
    return air * np.interp(np.arange(len(note)), hop * (np.arange(len(level)) + 0.5), level)


def sing_melody(
    bank: VoiceBank, melody: Sequence[MelodyNote], key: Key, length_s: float, style: SingerStyle, seed: int
) -> np.ndarray:
    """Sing a melody with all voices of a style. Returns float32 `[2, T]` with T = round(length_s * 44100)."""
    rng = np.random.default_rng([seed, 1])
    words = [(int(rng.integers(1 << 30)), float(rng.normal(0.0, 2.0))) for _ in melody]
    line_level = np.cumsum(rng.normal(0.0, 0.5, len(melody))) if len(melody) else np.zeros(0)
    line_level = np.clip(line_level - line_level.mean() if len(melody) else line_level, -6.0, 6.0)
    mixed = np.zeros((2, round(length_s * SAMPLE_RATE_HZ)), np.float32)
    for number, (steps, cents, pan, level) in enumerate(style.voices):
        rng = np.random.default_rng([seed, 2, number])
        voice = np.zeros(mixed.shape[1], np.float32)
        for note, (word, accent_db), swell_db in zip(melody, words, line_level, strict=True):
            pitch = note.pitch + key.pitch(note.degree + steps, style.centre) - key.pitch(note.degree, style.centre)
            recorded = bank.nearest_pitch(pitch)
            sound = bank.sound(bank.paths[recorded][word % len(bank.paths[recorded])], recorded)
            sung = sing_note(sound, pitch + cents / 100.0, note.duration_s * 1.04, style, rng)
            start = max(0, round((note.start_s + rng.normal(0.0, 0.012)) * SAMPLE_RATE_HZ))
            sung = sung[: max(0, len(voice) - start)]
            voice[start : start + len(sung)] += sung * np.float32(10.0 ** ((accent_db + swell_db) / 20.0))
        mixed += np.float32(level) * place(voice, float(np.clip(pan, -1.0, 1.0)))
    return mixed


def degree_of(pitch: int, key: Key, centre: int) -> int:
    """Return the scale step of a pitch, counted as `Key.pitch` does; pitches between two steps belong to the lower."""
    octave, rest = divmod(pitch - key.pitch(0, centre), 12)
    steps = SCALES[key.scale]
    return octave * len(steps) + sum(step <= rest for step in steps) - 1


def sing_notes(
    bank: VoiceBank, score: Score, length_s: float, style: SingerStyle, rng: np.random.Generator
) -> np.ndarray:
    """Sing the vocals of a score, without any room. Returns float32 `[2, T]` with T = round(length_s * 44100)."""
    tonal = [note.pitch for part in score.stems.values() for note in part if note.channel != DRUM_CHANNEL]
    key, octave = key_of(tonal), -12 if style.centre < _LOW_VOICE else 0
    melody = [
        MelodyNote(
            note.start_s, note.end_s - note.start_s, note.pitch + octave, degree_of(note.pitch, key, style.centre)
        )
        for note in score.stems["vocals"]
        if note.start_s < length_s
    ]
    return sing_melody(bank, melody, key, length_s, style, int(rng.integers(1 << 31)))


def sing_track(
    bank: VoiceBank, seed: int, length_s: float, key: Key | None = None
) -> tuple[np.ndarray, dict[str, object]]:
    """Render one vocals track: draw a singer and a melody, sing it and add reverb: `[2, T]`."""
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
