"""Render a score with randomly drawn synthesisers and a drum machine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from polyres.synth.effects import echo, log_uniform, reverberate, tilt_eq
from polyres.synth.instruments.drum_machine import play_drums
from polyres.synth.instruments.oscillators import (
    SAMPLE_RATE_HZ,
    Shape,
    envelope,
    frequency_modulated,
    play_table,
    table_path,
    wavetable,
)
from polyres.synth.scores.midi import STEMS, Note, Score

_KICKS = (35, 36)
_FAMILIES: tuple[tuple[range, str], ...] = (
    (range(16), "keys"),
    (range(16, 24), "organ"),
    (range(24, 32), "pluck"),
    (range(32, 40), "bass"),
    (range(40, 56), "pad"),
    (range(56, 80), "lead"),
    (range(80, 88), "lead"),
    (range(88, 96), "pad"),
    (range(96, 104), "keys"),
    (range(104, 112), "pluck"),
)


@dataclass(frozen=True)
class Patch:
    """A drawn instrument; cutoffs move from `bright_hz` to `dark_hz` over `sweep_s`."""

    shape: Shape
    voices: int
    detune_cents: float
    sub: float
    fm_ratio: float
    fm_index: float
    resonance: float
    order: int
    bright_hz: float
    dark_hz: float
    sweep_s: float
    wobble_hz: float
    attack_s: float
    decay_s: float
    sustain: float
    release_s: float
    drive: float
    vibrato_cents: float
    spread: float
    pan: float
    tilt_db: float
    low_cut_hz: float


def family_of(program: int) -> str:
    """Return the kind of patch that plays a General MIDI program: keys, organ, pluck, bass, pad or lead."""
    return next((family for programs, family in _FAMILIES if program in programs), "pluck")


def draw_patch(program: int, rng: np.random.Generator) -> Patch:
    """Draw an instrument for a General MIDI program. `program`: 0 to 127; its family sets the ranges."""
    family = family_of(program)
    shapes = {
        "bass": ("saw", "square", "sine", "triangle", "pulse"),
        "organ": ("organ",),
        "pad": ("saw", "saw", "pulse", "triangle", "square"),
        "lead": ("saw", "square", "pulse", "saw", "sine"),
        "keys": ("sine", "triangle", "pulse", "organ"),
        "pluck": ("saw", "pulse", "square", "triangle"),
    }[family]
    lasting = family in ("organ", "pad", "lead") or (family == "bass" and rng.random() < 0.7)
    wide = {"pad": (3, 6), "lead": (1, 5), "pluck": (1, 3), "keys": (1, 2), "organ": (1, 1), "bass": (1, 2)}[family]
    dark_hz = log_uniform(rng, 90.0, 900.0) if family == "bass" else log_uniform(rng, 350.0, 9000.0)
    fm_odds = {"keys": 0.7, "bass": 0.2, "lead": 0.2, "pluck": 0.25}.get(family, 0.0)
    return Patch(
        shape=Shape(str(rng.choice(shapes)), float(rng.random())),
        voices=int(rng.integers(wide[0], wide[1] + 1)),
        detune_cents=float(rng.uniform(3.0, 22.0)),
        sub=float(rng.uniform(0.2, 1.0)) if family == "bass" and rng.random() < 0.5 else 0.0,
        fm_ratio=float(rng.choice([0.5, 1.0, 1.0, 2.0, 3.0, 3.5, 7.0])),
        fm_index=float(rng.uniform(0.5, 5.0)) if rng.random() < fm_odds else 0.0,
        resonance=float(rng.uniform(0.0, 0.6) ** 1.5),
        order=int(rng.choice([2, 4])),
        bright_hz=min(dark_hz * log_uniform(rng, 1.0, 12.0), 18_000.0),
        dark_hz=dark_hz,
        sweep_s=log_uniform(rng, 0.03, 0.8),
        wobble_hz=float(rng.uniform(1.0, 8.0)) if family == "bass" and rng.random() < 0.12 else 0.0,
        attack_s=log_uniform(rng, 0.02, 0.5) if family == "pad" else log_uniform(rng, 0.001, 0.02),
        decay_s=log_uniform(rng, 0.08, 0.7),
        sustain=float(rng.uniform(0.5, 1.0)) if lasting else float(rng.uniform(0.0, 0.15)),
        release_s=log_uniform(rng, 0.02, 0.4) if family in ("pad", "keys") else log_uniform(rng, 0.008, 0.08),
        drive=float(rng.uniform(0.0, 4.0)) if rng.random() < 0.4 else 0.0,
        vibrato_cents=float(rng.uniform(0.0, 25.0)) if family == "lead" else 0.0,
        spread=0.0 if family == "bass" else float(rng.uniform(0.0, 1.0)),
        pan=0.0 if family == "bass" else float(rng.uniform(-0.5, 0.5)),
        tilt_db=0.0 if family == "bass" else float(rng.uniform(-1.0, 5.0)),
        low_cut_hz=0.0 if family == "bass" else log_uniform(rng, 60.0, 500.0),
    )


def _turns(pitch_hz: float, time_s: np.ndarray, vibrato_cents: float) -> np.ndarray:
    """Return the phase of a note in cycles, float64 `[T]`, with a delayed vibrato."""
    if not vibrato_cents:
        return np.arange(1, len(time_s) + 1) * (pitch_hz / SAMPLE_RATE_HZ)
    bend = vibrato_cents * np.sin(2.0 * np.pi * 5.4 * time_s) * np.minimum(time_s / 0.4, 1.0)
    return np.cumsum(pitch_hz * 2.0 ** (bend / 1200.0), dtype=np.float64) / SAMPLE_RATE_HZ


def _play_note(patch: Patch, pitch: int, held_s: float, rng: np.random.Generator) -> np.ndarray:
    """Return one note at full velocity, float32 `[2, T]`."""
    pitch_hz = 440.0 * 2.0 ** ((pitch - 69) / 12.0)
    held = max(1, round(held_s * SAMPLE_RATE_HZ))
    length = held + round(5.0 * patch.release_s * SAMPLE_RATE_HZ)
    time_s = np.arange(length, dtype=np.float32) / SAMPLE_RATE_HZ
    level = envelope(length, held, patch.attack_s, patch.decay_s, patch.sustain, patch.release_s)
    sweep = patch.dark_hz + (patch.bright_hz - patch.dark_hz) * np.exp(-time_s / patch.sweep_s)
    if patch.wobble_hz:
        sweep = sweep * 2.0 ** (1.5 * np.sin(2.0 * np.pi * patch.wobble_hz * time_s))
    # The filter follows the keys half-way, as on most synthesisers.
    cutoff_hz = (sweep * (pitch_hz / 220.0) ** 0.5).astype(np.float32)
    tables, cutoffs = wavetable(patch.shape, pitch_hz, patch.resonance, patch.order)
    path = table_path(cutoffs, cutoff_hz)
    turns = _turns(pitch_hz, time_s, patch.vibrato_cents)
    index = patch.fm_index * (0.2 + 0.8 * np.exp(-time_s / patch.sweep_s)) if patch.fm_index else None
    wave = np.zeros((2, length), np.float32)
    for voice in range(patch.voices):
        place = 0.0 if patch.voices == 1 else 2.0 * voice / (patch.voices - 1) - 1.0
        phase = turns * 2.0 ** (place * patch.detune_cents / 1200.0) + rng.random()
        sound = play_table(tables, path, phase) if index is None else frequency_modulated(phase, patch.fm_ratio, index)
        angle = (np.clip(patch.pan + patch.spread * place, -1.0, 1.0) + 1.0) * np.pi / 4.0
        wave += np.sqrt(2.0) * np.array([[np.cos(angle)], [np.sin(angle)]], np.float32) * sound
    wave /= np.sqrt(patch.voices)
    if patch.sub:
        wave += patch.sub * np.sin(2.0 * np.pi * pitch_hz * time_s + 0.3, dtype=np.float32)
    return np.asarray(wave * level, np.float32)


def _play_patch(patch: Patch, notes: Sequence[Note], rng: np.random.Generator, length_samples: int) -> np.ndarray:
    """Play all notes of one instrument, float32 `[2, T]`."""
    wave = np.zeros((2, length_samples), np.float32)
    for note in notes:
        start = round(note.start_s * SAMPLE_RATE_HZ)
        if start >= length_samples:
            continue
        sound = _play_note(patch, note.pitch, note.end_s - note.start_s, rng)
        kept = min(sound.shape[1], length_samples - start)
        wave[:, start : start + kept] += np.float32((note.velocity / 127.0) ** 1.3) * sound[:, :kept]
    if patch.drive:
        peak = float(np.quantile(np.abs(wave[:, ::8]), 0.995)) + 1e-6
        wave = np.asarray(np.tanh(patch.drive * wave / peak) * (peak / np.tanh(patch.drive)), np.float32)
    if patch.low_cut_hz:
        wave = tilt_eq(wave, SAMPLE_RATE_HZ, patch.tilt_db, patch.low_cut_hz)
    return wave


def _add_room(wave: np.ndarray, rng: np.random.Generator, beat_s: float) -> np.ndarray:
    """Add echo in time with the music and a room, each by chance."""
    if rng.random() < 0.35:
        delay = round(float(rng.choice([0.5, 0.75, 1.0])) * beat_s * SAMPLE_RATE_HZ)
        wave = echo(wave, delay, float(rng.uniform(0.2, 0.6)), float(rng.uniform(0.1, 0.45)))
    if rng.random() < 0.6:
        wave = reverberate(wave, SAMPLE_RATE_HZ, float(rng.uniform(0.3, 2.5)), float(rng.uniform(0.02, 0.35)), rng)
    return wave


def _pump(drums: Sequence[Note], length_samples: int, depth: float, recovery_s: float) -> np.ndarray:
    """Return the gain `[T]` of a compressor that ducks at every bass drum."""
    gain = np.ones(length_samples, np.float32)
    shape_s = np.arange(round(4.0 * recovery_s * SAMPLE_RATE_HZ), dtype=np.float32) / SAMPLE_RATE_HZ
    dip = 1.0 - depth * np.exp(-shape_s / recovery_s) * np.minimum(shape_s / 0.004, 1.0)
    for note in drums:
        start = round(note.start_s * SAMPLE_RATE_HZ)
        kept = min(len(dip), length_samples - start)
        if note.pitch in _KICKS and kept > 0:
            gain[start : start + kept] = np.minimum(gain[start : start + kept], dip[:kept])
    return gain


def render_electronic(
    score: Score,
    rng: np.random.Generator,
    length_s: float,
    ducking: float = 0.0,
    beat_s: float = 0.5,
    stems: Collection[str] = STEMS,
) -> dict[str, np.ndarray]:
    """Render a score with newly drawn synthesisers and drums: `[2, T]`."""
    length = round(length_s * SAMPLE_RATE_HZ)
    drums = score.stems.get("drums", ())
    gain = _pump(drums, length, float(rng.uniform(0.3, 0.9)), float(rng.uniform(0.05, 0.2)))
    ducked = rng.random() < ducking
    waves: dict[str, np.ndarray] = {}
    if drums and "drums" in stems:
        wave = play_drums(drums, rng, length)
        if rng.random() < 0.4:
            wave = reverberate(wave, SAMPLE_RATE_HZ, float(rng.uniform(0.2, 1.2)), float(rng.uniform(0.01, 0.12)), rng)
        waves["drums"] = wave
    for stem in ("bass", "other"):
        parts: dict[tuple[int, int], list[Note]] = {}
        for note in score.stems.get(stem, ()):
            parts.setdefault((note.channel, note.program), []).append(note)
        if not parts or stem not in stems:
            continue
        total = np.zeros((2, length), np.float32)
        for (_, program), notes in sorted(parts.items()):
            wave = _play_patch(draw_patch(33 if stem == "bass" else program, rng), notes, rng, length)
            level = float(np.sqrt(np.mean(np.square(wave)))) + 1e-9
            wave *= np.float32(10.0 ** (rng.normal(0.0, 3.0) / 20.0) / level)
            total += wave if stem == "bass" else _add_room(wave, rng, beat_s)
        waves[stem] = total * gain if ducked else total
    return waves
