"""Made songs: whole folders of tracks from scores, sung syllables and loops, with a manifest each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
from pydantic import Field

from polyres.core.config import Config
from polyres.core.errors import InputError
from polyres.data.synth.bank import find_bank, read_presets
from polyres.data.synth.loops import LoopBank, loop_track
from polyres.data.synth.melody import key_of
from polyres.data.synth.midi import DRUM_CHANNEL, STEMS, Score, read_score
from polyres.data.synth.render import (
    MAX_LENGTH_S,
    SAMPLE_RATE_HZ,
    is_finished,
    normalise_jointly,
    render_take,
    write_track,
)
from polyres.data.synth.singer import VoiceBank, sing_track
from polyres.data.synth.takes import Take, TakeConfig, draw_take, take_generator

_FORMAT = 1
_PURPOSE_MIX = 20

Report = Callable[[str], None]


class SongsConfig(Config):
    """How many songs are made, from which seed, and how far takes move away from their scores."""

    takes: int = Field(1, ge=1)
    seed: int = Field(0, ge=0)
    jobs: int = Field(1, ge=1)
    max_length_s: float = Field(MAX_LENGTH_S, gt=0)
    vocals_db: tuple[float, float] = (-3.0, 3.0)
    take: TakeConfig = TakeConfig()


def list_midi(folder: Path) -> list[Path]:
    """List the MIDI files under a folder in alphabetical order.

    Raises:
        InputError: if there is none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".mid", ".midi"))
    if not found:
        raise InputError(f"no MIDI files in '{folder}'; give a folder with .mid files")
    return found


def make_songs(
    out: Path,
    midi_paths: Sequence[Path],
    config: SongsConfig,
    bank: Path | None = None,
    voices: VoiceBank | None = None,
    report: Report = print,
) -> int:
    """Play several takes of many scores, take 0 of every piece first; finished tracks are skipped.

    Args:
        out: gets one folder `<piece>_take<k>` per piece and take.
        midi_paths: the scores; unreadable ones are reported and left out.
        config: takes, seed, jobs and ranges.
        bank: SF2 or SF3 bank; None looks in the usual places.
        voices: adds vocals in the key of the piece when given.
        report: receives one line per piece.

    Returns:
        How many tracks were written.

    Raises:
        InputError: if no bank is found or the bank is unreadable.
        OutputError: if a track cannot be written.
    """
    bank = bank or find_bank()
    if bank is None:
        raise InputError("no instrument bank found; install a General MIDI SoundFont or pass one with --bank FILE")
    presets = read_presets(bank)

    def work(job: tuple[int, Path]) -> int:
        number, path = job
        folder = out / f"{path.stem}_take{number}"
        if is_finished(folder):
            return 0
        try:
            score = read_score(path)
        except InputError as error:
            report(f"left out: {error}")
            return 0
        take = draw_take(score, presets, config.seed, number, config.take)
        waves, manifest = make_song(score, take, bank, config, voices)
        write_track(folder, waves, manifest)
        report(f"{folder.name}: {manifest['length_s']:.0f} s, {', '.join(waves) or 'silent'}")
        return 1

    pending = [(number, path) for number in range(config.takes) for path in midi_paths]
    with ThreadPoolExecutor(max_workers=config.jobs) as pool:
        return sum(pool.map(work, pending))


def make_song(
    score: Score, take: Take, bank: Path, config: SongsConfig, voices: VoiceBank | None = None
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Play one take of one score, with vocals if there is a singer.

    Args:
        score: the piece.
        take: the drawn changes.
        bank: SF2 or SF3 bank.
        config: length limit and level of the vocals.
        voices: recorded syllables, or None for no vocals.

    Returns:
        Stem name to float32 `[2, T]` with the mixture's peak between -3 and -1 dBFS, and the manifest.
    """
    rng = take_generator(take.seed, score.name, take.number, purpose=_PURPOSE_MIX)
    peak_db = float(rng.uniform(-3.0, -1.0))
    waves = render_take(score, take, bank, config.max_length_s)
    length_samples = next((wave.shape[1] for wave in waves.values()), 0)
    manifest: dict[str, object] = {"format": _FORMAT, "piece": score.name, "bank": bank.name, "take": asdict(take)}
    if voices is not None and waves:
        pitches = [
            note.pitch + take.transpose_semitones
            for stem in ("other", "bass")
            for note in score.stems.get(stem, ())
            if note.channel != DRUM_CHANNEL
        ]
        sung, manifest["vocals"] = sing_track(
            voices, int(rng.integers(1 << 31)), length_samples / SAMPLE_RATE_HZ, key_of(pitches)
        )
        backing = max(_active_rms(wave) for wave in waves.values())
        lift_db = float(rng.uniform(*config.vocals_db))
        waves["vocals"] = sung * np.float32(10.0 ** (lift_db / 20.0) * backing / max(_active_rms(sung), 1e-9))
    manifest["stems"] = [stem for stem in STEMS if stem in waves]
    manifest["length_s"] = length_samples / SAMPLE_RATE_HZ
    return normalise_jointly(waves, peak_db), manifest


def _active_rms(wave: np.ndarray) -> float:
    """RMS over the seconds that are at most 30 dB below the loudest one."""
    seconds = [wave[:, start : start + SAMPLE_RATE_HZ] for start in range(0, wave.shape[1], SAMPLE_RATE_HZ)]
    power = np.array([float(np.mean(np.square(part))) for part in seconds])
    return float(np.sqrt(power[power >= power.max() * 1e-3].mean()))


def make_vocals(out: Path, voices: VoiceBank, count: int, seed: int, report: Report = print) -> int:
    """Sing tracks of 60 to 90 s without accompaniment; finished ones are skipped.

    Args:
        out: gets folders `singer_000` and so on, each with `vocals.wav`.
        voices: recorded syllables.
        count: how many tracks.
        seed: seed of all tracks.
        report: receives one line per track.

    Returns:
        How many tracks were written.
    """

    def sing(number: int) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        rng = np.random.default_rng([seed, number])
        wave, manifest = sing_track(voices, int(rng.integers(1 << 31)), float(rng.uniform(60.0, 90.0)))
        return {"vocals": wave}, manifest

    return _make_numbered(out, "singer", count, sing, report)


def make_loops(out: Path, bank: LoopBank, count: int, seed: int, report: Report = print) -> int:
    """Lay tracks of 60 s from loops and one-shots; finished ones are skipped.

    Args:
        out: gets folders `loops_000` and so on.
        bank: sounds.
        count: how many tracks.
        seed: seed of all tracks.
        report: receives one line per track.

    Returns:
        How many tracks were written.
    """

    def lay(number: int) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        return loop_track(bank, int(np.random.default_rng([seed, number]).integers(1 << 31)), 60.0), {}

    return _make_numbered(out, "loops", count, lay, report)


def _make_numbered(
    out: Path,
    name: str,
    count: int,
    make: Callable[[int], tuple[dict[str, np.ndarray], dict[str, object]]],
    report: Report,
) -> int:
    written = 0
    for number in range(count):
        folder = out / f"{name}_{number:03d}"
        if is_finished(folder):
            continue
        waves, manifest = make(number)
        length_s = next(iter(waves.values())).shape[1] / SAMPLE_RATE_HZ
        write_track(folder, waves, {**manifest, "format": _FORMAT, "stems": list(waves), "length_s": length_s})
        report(f"{folder.name}: {length_s:.0f} s, {', '.join(waves)}")
        written += 1
    return written
