"""A toy to train: noise to be halved, learnt in a few steps, with dropout so that random states matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

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

    def export(self, model: nn.Module, path: Path, card: Mapping[str, Any]) -> None:
        self.exported.append(dict(card))
        save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, path)


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
