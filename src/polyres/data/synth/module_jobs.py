"""Tracks made from tracker modules: whole songs, each take with a tempo, pitch and width of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import numpy as np

from polyres.core.errors import InputError
from polyres.data.synth.composed import FORMAT
from polyres.data.synth.modules import MAX_LENGTH_S, SAMPLE_RATE_HZ, draw_variation, judge_folder, render
from polyres.data.track_files import require_folder


@dataclass(frozen=True)
class ModuleJob:
    """One take of one module; `stems` are the instruments of each stem."""

    folder: Path
    path: Path
    number: int
    seed: int
    length_s: float
    stems: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def made_from(self) -> str:
        """Seed, take, the module's name and what its instruments were taken for."""
        return f"module-{FORMAT}-{self.seed}-{self.number}-{self.path.name}-{dict(self.stems)}"

    def make(self) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        """Return stems and manifest."""
        name = np.frombuffer(self.path.name.encode(), np.uint8)
        variation = draw_variation(np.random.default_rng([self.seed, self.number, *map(int, name)]))
        length_samples = round(min(self.length_s, MAX_LENGTH_S) / variation.tempo * SAMPLE_RATE_HZ)
        waves = {stem: render(self.path, numbers, length_samples, variation=variation) for stem, numbers in self.stems}
        peak = max(float(np.abs(sum(waves.values())).max()), *(float(np.abs(wave).max()) for wave in waves.values()))
        gain = np.float32(min(1.0, 0.98 / max(peak, 1e-9)))
        waves = {stem: gain * wave for stem, wave in waves.items()}
        facts: dict[str, object] = {"format": FORMAT, "kind": "module", "module": self.path.name}
        return waves, {**facts, "variation": asdict(variation), "instruments": dict(self.stems)}


def module_jobs(out: Path, folder: Path, takes: int, length_s: float | None, seed: int) -> Sequence[ModuleJob]:
    """List takes of the usable modules of a folder, take 0 of every module first.

    Args:
        out: gets one folder `<module>_take<k>` per module and take.
        folder: the modules, at any depth.
        takes: of every module.
        length_s: take after take until there is so much audio, instead of `takes`.
        seed: of the variations.

    Returns:
        The jobs.

    Raises:
        InputError: if the folder has no usable module, or libopenmpt is missing.
    """
    usable = [module for module in judge_folder(require_folder(folder)) if module.is_usable]
    if not usable:
        raise InputError(
            f"no tracker module in '{folder}' whose instruments are clear; give a folder of .mod .s3m .xm .it files"
        )
    jobs: list[ModuleJob] = []
    planned_s = 0.0
    for number in range(takes) if length_s is None else count():
        for module in usable:
            if length_s is not None and planned_s >= length_s:
                return jobs
            stems = tuple(module.stems.items())
            name = f"{module.path.name.replace('.', '_')}_take{number}"
            jobs.append(ModuleJob(out / name, module.path, number, seed, module.length_s, stems))
            planned_s += min(module.length_s, MAX_LENGTH_S)
    return jobs
