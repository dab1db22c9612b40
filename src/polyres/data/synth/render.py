"""Rendering: scores played stem by stem through FluidSynth into folders of WAV files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from polyres.core.errors import InputError, OutputError
from polyres.data.synth.midi import Score, write_score
from polyres.data.synth.takes import Take, perform

SAMPLE_RATE_HZ = 44_100
MAX_LENGTH_S = 150.0
TAIL_S = 1.5
_MANIFEST = "manifest.json"
_SILENCE = 1e-4


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
        Stem name to float32 `[2, T]`, not normalised; stems that do not sound are left out.
    """
    length_s = min(score.length_s / take.tempo_factor, max_length_s) + TAIL_S
    waves = {}
    for stem in score.stems:
        wave = render_stem(score, stem, take, bank, length_s)
        if np.abs(wave).max() > _SILENCE:
            waves[stem] = wave * np.float32(10.0 ** (take.stem_gains_db[stem] / 20.0))
    return waves


def normalise_jointly(waves: dict[str, np.ndarray], peak_db: float) -> dict[str, np.ndarray]:
    """Scale all stems by one gain, so that their balance stays.

    Args:
        waves: stem name to float `[C, T]`, all of one length.
        peak_db: peak in dBFS that the loudest of mixture and stems gets.

    Returns:
        Stem name to float32 `[C, T]`.
    """
    if not waves:
        return {}
    mixture = np.sum(list(waves.values()), axis=0)
    peak = max(float(np.abs(wave).max(initial=0.0)) for wave in [mixture, *waves.values()])
    gain = np.float32(10.0 ** (peak_db / 20.0) / max(peak, 1e-9))
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
