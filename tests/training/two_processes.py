"""Scenarios for two processes that train together; test_ranks.py starts this program twice and looks at what is left.

Run with RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set, as torchrun does, and a folder for the results.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from safetensors.torch import save_file
from toy_training import PlainTask, ToyTask

from polyres.core.errors import PolyresError
from polyres.training import checkpoint as saving
from polyres.training.config import SolverConfig
from polyres.training.devices import Ranks, build_fabric
from polyres.training.run_folder import RunFolder
from polyres.training.solver import Solver

CONFIG = SolverConfig(
    epochs=3, batch_size=4, num_workers=0, ema=(0.5,), ema_epoch=(0.5,), device="cpu",
    schedule={"name": "cosine", "warmup": 0.2}, optimiser={"lr": 1e-2, "weight_decay": 1e-3},
)  # fmt: skip


class Program:
    """One of the two processes."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.fabric = build_fabric(CONFIG)
        self.fabric.launch()
        self.ranks = Ranks(self.fabric)
        self.facts: dict[str, Any] = {"size": self.ranks.size}

    def solver(self, name: str, config: SolverConfig = CONFIG, task: Any = None, resume: bool = False) -> Solver:
        opened = RunFolder.reopen if resume else RunFolder.create
        run = self.ranks.from_first(lambda: opened(self.out / name, config, config.seed))
        return Solver(config, task or ToyTask(), run, resume, self.fabric)

    def run_all(self) -> None:
        if not self.ranks.is_first:
            self.forbid_writing()
        self.groups_of_numbers()
        self.gradients("gradients", CONFIG)
        self.gradients("accumulated", CONFIG.with_values({"accumulate": 2, "precision": "bf16"}))
        self.solver("whole").fit()
        self.stop_and_go_on()
        self.bad_batch()
        self.time_budget()
        self.facts["shared"] = self.message(lambda: self.solver("odd", CONFIG.with_values({"batch_size": 3})))
        self.facts["again"] = self.message(lambda: self.solver("whole"))
        (self.out / f"rank{self.ranks.number}.json").write_text(json.dumps(self.facts))

    def forbid_writing(self) -> None:
        def refuse(*arguments: Any) -> None:
            raise RuntimeError("only the first process may write")

        saving.save_state = refuse  # type: ignore[assignment]
        for name in ("append_row", "forget_after", "_describe"):
            setattr(RunFolder, name, refuse)
        ToyTask.export = ToyTask.validate = refuse  # type: ignore[assignment, method-assign]

    def message(self, function: Any) -> str:
        try:
            function()
        except PolyresError as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def groups_of_numbers(self) -> None:
        rank = self.ranks.number
        self.facts["largest"] = self.ranks.largest([rank, -rank])
        self.facts["total"] = self.ranks.total(1.0 + rank)
        self.facts["nan"] = str(self.ranks.total(float("nan") if rank else 0.0))
        self.facts["means"] = self.ranks.means({"a": rank, "b": 3.0})
        self.facts["together"] = self.ranks.together(torch.tensor([[rank]])).tolist()
        self.facts["from_first"] = self.ranks.from_first(lambda: rank)

    def gradients(self, name: str, config: SolverConfig) -> None:
        solver = self.solver(name, config, PlainTask())
        found: dict[str, torch.Tensor] = {}
        step = solver.optimiser.step

        def noted(*arguments: Any, **named: Any) -> Any:
            number = solver.state.step
            for key, parameter in solver.model.named_parameters():
                found[f"{number}/{key}"] = parameter.grad.clone()
            return step(*arguments, **named)

        solver.optimiser.step = noted
        solver.fit()
        found |= {f"end/{key}": parameter.detach() for key, parameter in solver.model.named_parameters()}
        save_file(found, self.out / f"{name}_{self.ranks.number}.safetensors")

    def stop_and_go_on(self) -> None:
        def stop(step: int) -> None:
            if step == 4 and not self.ranks.is_first:
                os.kill(os.getpid(), signal.SIGTERM)

        result = self.solver("parts", task=ToyTask(hook=stop)).fit()
        self.facts["stopped"] = [result.stopped_by, result.step]
        torch.manual_seed(99)
        self.facts["finished"] = self.solver("parts", resume=True).fit().finished

    def bad_batch(self) -> None:
        task = ToyTask(bad_step=None if self.ranks.is_first else 2)
        self.facts["bad"] = self.message(self.solver("bad", task=task).fit)

    def time_budget(self) -> None:
        config = CONFIG.with_values({"epochs": None, "time_budget_s": 0.3, "checkpoint_every_s": 0.02})
        result = self.solver("budget", config).fit()
        self.facts["budget"] = [result.finished, result.step]


if __name__ == "__main__":
    torch.set_num_threads(1)
    Program(Path(sys.argv[1])).run_all()
