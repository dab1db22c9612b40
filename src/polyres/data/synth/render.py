"""Rendering: scores played stem by stem through FluidSynth into folders of WAV files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile

from polyres.core.errors import InputError, OutputError
from polyres.data.synth.bank import Preset, find_bank, read_presets
from polyres.data.synth.midi import STEMS, Score, read_score, write_score
from polyres.data.synth.takes import Take, TakeConfig, draw_take, perform, take_generator

SAMPLE_RATE_HZ = 44_100
MAX_LENGTH_S = 150.0
TAIL_S = 1.5
_MANIFEST = "manifest.json"


def render_stem(score: Score, stem: str, take: Take, bank: Path, length_s: float) -> np.ndarray:
    """Play one stem of a score.

    Args:
        score: the piece.
        stem: one of its stems.
        take: the drawn changes.
        bank: SF2 or SF3 bank.
        length_s: length of the result in seconds, tail included.

    Returns:
        float32 `[2, T]` at 44.1 kHz with T = round(length_s * 44100), not normalised.

    Raises:
        InputError: if the `fluidsynth` program is missing or fails.
    """
    program = shutil.which("fluidsynth")
    if program is None:
        raise InputError("the program 'fluidsynth' is not installed; install it to render scores")
    with tempfile.TemporaryDirectory(prefix="polyres_synth_") as folder:
        midi_path, wave_path = Path(folder) / "stem.mid", Path(folder) / "stem.wav"
        notes, controls = perform(score, stem, take, length_s - TAIL_S)
        write_score(notes, controls, length_s, midi_path)
        command = [program, "-ni", "-q", "-g", "0.3", "-r", str(SAMPLE_RATE_HZ), *_effect_options(take)]
        command += ["-T", "wav", "-O", "float", "-F", str(wave_path), str(bank), str(midi_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not wave_path.is_file():
            lines = done.stderr.strip().splitlines() or ["no output"]
            raise InputError(f"fluidsynth could not play '{score.name}' with the bank '{bank}': {lines[-1]}")
        wave, _ = soundfile.read(wave_path, dtype="float32", always_2d=True)
    length_samples = round(length_s * SAMPLE_RATE_HZ)
    result = np.zeros((2, length_samples), np.float32)
    kept = min(length_samples, len(wave))
    result[:, :kept] = wave[:kept].T
    fade = min(round(0.5 * TAIL_S * SAMPLE_RATE_HZ), length_samples)
    if fade:
        result[:, -fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    return result


def _effect_options(take: Take) -> list[str]:
    options = ["-R", "0" if take.reverb is None else "1", "-C", "0" if take.chorus is None else "1"]
    options += ["-o", "synth.dynamic-sample-loading=1", "-o", "synth.midi-bank-select=gs"]
    for name, settings in (("reverb", take.reverb), ("chorus", take.chorus)):
        for key, value in (settings or {}).items():
            options += ["-o", f"synth.{name}.{key}={value:.4f}"]
    return options


def render_take(score: Score, take: Take, bank: Path, max_length_s: float = MAX_LENGTH_S) -> dict[str, np.ndarray]:
    """Play all stems of one take and balance them as the take says.

    Args:
        score: the piece.
        take: the drawn changes.
        bank: SF2 or SF3 bank.
        max_length_s: upper limit of the length in seconds, before the tail.

    Returns:
        Stem name to float32 `[2, T]`; all stems share one gain that puts the mixture's peak near -2 dBFS.
    """
    length_s = min(score.length_s / take.tempo_factor, max_length_s) + TAIL_S
    waves = {}
    for stem in score.stems:
        wave = render_stem(score, stem, take, bank, length_s)
        if np.abs(wave).max() > 1e-4:
            waves[stem] = wave * np.float32(10.0 ** (take.stem_gains_db[stem] / 20.0))
    return normalise_jointly(waves, take_generator(take.seed, score.name, take.number, purpose=20))


def normalise_jointly(waves: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Scale all stems by one gain so that the mixture, and every stem, peaks between -3 and -1 dBFS or lower."""
    if not waves:
        return {}
    mixture = np.sum(list(waves.values()), axis=0)
    peak = max(float(np.abs(wave).max()) for wave in [mixture, *waves.values()])
    gain = np.float32(10.0 ** (rng.uniform(-3.0, -1.0) / 20.0) / max(peak, 1e-9))
    return {stem: wave * gain for stem, wave in waves.items()}


def write_track(folder: Path, waves: dict[str, np.ndarray], manifest: dict[str, object]) -> None:
    """Write one track folder in one step: 16-bit WAV per stem and a manifest.

    Args:
        folder: folder to make; it appears only when complete.
        waves: stem name to float32 `[C, T]` at 44.1 kHz.
        manifest: JSON-able description.

    Raises:
        OutputError: if the folder cannot be written.
    """
    temporary = folder.with_name(f".{folder.name}.part{os.getpid()}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for stem, wave in waves.items():
            soundfile.write(temporary / f"{stem}.wav", wave.T, SAMPLE_RATE_HZ, subtype="PCM_16")
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
        os.replace(temporary, folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OutputError(f"cannot write '{folder}' ({error.strerror}); choose a writable folder") from error


def is_finished(folder: Path) -> bool:
    """Say whether a track folder is complete."""
    return (folder / _MANIFEST).is_file()


def render_folder(
    out: Path,
    midi_paths: Sequence[Path],
    bank: Path | None,
    takes: int,
    seed: int,
    jobs: int = 1,
    config: TakeConfig | None = None,
    report: Callable[[str], None] = print,
) -> int:
    """Render several takes of many MIDI files, take 0 of every piece first.

    Args:
        out: folder that gets one sub-folder per piece and take; finished ones are skipped.
        midi_paths: MIDI files.
        bank: SF2 or SF3 bank; None looks in the usual places.
        takes: takes per piece, at least 1.
        seed: seed of all takes.
        jobs: pieces rendered at the same time.
        config: ranges of the changes.
        report: receives one line per piece.

    Returns:
        How many tracks were written.

    Raises:
        InputError: if no bank is found or the bank is unreadable.
    """
    bank = bank or find_bank()
    if bank is None:
        raise InputError("no instrument bank found; install a General MIDI SoundFont or pass one with --bank FILE")
    presets = read_presets(bank)
    config = config or TakeConfig()

    def work(job: tuple[int, Path]) -> int:
        number, path = job
        folder = out / f"{path.stem}_take{number}"
        if is_finished(folder):
            return 0
        try:
            report(_render_one(folder, path, bank, presets, draw_args=(seed, number, config)))
        except InputError as error:
            report(f"skipped {path.stem}: {error}")
            return 0
        return 1

    pending = [(number, path) for number in range(takes) for path in midi_paths]
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        return sum(pool.map(work, pending))


def _render_one(
    folder: Path, path: Path, bank: Path, presets: Sequence[Preset], draw_args: tuple[int, int, TakeConfig]
) -> str:
    score = read_score(path)
    take = draw_take(score, presets, *draw_args)
    waves = render_take(score, take, bank)
    length_s = next((wave.shape[1] for wave in waves.values()), 0) / SAMPLE_RATE_HZ
    manifest: dict[str, object] = {"format": 1, "piece": score.name, "bank": bank.name, "length_s": length_s}
    manifest |= {"stems": [stem for stem in STEMS if stem in waves], "take": asdict(take)}
    write_track(folder, waves, manifest)
    return f"{folder.name}: {length_s:.0f} s, {', '.join(waves) or 'silent'}"
