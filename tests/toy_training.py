"""A toy to train: noise to be halved, learnt in a few steps, with dropout so that random states matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from polyres.datasets.stems import StemsConfig
from polyres.training.config import SolverConfig
from polyres.training.run_folder import RunFolder
from polyres.training.solver import Solver

NUM_ITEMS = 10


class ToySource:
    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return NUM_ITEMS

    def __getitem__(self, index: int) -> Tensor:
        return torch.randn(2, 64, generator=torch.Generator().manual_seed(1000 * self.epoch + index))


class ToyTask:
    """What the solver asks for; `bad_step` makes the loss of that batch NaN, `hook` runs before every loss."""

    def __init__(self, bad_step: int | None = None, hook: Callable[[int], None] | None = None) -> None:
        self.bad_step, self.hook = bad_step, hook
        self.step = 0
        self.batches: list[Tensor] = []
        self.exported: list[dict[str, Any]] = []
        self.scores: Callable[[float], float] = lambda loss: -loss
        self.valid = ToySource()[0][None]
        self.has_valid = True

    def build_model(self) -> nn.Module:
        model = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4), nn.Dropout(0.1), nn.Conv1d(4, 2, 1))
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)
        return model

    def build_source(self) -> ToySource:
        return ToySource()

    def build_prepare(self) -> Callable[[Tensor, torch.Generator], Tensor]:
        return lambda batch, generator: batch * torch.rand(len(batch), 1, 1, generator=generator)

    def losses(self, forward: Callable[[Tensor], Tensor], batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if self.hook is not None:
            self.hook(self.step)
        self.batches.append(batch)
        loss = (forward(batch) - 0.5 * batch).square().mean()
        if self.step == self.bad_step:
            loss = loss * float("nan")
        self.step += 1
        return loss, {"mse": loss.detach()}

    def validate(self, forward: Callable[[Tensor], Tensor]) -> dict[str, float]:
        if not self.has_valid:
            return {}
        return {"score": self.scores((forward(self.valid) - 0.5 * self.valid).square().mean().item())}

    def describe(self, model: nn.Module) -> dict[str, Any]:
        return {"bias": model[3].bias.tolist()}

    def gradient_norms(self, model: nn.Module) -> dict[str, float]:
        return {name: parameter.grad.norm().item() for name, parameter in model.named_parameters()}

    def export(self, model: nn.Module, path: Path, card: Mapping[str, Any]) -> None:
        self.exported.append(dict(card))
        save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, path)


class PlainTask(ToyTask):
    """No dropout, no statistics over the batch, no random preparation."""

    def build_model(self) -> nn.Module:
        model = super().build_model()
        model[1], model[2] = nn.Identity(), nn.Identity()
        return model

    def build_prepare(self) -> Callable[[Tensor, torch.Generator], Tensor]:
        return lambda batch, generator: batch


@pytest.fixture
def toy_config() -> SolverConfig:
    return SolverConfig(
        epochs=3, batch_size=4, num_workers=0, ema=(0.5, 0.9), device="cpu", schedule={"name": "cosine", "warmup": 0.2},
        optimiser={"lr": 1e-2, "weight_decay": 1e-3},
    )  # fmt: skip


@pytest.fixture
def make_solver(tmp_path: Path):
    """Build solvers on one thread: with more, sums may be rounded in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def make(config: SolverConfig, name: str = "run", task: ToyTask | None = None, resume: bool = False) -> Solver:
        opened = RunFolder.reopen if resume else RunFolder.create
        return Solver(config, task or ToyTask(), opened(tmp_path / name, config, config.seed), resume)

    yield make
    torch.set_num_threads(before)


@pytest.fixture
def toy_task() -> type[ToyTask]:
    return ToyTask


@pytest.fixture
def plain_task() -> type[PlainTask]:
    return PlainTask


RATE_HZ = 8000


@pytest.fixture(scope="session")
def stems_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `train` (two tracks) and `valid` (one track that has no bass)."""
    root = tmp_path_factory.mktemp("stems")
    rng = np.random.default_rng(0)
    time_s = np.arange(3 * RATE_HZ) / RATE_HZ
    for number, folder in enumerate(("train/one", "train/two", "valid/three")):
        (root / folder).mkdir(parents=True)
        for pitch, source in enumerate(("drums", "bass", "other", "vocals")):
            if (folder, source) == ("valid/three", "bass"):
                continue
            tone = 0.2 * np.sin(2 * np.pi * 55 * 2 ** (pitch + number / 12) * time_s)
            wave = tone[:, None] * [1.0, 0.8] + 0.01 * rng.standard_normal((len(time_s), 2))
            soundfile.write(root / folder / f"{source}.wav", wave, RATE_HZ, subtype="FLOAT")
    return root


@pytest.fixture
def stems_config(stems_dir: Path) -> StemsConfig:
    return StemsConfig.from_dict(
        {
            "roots": [{"path": str(stems_dir / "train")}],
            "sample_rate_hz": RATE_HZ,
            "segment_samples": 4000,
            "items_per_epoch": 4,
        }
    )


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
valid: {roots: [valid], max_seconds: 2}
batch_size: 2
epochs: 2
optimiser: {lr: 1.0e-3}
ema: [0.9]
num_workers: 0
device: cpu
"""


@pytest.fixture
def recipe(tmp_path: Path, stems_dir: Path):
    """A tiny recipe whose data is there; trains on one thread."""
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE + f"data_dir: {stems_dir}\n", encoding="utf-8")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield path
    torch.set_num_threads(before)
