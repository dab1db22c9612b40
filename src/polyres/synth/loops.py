"""Loop tracks: one-shots and loops on a seeded beat grid, as drums, bass and other stems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from polyres.audio.files import read_audio
from polyres.core.errors import InputError
from polyres.synth.effects import place, reverberate
from polyres.synth.scores.composer import SCALES

SAMPLE_RATE_HZ = 44_100
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg")
STEPS_PER_BAR = 16

# Which words in a file name make it one of the kit's voices; the first match counts.
_VOICES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("kick", ("kick", "drum_bass")),
    ("snare", ("snare",)),
    ("hat", ("cymbal_closed", "cymbal_pedal")),
    ("open_hat", ("cymbal_open",)),
    ("crash", ("splash", "cymbal_hard", "cymbal_soft")),
    ("tom", ("tom",)),
    ("cowbell", ("cowbell",)),
)
_DRUM_LOOPS = ("breakbeat", "industrial", "tabla", "perc")
_TONAL_LOOPS = ("drone",)
_NOT_BASS = ("voxy",)  # vowel-like, with little below 100 Hz
_PITCH_CLASSES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}

_KICKS = ("x.....x.x.......", "x.......x.......", "x...x...x...x...", "x..x..x...x.....", "x.........x..x..")
_SNARES = ("....x.......x...", "....x.......x..x", "....x..x.x..x...", "........x.......")
_HATS = ("x.x.x.x.x.x.x.x.", "xxxxxxxxxxxxxxxx", "x...x...x...x...", "..x...x...x...x.", "x.xxx.xxx.xxx.xx")


@dataclass(frozen=True)
class LoopBank:
    """Sounds by role: kit voices, drum loops, bass one-shots with their pitch class, tonal loops."""

    kit: dict[str, list[np.ndarray]]
    drum_loops: list[np.ndarray]
    basses: list[tuple[int, np.ndarray]]
    tonal_loops: list[np.ndarray]

    @classmethod
    def open(cls, folder: str | Path) -> LoopBank:
        """Read a folder of one-shots and loops and sort them by their names."""
        folder = Path(folder)
        bank = cls({}, [], [], [])
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix.lower() in AUDIO_SUFFIXES:
                bank._add(path)
        if not {"kick", "snare"} <= bank.kit.keys():
            raise InputError(f"no kick and snare in '{folder}'; it needs files such as kick.wav and snare_hard.wav")
        return bank

    def _add(self, path: Path) -> None:
        name = path.stem.lower()
        if name.startswith("loop_"):
            loops = [(_DRUM_LOOPS, self.drum_loops), (_TONAL_LOOPS, self.tonal_loops)]
            for words, sounds in loops:
                if any(word in name for word in words):
                    sounds.append(_read(path))
                    return
        elif name.startswith("bass_"):
            pitch_class = _PITCH_CLASSES.get(name.rsplit("_", 1)[-1])
            if pitch_class is not None and not any(word in name for word in _NOT_BASS):
                self.basses.append((pitch_class, _read(path)))
        else:
            for voice, words in _VOICES:
                if any(word in name for word in words):
                    self.kit.setdefault(voice, []).append(_read(path))
                    return


def _read(path: Path) -> np.ndarray:
    """Read one sound as stereo `[2, T]` at 44.1 kHz with its peak at 0 dBFS."""
    wave, rate_hz = read_audio(path)
    wave = wave[[0, min(1, len(wave) - 1)]]
    wave = resampled(wave, rate_hz / SAMPLE_RATE_HZ)
    return np.asarray(wave / max(float(np.abs(wave).max(initial=0.0)), 1e-9), np.float32)


def resampled(wave: np.ndarray, ratio: float) -> np.ndarray:
    """Play a sound `[2, T]` `ratio` times as fast by linear interpolation."""
    if ratio == 1.0:
        return wave
    position = np.arange(int(wave.shape[1] / ratio)) * ratio
    grid = np.arange(wave.shape[1])
    return np.stack([np.interp(position, grid, channel) for channel in wave]).astype(np.float32)


def _add_at(track: np.ndarray, sound: np.ndarray, start: int, gain: float) -> None:
    start = max(0, start)
    kept = min(sound.shape[1], track.shape[1] - start)
    if kept > 0:
        track[:, start : start + kept] += np.float32(gain) * sound[:, :kept]


def draw_pattern(rng: np.random.Generator, voices: Sequence[str]) -> dict[str, str]:
    """Draw one bar per kit voice; sixteen steps, `x` is a hit."""
    hat = str(rng.choice(["hat", "hat", "open_hat", "cowbell"]))
    pattern = {"kick": str(rng.choice(_KICKS)), "snare": str(rng.choice(_SNARES)), hat: str(rng.choice(_HATS))}
    return {voice: steps for voice, steps in pattern.items() if voice in voices}


def drum_track(bank: LoopBank, rng: np.random.Generator, length_s: float, tempo_bpm: float) -> np.ndarray:
    """Lay a drum part: a changing one-bar pattern, fills, crashes, sometimes a loop on top: `[2, T]`."""
    track = np.zeros((2, round(length_s * SAMPLE_RATE_HZ)), np.float32)
    kit = {voice: _tuned_kit_voice(sounds, rng) for voice, sounds in bank.kit.items()}
    step_s = 60.0 / tempo_bpm / 4.0
    swing = float(rng.choice([0.0, 0.0, rng.uniform(0.0, 0.33)]))
    patterns = [draw_pattern(rng, list(kit)) for _ in range(2)]
    loop = None
    if bank.drum_loops and rng.random() < 0.4:
        loop = _fitted_loop(bank.drum_loops[int(rng.integers(len(bank.drum_loops)))], step_s * STEPS_PER_BAR)
    for bar in range(int(length_s / (step_s * STEPS_PER_BAR)) + 1):
        first_s = bar * step_s * STEPS_PER_BAR
        if loop is not None and rng.random() < 0.7:
            _add_at(track, loop, round(first_s * SAMPLE_RATE_HZ), 0.5)
        if rng.random() < 0.06:
            continue  # a bar of rest
        hits = _bar_hits(patterns[(bar // 8) % 2], bar, rng, list(kit))
        for step, voice, velocity in hits:
            sounds = kit[voice]
            sound = sounds[int(rng.integers(len(sounds)))]
            time_s = first_s + (step + swing * (step % 2)) * step_s + rng.normal(0.0, 0.003)
            _add_at(track, sound, round(time_s * SAMPLE_RATE_HZ), velocity)
    if rng.random() < 0.6:
        track = reverberate(track, SAMPLE_RATE_HZ, float(rng.uniform(0.2, 1.2)), float(rng.uniform(0.005, 0.06)), rng)
    return track


def _tuned_kit_voice(sounds: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    ratio = 2.0 ** (float(rng.normal(0.0, 1.5)) / 12.0)
    gain, pan = 10.0 ** (float(rng.normal(0.0, 2.0)) / 20.0), float(np.clip(rng.normal(0.0, 0.25), -1.0, 1.0))
    return [place(resampled(sound, ratio).mean(axis=0), pan) * np.float32(gain) for sound in sounds]


def _fitted_loop(loop: np.ndarray, bar_s: float) -> np.ndarray:
    """Change a loop's speed, by at most a fourth, so that it fills a whole part or number of bars; fade its end."""
    bars = loop.shape[1] / SAMPLE_RATE_HZ / bar_s
    ratio = bars / 2.0 ** round(np.log2(bars))
    fitted = resampled(loop, float(np.clip(ratio, 0.75, 1.33)))[:, : round(bar_s * SAMPLE_RATE_HZ)].copy()
    fade = min(400, fitted.shape[1])
    fitted[:, fitted.shape[1] - fade :] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    return fitted


def _bar_hits(
    pattern: dict[str, str], bar: int, rng: np.random.Generator, voices: Sequence[str]
) -> list[tuple[int, str, float]]:
    """Return step, voice and velocity of one bar; every fourth may end in a fill."""
    hits = []
    fill_from = STEPS_PER_BAR
    if bar % 4 == 3 and rng.random() < 0.7:
        fill_from = int(rng.choice([8, 12]))
    levels = {"kick": 1.0, "snare": 0.9, "hat": 0.35, "open_hat": 0.3, "cowbell": 0.3}
    for voice, steps in pattern.items():
        for step in range(fill_from):
            if steps[step] == "x" and rng.random() < 0.96:
                accent = 1.0 if step % 4 == 0 else 0.75
                hits.append((step, voice, levels[voice] * accent * float(rng.uniform(0.75, 1.1))))
    fill_voice = "tom" if "tom" in voices and rng.random() < 0.6 else "snare"
    for step in range(fill_from, STEPS_PER_BAR):
        if rng.random() < 0.8:
            hits.append((step, fill_voice, 0.5 + 0.4 * (step - fill_from) / 8.0 + float(rng.uniform(0.0, 0.15))))
    if "crash" in voices and bar % 4 == 0 and rng.random() < 0.5:
        hits.append((0, "crash", float(rng.uniform(0.4, 0.8))))
    return hits


def bass_track(bank: LoopBank, rng: np.random.Generator, length_s: float, tempo_bpm: float) -> np.ndarray:
    """Play a bass line with one of the bank's bass sounds: `[2, T]`."""
    track = np.zeros((2, round(length_s * SAMPLE_RATE_HZ)), np.float32)
    if not bank.basses:
        return track
    pitch_class, sound = bank.basses[int(rng.integers(len(bank.basses)))]
    tonic, scale = int(rng.integers(12)), SCALES[str(rng.choice(["minor", "minor_pentatonic", "major"]))]
    beat_s = 60.0 / tempo_bpm
    line = [(int(rng.choice([0, 0, 0, 2, 3, 4, -1])), float(rng.choice([0.5, 0.5, 1.0, 1.5]))) for _ in range(12)]
    now_s, root, index = 0.0, 0, 0
    while now_s < length_s:
        if index % len(line) == 0:
            root = int(rng.choice([0, 0, 3, 4, 5]))
        degree, beats = line[index % len(line)]
        octave, step = divmod(degree + root, len(scale))
        semitones = (tonic + scale[step] - pitch_class + 6) % 12 - 6 + (12 * octave if octave < 0 else 0)
        if rng.random() < 0.9:
            note = resampled(sound, 2.0 ** (semitones / 12.0))[:, : round(beats * beat_s * SAMPLE_RATE_HZ)].copy()
            fade = min(600, note.shape[1])
            note[:, note.shape[1] - fade :] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
            _add_at(track, note, round(now_s * SAMPLE_RATE_HZ), float(rng.uniform(0.7, 1.0)))
        now_s += beats * beat_s
        index += 1
    return track


def tonal_track(bank: LoopBank, rng: np.random.Generator, length_s: float) -> np.ndarray:
    """Repeat a tonal loop at a drawn pitch, float32 `[2, T]`; silent when the bank has none."""
    track = np.zeros((2, round(length_s * SAMPLE_RATE_HZ)), np.float32)
    if not bank.tonal_loops:
        return track
    loop = bank.tonal_loops[int(rng.integers(len(bank.tonal_loops)))]
    loop = resampled(loop, 2.0 ** (float(rng.integers(-5, 6)) / 12.0)).copy()
    fade = min(2000, loop.shape[1] // 4)
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    loop[:, :fade] *= ramp
    loop[:, loop.shape[1] - fade :] *= ramp[::-1]
    for start in range(0, track.shape[1], loop.shape[1] - fade):
        if rng.random() < 0.85:
            _add_at(track, loop, start, 1.0)
    return track


def loop_track(bank: LoopBank, seed: int, length_s: float) -> dict[str, np.ndarray]:
    """Build one track with the stems the bank has sounds for: `[2, T]`."""
    rng = np.random.default_rng([seed, 3])
    tempo_bpm = float(rng.uniform(80.0, 170.0))
    waves = {"drums": drum_track(bank, rng, length_s, tempo_bpm), "bass": bass_track(bank, rng, length_s, tempo_bpm)}
    if rng.random() < 0.4:
        waves["other"] = tonal_track(bank, rng, length_s)
    peaks = {stem: float(np.abs(wave).max(initial=0.0)) for stem, wave in waves.items()}
    return {stem: wave * np.float32(0.7 / peaks[stem]) for stem, wave in waves.items() if peaks[stem] > 1e-6}
