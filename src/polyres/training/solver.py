"""The training loop: steps, epochs, validation, checkpoints; it knows nothing of what is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, Generic

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor

from polyres.core.errors import TrainingError
from polyres.training.checkpoint import Parts, restore_run, save_run, save_state
from polyres.training.config import SolverConfig
from polyres.training.devices import Ranks, build_fabric, check_compiler
from polyres.training.loading import NoBatchError, StepBatches, StepSampler, endless_batches, next_batch, seed_of
from polyres.training.optim import Ema, Place, build_optimiser, rate_factor, rates, set_rates
from polyres.training.progress import (
    Board,
    RunDisplay,
    RunState,
    StopRequest,
    TrainResult,
    add,
    check_board,
    epoch_figures,
    peak_memory_mb,
    row_text,
    timed,
)
from polyres.training.run_folder import RunFolder, versions
from polyres.training.task import Model, Task

BAD_BATCH_FILE = "bad_batch.safetensors"


class _Stopped(Exception):
    """A signal came."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Solver(Generic[Model]):
    """Trains a task in a run folder, and can stop and go on at any step."""

    def __init__(
        self,
        config: SolverConfig,
        task: Task[Model],
        run: RunFolder,
        resume: bool = False,
        fabric: Fabric | None = None,
    ) -> None:
        """Build model, optimiser, averages and data.

        `fabric`: plumbing that has been launched, where several processes train together. Raises TrainingError if the
        checkpoint does not fit, the device is not there, or the batch cannot be shared.
        """
        self.config, self.task, self.run = config, task, run
        if config.tensorboard:
            check_board()
        self.fabric = fabric if fabric is not None else build_fabric(config)
        self._ranks = Ranks(self.fabric)
        if config.batch_size % self._ranks.size:
            raise TrainingError(
                f"batch_size {config.batch_size} cannot be shared by {self._ranks.size} devices; make it a multiple"
            )
        self.model = task.build_model()
        # The fused kernels unscale gradients by themselves, which leaves nothing to clip before.
        self.optimiser = build_optimiser(self.model, config.optimiser, fused=config.precision != "fp16")
        if config.compile:
            check_compiler(self.fabric.device)
        module: Any = torch.compile(self.model) if config.compile else self.model
        # Fabric's wrapper keeps its own view of the groups, so only stepping and clipping go through it.
        self._forward, self._stepper = self.fabric.setup(module, self.optimiser)
        precision = self.fabric.strategy.precision
        self._scaler = precision.scaler if isinstance(precision, MixedPrecision) else None
        self.emas = [Ema(self.model, decay) for decay in config.ema]
        self.emas += [Ema(self.model, decay, "epoch") for decay in config.ema_epoch]
        self._parts = Parts(self.model, self.optimiser, self.emas, precision)
        self.state = RunState()
        if resume:
            self._load()
        self.source = task.build_source()
        self.steps_per_epoch = config.steps_per_epoch or -(-len(self.source) // (config.batch_size * config.accumulate))
        self._batches: Iterator[Tensor] = iter(())
        self._stop = StopRequest()
        self._now_s = time.process_time if config.clock == "cpu" else time.monotonic
        self._tick_s, self._saved_s = self._now_s(), time.monotonic()

    @property
    def epoch(self) -> int:
        """Number of the epoch that the last step belongs to, from 1 (0 before any step)."""
        return -(-self.state.step // self.steps_per_epoch)

    def progress(self) -> float:
        """Return the share of the run that is over, by steps or by seconds, whichever is further."""
        shares = [0.0]
        if self.config.epochs is not None:
            step = self.state.step
            if self.config.schedule.unit == "epoch":
                step -= step % self.steps_per_epoch
            shares.append(step / (self.config.epochs * self.steps_per_epoch))
        if self.config.time_budget_s is not None:
            # The last validation needs its time too; its cost is known from the one before.
            shares.append((self.state.elapsed_s + self.state.validation_s) / self.config.time_budget_s)
        return min(max(shares), 1.0)

    def _place(self) -> Place:
        """Return the place in the run that the learning rate goes by."""
        epoch = self.state.step // self.steps_per_epoch
        return Place(self.progress(), epoch, self.config.epochs, self.state.plateau.reductions)

    def _over(self) -> bool:
        """Say whether the run has reached its end."""
        epochs, state = self.config.epochs, self.state
        return self.progress() >= 1.0 or (epochs is not None and state.step >= epochs * self.steps_per_epoch)

    def _count_time(self) -> None:
        """Add the seconds since the last call to the run's own clock, which survives a restart."""
        now = self._now_s()
        self.state.elapsed_s += now - self._tick_s
        self._tick_s = now

    def fit(self) -> TrainResult:
        """Train until the end of the run or a signal; either way the state is saved.

        Raises TrainingError if a loss or gradient is not finite; the batch is kept in the run folder; OutputError if
        the run folder cannot be written.
        """
        self._tick_s, self._saved_s = self._now_s(), time.monotonic()
        if not self._over():
            self._batches = self._load_batches()
        stopped_by: int | None = None
        self._board = Board(self.run.path, self.state.closed_step + 1, self.config.tensorboard and self._ranks.is_first)
        with RunDisplay(self.config.log_every_s, self._ranks.is_first) as display, self._board, self._stop:
            try:
                self._loop(display)
            except _Stopped as stop:
                stopped_by = stop.number
                self._save()
            except NoBatchError as error:
                if self._ranks.size > 1:  # the other processes cannot save with this one
                    raise
                self._save()
                raise NoBatchError(f"{error}; step {self.state.step} is saved, go on with --resume") from error
            finally:
                self._batches = iter(())  # ends the worker processes
        state = self.state
        return TrainResult(stopped_by is None, stopped_by, state.step, self.epoch, state.elapsed_s, state.best)

    def _load_batches(self) -> Iterator[Tensor]:
        """Load this process's share of the batches, from where the run stands."""
        config, ranks = self.config, self._ranks
        start = self.state.step * config.accumulate * ranks.size + ranks.number
        sampler = StepSampler(len(self.source), config.batch_size // ranks.size, config.seed, start, every=ranks.size)
        batches = StepBatches(self.source, self.task.build_prepare(), config.seed)
        return endless_batches(batches, sampler, config.num_workers, pin=self.fabric.device.type == "cuda")

    def _loop(self, display: RunDisplay) -> None:
        """Take steps and close epochs until the run is over; leave by `_Stopped` on a signal."""
        while True:
            if self._agree():
                self._save()
            over = self._over()
            if self.state.step > self.state.closed_step and (over or self.state.step % self.steps_per_epoch == 0):
                self._close_epoch(display)
            elif over:
                return
            else:
                self._train_step()
                display.update(self.progress(), self._status())

    def _agree(self) -> bool:
        """Bring signals and clocks of all processes together; say whether it is time for a checkpoint."""
        state = self.state
        due = time.monotonic() - self._saved_s > self.config.checkpoint_every_s and state.step > state.closed_step
        values = (float(self._stop.number or 0), state.elapsed_s, state.validation_s, float(due))
        number, state.elapsed_s, state.validation_s, is_due = self._ranks.largest(values)
        if number:
            raise _Stopped(int(number))
        return bool(is_due)

    def _status(self) -> str:
        """Word the state of the running epoch in a line."""
        sums, state = self.state.sums, self.state
        mean = sums["loss/total"] / max(sums["steps"], 1)
        return f"epoch {self.epoch}  step {state.step}  loss {mean:.5f}  {state.elapsed_s:.0f} s"

    def _train_step(self) -> None:
        """Take one optimiser step over `accumulate` batches."""
        config = self.config
        self.model.train()
        # Dropout can only draw from the global generator: seeded by the step, it needs no state to be saved.
        purpose = "model" if self._ranks.is_first else f"model/{self._ranks.number}"
        torch.manual_seed(seed_of(config.seed, purpose, self.state.step))
        factor = rate_factor(self._place(), config.schedule)
        self.state.lr = config.optimiser.lr * factor
        set_rates(self.optimiser, factor)
        sums = dict(self.state.sums)
        for part in range(config.accumulate):
            try:
                with timed(self.state.sums, "data"):
                    batch = self.fabric.to_device(next_batch(self._batches))
            except NoBatchError:
                self.state.sums = sums
                raise
            with self.fabric.no_backward_sync(self._forward, enabled=part + 1 < config.accumulate):
                self._backward(batch)
        with timed(self.state.sums, "optimiser"):
            self._clip(batch)
            self._stepper.step()
            self._stepper.zero_grad()
        with timed(self.state.sums, "ema"):
            self._average("step")
        add(self.state.sums, "steps", 1)
        self.state.step += 1
        self._count_time()

    def _average(self, unit: str) -> None:
        """Take the weights into the averages that are updated after every such unit."""
        for ema in self.emas:
            if ema.unit == unit:
                ema.update()

    def _clip(self, batch: Tensor) -> None:
        """Clip the gradients to the norm, and add their norms before that to the sums."""
        config, sums = self.config, self.state.sums
        scale = self._scaler.get_scale() if self._scaler is not None else 1.0
        norms: dict[str, float] = {}
        if config.gradient_norms_every and self.state.step % config.gradient_norms_every == 0:
            norms = self.task.gradient_norms(self.model)
        limit = config.clip_norm if config.clip_norm is not None else float("inf")
        clip = self.fabric.clip_gradients
        norm = torch.as_tensor(clip(self._forward, self._stepper, max_norm=limit, error_if_nonfinite=False))
        if self._scaler is not None and scale >= 1 and not torch.isfinite(norm):
            # The factor was too large: the scaler leaves this step out and takes a smaller one.
            add(sums, "skipped", 1)
            return
        self._check_finite("gradient norm", norm.item(), batch)  # the same in all processes
        add(sums, "grad_norm", norm.item())
        for name, value in norms.items():
            add(sums, f"grad_norms/{name}", value / scale)
        add(sums, "grad_norms_steps", bool(norms))

    def _backward(self, batch: Tensor) -> None:
        """Add the gradients of one batch, and its losses to the sums."""
        share = 1 / self.config.accumulate

        def forward(mix: Tensor, *extra: Any) -> Any:
            with timed(self.state.sums, "forward"):
                return self._forward(mix, *extra)

        with timed(self.state.sums, "forward_and_loss"):
            loss, terms = self.task.losses(forward, batch)
        self._check_finite("loss", self._ranks.total(loss.item()), batch)
        with timed(self.state.sums, "backward"):
            self.fabric.backward(loss * share)
        for name, value in {"total": loss, **terms}.items():
            add(self.state.sums, f"loss/{name}", value.detach().item() * share)

    def _check_finite(self, what: str, value: float, batch: Tensor) -> None:
        """Stop with the batch kept aside if a number, the same in all processes, is NaN or infinite."""
        if math.isfinite(value):
            return
        path, batch = self.run.path / BAD_BATCH_FILE, self._ranks.together(batch)
        self._ranks.from_first(lambda: save_state(path, {"batch": batch}, {"step": self.state.step}))
        raise TrainingError(
            f"the {what} became {value} at step {self.state.step + 1}; its batch is in {path}; "
            "lower optimiser.lr or clip_norm, or train in fp32, and resume"
        )

    def _close_epoch(self, display: RunDisplay) -> None:
        """Validate, keep the best weights, write the row of the epoch and the checkpoint."""
        state = self.state
        self._share_losses()
        if state.averaged_step < state.step:  # an epoch that was stopped while validating has been taken in
            self._average("epoch")
            state.averaged_step, state.averaged_epochs = state.step, state.averaged_epochs + 1
        validate = self.epoch % self.config.valid.every == 0 or self._over()
        start = self._now_s()
        scores = self._ranks.from_first(self._validate_all) if validate else {}
        seconds = self._now_s() - start
        row = self._row(scores, seconds)
        if scores:
            state.plateau.take(max(values["score"] for values in scores.values()), self.config.schedule.patience)
        chosen = self._choose(scores) if validate else None
        state.closed_step, state.sums = state.step, {}
        self._count_time()
        if validate:
            state.validation_s = seconds
        row |= {"elapsed_s": round(state.elapsed_s, 3), "best": state.best}
        self._ranks.from_first(lambda: self._write_epoch(chosen, row))
        self._saved_s = time.monotonic()
        display.say(row_text(row))

    def _share_losses(self) -> None:
        """Take the means over the processes of the losses summed up so far."""
        losses = {name: value for name, value in self.state.sums.items() if name.startswith("loss/")}
        self.state.sums |= self._ranks.means(losses)

    def _write_epoch(self, chosen: Mapping[str, Any] | None, row: Mapping[str, Any]) -> None:
        """Write what the end of an epoch leaves behind; the checkpoint comes last."""
        if chosen is not None:
            self._export(chosen)
        self.run.append_row(row)
        self._board.write(row)
        save_run(self.run.checkpoint, self._parts, self.state, self.run.identity)

    def _validate_all(self) -> dict[str, dict[str, float]]:
        """Return the scores of the weights as they are and of every average."""
        scores = {"raw": self._validate()}
        for ema in self.emas:
            with ema.applied():
                scores[ema.name] = self._validate()
        return {name: values for name, values in scores.items() if values}

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Score the weights that are in the model now."""

        def forward(mix: Tensor, *extra: Any) -> Any:
            if self._stop.number is not None:
                raise _Stopped(self._stop.number)
            return self._forward(self.fabric.to_device(mix), *extra)

        self.model.eval()
        return self.task.validate(forward)

    def _choose(self, scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any] | None:
        """Say what is known of the best weights of this epoch if they beat all before."""
        where = {"epoch": self.epoch, "step": self.state.step}
        if not scores:
            # Nothing to choose by: the longest average is the safest bet.
            longest = max(self.emas, key=lambda ema: ema.length_steps(self.steps_per_epoch), default=None)
            return {"weights": "raw" if longest is None else longest.name, **where}
        name = max(scores, key=lambda weights: scores[weights]["score"])
        score = scores[name]["score"]
        if self.state.best is not None and score <= self.state.best["score"]:
            return None
        self.state.best = {"score": score, "weights": name, **where, "valid": dict(scores[name])}
        return self.state.best

    def _export(self, facts: Mapping[str, Any]) -> None:
        """Write ready-to-use weights: the raw ones or an average."""
        card = {**facts, **self.run.identity, "versions": versions()}
        for ema in self.emas:
            if ema.name == facts["weights"]:
                with ema.applied():
                    self.task.export(self.model, self.run.best, card)
                return
        self.task.export(self.model, self.run.best, card)

    def _row(self, scores: Mapping[str, Mapping[str, float]], validation_s: float) -> dict[str, Any]:
        """Sum up the epoch."""
        return {
            "epoch": self.epoch,
            "step": self.state.step,
            "progress": round(self.progress(), 6),
            "lr": self.state.lr,
            **({"lr_groups": rates(self.optimiser)} if self.config.optimiser.groups else {}),
            **epoch_figures(self.state.sums),
            "ema_distance": {ema.name: ema.distance() for ema in self.emas},
            "valid": {name: dict(values) for name, values in scores.items()},
            "validation_s": round(validation_s, 3),
            "memory_mb": peak_memory_mb(self.fabric.device),
            **self.task.describe(self.model),
        }

    def _save(self) -> None:
        """Write the checkpoint."""
        self._share_losses()
        self._ranks.from_first(lambda: save_run(self.run.checkpoint, self._parts, self.state, self.run.identity))
        self._saved_s = time.monotonic()

    def _load(self) -> None:
        """Go on from the checkpoint, or from the start where the run was stopped before its first one."""
        if self.run.checkpoint.exists():
            self.state = restore_run(self.run.checkpoint, self._parts)
        self._ranks.from_first(lambda: self.run.forget_after(self.state.closed_step))
