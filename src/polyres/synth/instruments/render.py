"""Render scores through FluidSynth stem by stem into folders of WAV files."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import wave as riff
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polyres.audio.files import read_audio
from polyres.core.errors import InputError, OutputError
from polyres.core.json_text import json_file
from polyres.core.whole_files import scratch_folder
from polyres.synth.scores.midi import Score, write_score
from polyres.synth.scores.variations import Take, perform

SAMPLE_RATE_HZ = 44_100
MAX_LENGTH_S = 150.0
TAIL_S = 1.5
_MANIFEST = "manifest.json"
_SILENCE = 1e-4


def render_stem(score: Score, stem: str, take: Take, bank: Path, length_s: float) -> np.ndarray:
    """Play one stem of a score: `[2, T]`."""
    program = shutil.which("fluidsynth")
    if program is None:
        raise InputError("the program 'fluidsynth' is not installed; install it to render scores")
    with scratch_folder() as folder:
        midi_path, wave_path = folder / "stem.mid", folder / "stem.wav"
        notes, controls = perform(score, stem, take, length_s - TAIL_S)
        write_score(notes, controls, length_s, midi_path)
        command = [program, "-ni", "-q", "-g", "0.3", "-r", str(SAMPLE_RATE_HZ), *_effect_options(take)]
        command += ["-T", "wav", "-O", "float", "-F", str(wave_path), str(bank), str(midi_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not wave_path.is_file():
            lines = done.stderr.strip().splitlines() or ["no output"]
            raise InputError(f"fluidsynth could not play '{score.name}' with the bank '{bank}': {lines[-1]}")
        wave, _ = read_audio(wave_path)
    length_samples = round(length_s * SAMPLE_RATE_HZ)
    result = np.zeros((2, length_samples), np.float32)
    kept = min(length_samples, wave.shape[1])
    result[:, :kept] = wave[:, :kept]
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


def render_take(
    score: Score, take: Take, bank: Path, max_length_s: float = MAX_LENGTH_S, stems: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Render and balance the stems of one take: `[2, T]`."""
    length_s = min(score.length_s / take.tempo_factor, max_length_s) + TAIL_S
    waves = {}
    for stem in score.stems if stems is None else stems:
        wave = render_stem(score, stem, take, bank, length_s)
        if np.abs(wave).max() > _SILENCE:
            waves[stem] = wave * np.float32(10.0 ** (take.stem_gains_db[stem] / 20.0))
    return waves


def on_grid(wave: np.ndarray) -> np.ndarray:
    """Round a wave `[C, T]` to 16-bit integers, int16 `[C, T]`; 32768 is full scale."""
    return np.clip(np.rint(wave * np.float32(32768.0)), -32768, 32767).astype("<i2")


def write_track(folder: Path, waves: Mapping[str, np.ndarray], manifest: Mapping[str, object]) -> None:
    """Write one track folder in one step: 16-bit WAV per stem and a manifest; the mixture is the sum of the files."""
    temporary = folder.with_name(f".{folder.name}.part{os.getpid()}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for stem, samples in waves.items():
            _write_wave(temporary / f"{stem}.wav", on_grid(samples))
        text = json.dumps(manifest, indent=1, sort_keys=True)
        (temporary / _MANIFEST).write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if not is_finished(folder):
            raise OutputError(
                f"cannot write '{folder}' ({error.strerror}); make room or choose a writable folder"
            ) from error


def _write_wave(path: Path, samples: np.ndarray) -> None:
    """Write int16 `[C, T]`; errors of the disk come as OSError."""
    content = io.BytesIO()
    with riff.open(content, "wb") as file:
        file.setnchannels(samples.shape[0])
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(np.ascontiguousarray(samples.T).tobytes())
    path.write_bytes(content.getbuffer())


def is_finished(folder: Path) -> bool:
    """Return whether a track folder is complete."""
    return (folder / _MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a track."""
    path = folder / _MANIFEST
    try:
        manifest = json_file(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read '{path}' ({error}); remove the folder to make the track again") from error
    if not isinstance(manifest, dict):
        raise InputError(f"'{path}' is no manifest; remove the folder to make the track again")
    return manifest
