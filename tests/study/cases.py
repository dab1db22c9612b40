"""A tiny study: three seconds of tones, models that train in a blink, and jobs that are done in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import torch

from polyres.core.errors import PolyresError
from polyres.study.run.job import Job, do_job

RATE_HZ = 8000
SOURCES = ("drums", "bass", "other", "vocals")

RECIPE = """\
model:
  n_fft: [512, 1024]
  channels: 4
  wave_branch: false
  head: mask
  transformer: {kind: none}
  sample_rate_hz: 8000
  segment_samples: 4000
data:
  roots: [{path: train}]
  sample_rate_hz: 8000
  segment_samples: 4000
  items_per_epoch: 4
augment: {sample_rate_hz: 8000}
valid: {roots: [valid], max_seconds: 1}
batch_size: 2
epochs: 2
optimiser: {lr: 1.0e-3}
num_workers: 0
device: cpu
threads: 1
"""

STUDY = """\
title: Tiny
question: Does it work?
recipe: tiny.yaml
arms:
  one: {model: {n_fft: [512]}}
  two: {}
reference: one
seeds: [1, 2]
data: {roots: {tones: test, more: valid}}
metrics: [nsdr]
budget: {equal: steps}
"""


def write_stems(root: Path) -> None:
    """Write train (two tracks), valid (one) and test (two)."""
    rng = np.random.default_rng(0)
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    for number, folder in enumerate(("train/one", "train/two", "valid/three", "test/four", "test/five")):
        (root / folder).mkdir(parents=True)
        for pitch, source in enumerate(SOURCES):
            tone = 0.2 * np.sin(2 * np.pi * 55 * 2 ** (pitch + number / 12) * time_s)
            wave = tone[:, None] * [1.0, 0.8] + 0.01 * rng.standard_normal((len(time_s), 2))
            soundfile.write(root / folder / f"{source}.wav", wave, RATE_HZ, subtype="FLOAT")


def write_study(root: Path, study: str = STUDY, recipe: str = RECIPE) -> Path:
    """Write recipe and study file, and the stems unless they are there."""
    if not (root / "train").exists():
        write_stems(root)
    (root / "tiny.yaml").write_text(recipe + f"data_dir: {root}\n", encoding="utf-8")
    (root / "study.yaml").write_text(study, encoding="utf-8")
    return root / "study.yaml"


@dataclass
class Done:
    """A job that was over when it was started."""

    status: int

    def poll(self) -> int | None:
        return self.status

    def stop(self, hard: bool) -> None:
        raise AssertionError("nothing to stop")


@dataclass
class Inline:
    """Does jobs at once in this process; `before` may change one, and notes them."""

    before: Callable[[str], None] = lambda name: None
    started: list[str] = field(default_factory=list)

    def slots(self) -> int:
        return 1

    def threads(self) -> int:
        return 1

    def start(self, job: Path, log: Path, slot: int, threads: int) -> Done:
        todo = Job.from_yaml(job)
        self.started.append(todo.name)
        kept = torch.get_num_threads()
        try:
            self.before(todo.name)
            return Done(do_job(todo))
        except PolyresError as error:
            with log.open("a") as file:
                file.write(f"error: {error}\n")
            return Done(error.exit_code)
        finally:
            torch.set_num_threads(kept)
