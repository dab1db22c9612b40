"""Which stem an instrument of a tracker module belongs to: its name, its notes and its sound alone, scored by rules."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from polyres.synth.modules.openmpt import Note

CLASSES = ("drums", "bass", "other", "vocals", "unusable")
RATE_HZ = 22_050
_HOP_SAMPLES, _WINDOW_SAMPLES = 256, 2048
_HOP_S = _HOP_SAMPLES / RATE_HZ

_NAMES = {
    "drums": r"drum|kick|snare|hi-?hat|\bhats?\d*\b|\b[co]?hh\d*\b|\bhh?[co]\b|cymb|crash|\bride|\btoms?\d*\b|clap|perc"
    r"|bongo|conga|shaker|tamb|cowbell|\brim|clave|timbal|timpan|tympan|cabas|maraca|\bbd\d*\b|bass ?d(ru)?m?\b|b-?drum"
    r"|\bsd\d*\b|\bsnr|break ?beat|\b808|\b909|\bstick|\bdr[_ ]|triangle|guiro|agogo|splash|china|bumbo|caja|platillo"
    r"|redoblante|tambor|bombo",
    "bass": r"synth ?b(as|\d|\b)|\b(?!bass ?d)(slap)?bass?\d*\b|\bbas[es]?\b|bassline|fretless|\bbs\d*\b|sub-?bass"
    r"|contrabass|\bbajo\b|\bbasse\b|bass(?! ?d)[a-z0-9]*",
    "other": r"piano|organ|guitar|\bgit|string|violin|[cs]ello|flute|brass|trump|sax|horn|lead|pad\b"
    r"|synth(?! ?b(as|\d|\b))|pluck|bell|harp|marimba|xylo|vibra|chord|arp|saw|square|clav|rhodes|e-?pia|celest"
    r"|oboe|clarinet|pan ?pipe|whistle|accord|sitar|banjo|mandol|trombon|tuba|glock|orchestr|quena|viento|flauta"
    r"|guitarra|teclado|violon|harmonic|overdr|distort|muted?gt|\bfx\b|noise|wind|sweep|scra?tch",
    "vocals": r"vox|vocal|\bvoice|\bvoz\b|speech|\bsays?\b|sing(er|ing)?\b|\brap\b|\bshout|scream|\byeah\b|\bhey\b"
    r"|laugh",
    "choir": r"choir|chorus|\baa+h+s?\b|\boo+h+s?\b|\bcoro\b|humans?\b",
    "loop": r"loop|\bbeat\b|rhythm|amen\b",
    "bass drum": r"bass ?d|b-?drum",
}
_PATTERNS = {kind: re.compile(text, re.IGNORECASE) for kind, text in _NAMES.items()}


@dataclass(frozen=True)
class NoteFacts:
    """Statistics of an instrument's notes."""

    notes: int  # how many notes
    keys: int  # how many different keys
    top_share: float  # share of the notes on the most frequent key
    voices: float  # mean notes per row that has any
    chord_share: float  # share of the rows with more than one key


@dataclass(frozen=True)
class SoundFacts:
    """Statistics of an instrument's solo sound."""

    length_s: float  # length that was heard
    heard_share: float  # share of the song that this is
    active_share: float  # share of the time within 30 dB of the loudest moments
    onsets: int  # rises of 7 dB
    decay_s: float  # median time in which a note falls by 15 dB
    sustain_db: float  # median level 150 ms behind the peak, against it
    sub: float  # sub, low, high: Shares of the energy below 120 Hz, below 250 Hz and in 4 to 12 kHz
    low: float
    high: float
    centroid_hz: float  # centroid of the power spectrum
    flatness: float  # spectral flatness in 80 to 9 000 Hz, weighted by energy
    periodicity: float  # median of the normalised autocorrelation at its best lag, 0 to 1
    f0_hz: float  # median pitch of the periodic frames; 0 where there are none
    pitched_share: float  # share of the frames that are periodic


@dataclass(frozen=True)
class Verdict:
    """The class of an instrument, the confidence in it from 0 to 1, and why it may be doubtful all the same."""

    kind: str
    confidence: float
    doubts: tuple[str, ...] = ()


def note_facts(notes: Sequence[Note]) -> NoteFacts:
    """Summarise the notes of one instrument, at least one."""
    counts = np.unique([note.key for note in notes], return_counts=True)[1]
    per_row = np.unique([note.row for note in notes], return_counts=True)[1]
    keys_of_row: dict[int, set[int]] = {}
    for note in notes:
        keys_of_row.setdefault(note.row, set()).add(note.key)
    return NoteFacts(
        notes=len(notes),
        keys=len(counts),
        top_share=float(counts.max() / len(notes)),
        voices=float(per_row.mean()),
        chord_share=float(np.mean([len(keys) > 1 for keys in keys_of_row.values()])),
    )


def sound_facts(wave: np.ndarray, song_s: float) -> SoundFacts | None:
    """Measure an instrument alone: `wave` `[T]`."""
    frames = len(wave) // _HOP_SAMPLES
    if frames < 20:
        return None
    power = (wave[: frames * _HOP_SAMPLES].reshape(frames, _HOP_SAMPLES) ** 2).mean(1) + 1e-14
    levels_db = 10.0 * np.log10(np.maximum(power, 1e-12))
    top_db = float(np.percentile(levels_db, 99.5))
    if top_db < -65.0:
        return None
    active = levels_db > top_db - 30.0
    starts = np.array([k * _HOP_SAMPLES for k in np.flatnonzero(active)])
    starts = starts[starts + _WINDOW_SAMPLES <= len(wave)]
    if not len(starts):
        return None
    excerpts = sliding_window_view(wave, _WINDOW_SAMPLES)[starts[:: max(1, len(starts) // 400)]]
    onsets, decay_s, sustain_db = _envelope_facts(levels_db, top_db)
    periodicity, f0_hz, pitched_share = _pitch_facts(excerpts)
    return SoundFacts(
        frames * _HOP_S,
        min(1.0, len(wave) / RATE_HZ / max(song_s, 1.0)),
        float(active.mean()),
        onsets,
        decay_s,
        sustain_db,
        *_spectrum_facts(excerpts),
        periodicity,
        f0_hz,
        pitched_share,
    )


def _envelope_facts(levels_db: np.ndarray, top_db: float) -> tuple[int, float, float]:
    """Return the number of onsets, the median decay in seconds, and the median level after 150 ms in dB."""
    frames = len(levels_db)
    padded = np.concatenate([np.full(4, np.inf), levels_db])
    lowest = np.minimum.reduce([padded[4 - lag : 4 - lag + frames] for lag in range(1, 5)])
    lowest[0] = -120.0
    onsets, last = [], -99
    for frame in np.flatnonzero((levels_db - lowest > 7.0) & (levels_db > top_db - 25.0)):
        if frame - last > 5:
            onsets.append(int(frame))
        last = int(frame)
    decays_s, sustains_db = [], []
    for start, following in pairwise([*onsets, frames]):
        part = levels_db[start : min(following, start + 172)]
        if len(part) < 4:
            continue
        peak = int(np.argmax(part[:8]))
        below = np.flatnonzero(part[peak:] < part[peak] - 15.0)
        decays_s.append((below[0] if len(below) else len(part) - peak) * _HOP_S)
        if peak + 13 < len(part):
            sustains_db.append(part[peak + 13] - part[peak])
    return len(onsets), _median(decays_s), _median(sustains_db) if sustains_db else -60.0


def _spectrum_facts(excerpts: np.ndarray) -> tuple[float, float, float, float, float]:
    """Return the shares below 120 Hz, below 250 Hz and in 4 to 12 kHz, the centroid in Hz, and the flatness."""
    power = np.abs(np.fft.rfft(excerpts * np.hanning(_WINDOW_SAMPLES), axis=1)) ** 2
    frequency_hz = np.fft.rfftfreq(_WINDOW_SAMPLES, 1.0 / RATE_HZ)
    mean = power.mean(0)
    total = mean.sum() + 1e-20
    edges_hz = ((0.0, 120.0), (0.0, 250.0), (4000.0, 12000.0))
    shares = [float(mean[(frequency_hz >= low) & (frequency_hz < high)].sum() / total) for low, high in edges_hz]
    energy = power.sum(1)
    middle = power[:, (frequency_hz > 80.0) & (frequency_hz < 9000.0)]
    flatness = np.exp(np.log(middle + 1e-12 * energy[:, None]).mean(1)) / (middle.mean(1) + 1e-20)
    centroid_hz = float((frequency_hz * mean).sum() / total)
    return shares[0], shares[1], shares[2], centroid_hz, float(np.average(flatness, weights=energy + 1e-20))


def _pitch_facts(excerpts: np.ndarray) -> tuple[float, float, float]:
    """Return the median periodicity, the median pitch in Hz and the share of periodic excerpts."""
    centred = excerpts - excerpts.mean(1, keepdims=True)
    spectrum = np.fft.rfft(centred, 2 * _WINDOW_SAMPLES, axis=1)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :_WINDOW_SAMPLES]
    energy = np.cumsum(centred**2, axis=1)
    head = energy[:, ::-1]
    tail = energy[:, -1:] - np.concatenate([np.zeros((len(energy), 1)), energy[:, :-1]], axis=1)
    correlation = correlation / (np.sqrt(np.maximum(head * tail, 1e-20)) + 1e-12)
    shortest, longest = RATE_HZ // 1500, RATE_HZ // 28
    pitches_hz, heights = [], []
    for row in correlation:
        negative = np.flatnonzero(row[1:longest] < 0)
        first = max(negative[0] + 1, shortest) if len(negative) else longest
        if first >= longest - 2:
            continue
        part = row[first:longest]
        height = part.max()
        inner = part[1:-1]
        peaks = np.flatnonzero((inner >= part[:-2]) & (inner >= part[2:]) & (inner > 0.92 * height))
        pitches_hz.append(RATE_HZ / (first + (peaks[0] + 1 if len(peaks) else int(part.argmax()))))
        heights.append(height)
    periodic_hz = [pitch for pitch, height in zip(pitches_hz, heights, strict=True) if height > 0.8]
    return _median(heights), _median(periodic_hz), len(periodic_hz) / max(1, len(pitches_hz))


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if len(values) else 0.0


@dataclass(frozen=True)
class _Case:
    """One instrument under judgement, with the properties that several rules share."""

    n: NoteFacts
    s: SoundFacts

    @property
    def one_key(self) -> bool:
        return self.n.keys <= 2 or self.n.top_share > 0.85

    @property
    def noisy(self) -> bool:
        return self.s.flatness > 0.06

    @property
    def tonal(self) -> bool:
        return self.s.periodicity > 0.8 and self.s.pitched_share > 0.45

    @property
    def thump(self) -> bool:
        """A low hit that is hardly periodic, as a bass drum."""
        s = self.s
        low = s.sub > 0.65 and s.pitched_share < 0.2 and s.periodicity < 0.75
        return low and s.decay_s < 0.3 and s.flatness > 0.0015

    @property
    def click(self) -> bool:
        """Low with a noisy start, as a swept bass drum."""
        return self.s.low > 0.8 and self.s.flatness > 0.045


_Rules = tuple[tuple[float, Callable[[_Case], bool]], ...]
_RULES: dict[str, _Rules] = {
    "drums": (
        (1.8, lambda c: c.noisy),
        (1.4, lambda c: c.s.flatness > 0.14),
        (1.3, lambda c: c.one_key),
        (0.9, lambda c: c.s.decay_s < 0.12),
        (1.2, lambda c: c.s.periodicity < 0.45),
        (0.8, lambda c: c.n.keys == 1),
        (0.8, lambda c: c.s.sustain_db < -25.0),
        (2.0, lambda c: c.s.low > 0.6 and c.s.decay_s < 0.45 and c.one_key and c.s.periodicity < 0.99),
        (1.5, lambda c: c.s.low > 0.8 and c.s.decay_s < 0.13 and c.s.periodicity < 0.8),
        (1.2, lambda c: c.s.high > 0.35 and c.s.periodicity < 0.7),
        (-1.8, lambda c: c.n.keys >= 6 and c.n.top_share < 0.5),
        (-2.0, lambda c: c.tonal and c.n.keys > 3),
        (-1.5, lambda c: c.n.chord_share > 0.15),
        (-1.0, lambda c: c.s.decay_s > 0.8),
        (-1.5, lambda c: c.s.flatness < 0.01 and c.s.low < 0.5),
        (2.5, lambda c: c.s.flatness > 0.2 and c.s.periodicity < 0.4),
        (3.0, lambda c: c.thump),
        (2.5, lambda c: c.click),
        (1.2, lambda c: c.n.keys == 1 and c.s.decay_s < 0.12 and c.n.notes >= 16),
    ),
    "bass": (
        (1.6, lambda c: c.s.low > 0.55),
        (1.0, lambda c: c.s.low > 0.8),
        (1.6, lambda c: 28.0 < c.s.f0_hz <= 120.0 and c.s.low > 0.35),
        (0.8, lambda c: c.n.keys >= 4),
        (0.6, lambda c: c.n.keys >= 3),
        (0.7, lambda c: c.n.voices < 1.1 and c.n.keys >= 3),
        (0.6, lambda c: c.s.pitched_share > 0.4),
        (0.5, lambda c: c.s.sub > 0.4),
        (-2.0, lambda c: c.n.chord_share > 0.1),
        (-2.5, lambda c: c.s.low < 0.3),
        (-1.5, lambda c: c.s.centroid_hz > 900.0),
        (-2.0, lambda c: c.s.f0_hz > 170.0),
        (-1.5, lambda c: c.s.f0_hz > 150.0),
        (-1.5, lambda c: c.noisy and c.s.pitched_share < 0.3),
        (-2.0, lambda c: c.one_key and c.s.decay_s < 0.2),
        (-2.0, lambda c: c.s.pitched_share < 0.15),
        (-1.5, lambda c: c.n.keys == 1),
        (-0.9, lambda c: c.s.decay_s > 1.4),
        (-1.5, lambda c: c.s.flatness > 0.1),
        (-3.0, lambda c: c.thump),
        (-1.0, lambda c: c.click),
    ),
    "other": (
        (1.2, lambda c: True),
        (1.6, lambda c: c.s.periodicity > 0.75 and c.s.f0_hz > 140.0),
        (1.0, lambda c: c.n.keys >= 6),
        (1.6, lambda c: c.n.chord_share > 0.15),
        (0.8, lambda c: c.s.decay_s > 0.3 and c.s.low < 0.6),
        (1.0, lambda c: c.s.flatness < 0.02 and c.s.low < 0.45),
        (0.8, lambda c: c.s.centroid_hz > 500.0 and c.s.pitched_share > 0.5),
        (0.8, lambda c: c.n.keys >= 4 and c.s.low < 0.5),
        (-1.5, lambda c: c.s.low > 0.8),
        (-1.0, lambda c: c.one_key and c.s.decay_s < 0.12),
    ),
    "vocals": ((-1.0, lambda c: True),),
    "unusable": ((-1.0, lambda c: True),),
}


def classify(name: str, notes: NoteFacts, sound: SoundFacts) -> Verdict:
    """Judge one instrument."""
    case = _Case(notes, sound)
    scores = {kind: sum(points for points, holds in rules if holds(case)) for kind, rules in _RULES.items()}
    doubts = _score_name(scores, name.replace("_", " "), case) + _score_loop(scores, name.replace("_", " "), case)
    best = max(scores, key=lambda kind: scores[kind])
    total = sum(math.exp(score) for score in scores.values())
    if best != "vocals" and _PATTERNS["vocals"].search(name.replace("_", " ")):
        doubts = (*doubts, "named a voice")
    return Verdict(best, math.exp(scores[best]) / total, doubts)


def _score_name(scores: dict[str, float], name: str, case: _Case) -> tuple[str, ...]:
    """Add the evidence of the name to the scores; return the doubts."""
    named = [kind for kind in CLASSES[:-1] if _PATTERNS[kind].search(name)]
    single_thump = case.thump or (case.n.keys == 1 and case.s.pitched_share < 0.15)
    points = {"drums": 3.0, "bass": 0.0 if single_thump else 3.0, "other": 2.0, "vocals": 5.0}
    for kind in named:
        scores[kind] += points[kind]
    if "bass" in named and 28.0 < case.s.f0_hz <= 100.0 and case.n.keys >= 3:
        scores["bass"] += 3.5
    if case.n.notes <= 4 and not named:
        scores["drums"] -= 1.0
    if "drums" in named and _PATTERNS["bass drum"].search(name):
        scores["bass"] -= 3.0
    if _PATTERNS["choir"].search(name):
        scores["vocals"] += 4.0
        scores["other"] += 2.0
        return ("choir",)
    return ()


def _score_loop(scores: dict[str, float], name: str, case: _Case) -> tuple[str, ...]:
    """Add the evidence of onsets inside single notes (loops, speech); return the doubts."""
    n, s = case.n, case.s
    onsets_per_note = s.onsets / max(1.0, n.notes * s.heard_share)
    gap_s = s.length_s * s.active_share / max(1, n.notes)
    doubts: tuple[str, ...] = ()
    if n.keys <= 3 and onsets_per_note > 2.5 and gap_s > 0.7 and s.onsets >= 6:
        doubts += ("loop",)
        if s.low > 0.35 and s.periodicity > 0.6:
            scores["unusable"] += 4.5
        elif case.noisy:
            scores["drums"] += 1.5
        else:
            scores["unusable"] += 3.0
    dull = s.pitched_share < 0.35 and 0.003 < s.flatness < 0.06 and s.low < 0.5 and s.periodicity < 0.7
    if onsets_per_note > 1.8 and gap_s > 0.6 and dull:
        doubts += ("speech",)
    if _PATTERNS["loop"].search(name) and n.keys <= 3 and gap_s > 0.7:
        scores["unusable"] += 2.0
    return doubts
