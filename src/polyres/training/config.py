"""What the training loop can be told, whatever it trains."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from polyres.core.config import Config
from polyres.training.optim import OPTIMISERS, SCHEDULES


class GroupConfig(Config):
    """Parameters with a rate or a weight decay of their own.

    `match` is a part of their names or a regular expression that is found in them; what is None is as for the rest.
    """

    match: str = Field(min_length=1)
    lr: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)

    @field_validator("match")
    @classmethod
    def _expression(cls, match: str) -> str:
        """Refuse what is no regular expression."""
        try:
            re.compile(match)
        except re.error as error:
            raise ValueError(
                f"no regular expression ({error}); write a part of the names, such as transformer"
            ) from error
        return match

    @model_validator(mode="after")
    def _differs(self) -> GroupConfig:
        """Refuse a group that is like the rest."""
        if self.lr is None and self.weight_decay is None:
            raise ValueError(f"the group {self.match!r} is like the rest; give it an lr or a weight_decay")
        return self


class OptimiserConfig(Config):
    """Which optimiser moves the weights, and how fast.

    Without `decay_norms`, biases, gains of norms and other parameters of one axis have no weight decay. `betas` are
    for adam, adamw and the part of muon that is AdamW, `momentum` for sgd (0.9 if None) and muon (0.95 if None).
    """

    name: str = "adam"
    lr: float = Field(default=3e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float | None = Field(default=None, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    decay_norms: bool = True
    groups: tuple[GroupConfig, ...] = ()

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        """Refuse unknown names."""
        OPTIMISERS.get(name)
        return name


class ScheduleConfig(Config):
    """How the learning rate changes; shares are of the whole run, be it counted in steps, epochs or seconds.

    `cosine_epochs` warms up over `warmup_epochs`, all others over the share `warmup`. `step` multiplies the rate by
    `factor` after every `every_epochs`, `plateau` after more than `patience` validations without a better score. No
    schedule but the warm-up goes below `final_ratio`.
    """

    name: str = "constant"
    warmup: float = Field(default=0.0, ge=0, lt=1)
    warmup_epochs: int = Field(default=0, ge=0)
    final_ratio: float = Field(default=0.01, ge=0, le=1)
    unit: Literal["step", "epoch"] = "step"
    factor: float = Field(default=0.5, gt=0, lt=1)
    every_epochs: int = Field(default=10, ge=1)
    patience: int = Field(default=5, ge=0)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        SCHEDULES.get(name)
        return name

    @model_validator(mode="after")
    def _warms_up_in_its_own_unit(self) -> ScheduleConfig:
        """Refuse a warm-up that the schedule would pass over."""
        if self.warmup_epochs and self.name != "cosine_epochs":
            raise ValueError(f"warmup_epochs is for cosine_epochs; give {self.name} a warmup, a share of the run")
        if self.warmup and self.name == "cosine_epochs":
            raise ValueError("warmup is a share of the run; give cosine_epochs its warmup_epochs")
        return self


class ValidConfig(Config):
    """On what, how and how often a run is validated; `average` is that of the score over the tracks."""

    roots: tuple[str, ...] = ()
    every: int = Field(default=1, ge=1)
    max_seconds: float | None = Field(default=None, gt=0)
    segment_s: float | None = Field(default=None, gt=0)
    overlap: float = Field(default=0.0, ge=0, le=0.9)
    batch_size: int = Field(default=4, ge=1)
    average: Literal["mean", "median"] = "mean"


class SolverConfig(Config):
    """How to train; the config of a task adds what to train on what.

    `batch_size` is what all `devices` share: the same recipe trains alike on any number of them. `strategy` is for
    several devices: `ddp_find_unused_parameters_true` is for models of which a step leaves parameters out.
    """

    seed: int = Field(default=42, ge=0)
    batch_size: int = Field(default=4, ge=1)
    accumulate: int = Field(default=1, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    steps_per_epoch: int | None = Field(default=None, ge=1)
    time_budget_s: float | None = Field(default=None, gt=0)
    clock: Literal["wall", "cpu"] = "wall"
    """What the seconds of a run are: `cpu` counts what this process computes, whatever else the machine does."""
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    clip_norm: float | None = Field(default=5.0, gt=0)
    ema: tuple[float, ...] = ()
    """Decays of averages of the weights that are updated after every step."""
    ema_epoch: tuple[float, ...] = ()
    """Decays of averages of the weights that are updated after every epoch."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = Field(default=1, ge=1)
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    threads: int | None = Field(default=None, ge=1)
    num_workers: int = Field(default=1, ge=0)
    checkpoint_every_s: float = Field(default=300.0, gt=0)
    log_every_s: float = Field(default=30.0, gt=0)
    tensorboard: bool = False
    gradient_norms_every: int = Field(default=10, ge=0)
    valid: ValidConfig = ValidConfig()

    @field_validator("ema", "ema_epoch")
    @classmethod
    def _decays(cls, ema: tuple[float, ...]) -> tuple[float, ...]:
        """Refuse decays outside (0, 1) and repeated ones."""
        if len(set(ema)) != len(ema) or not all(0 < decay < 1 for decay in ema):
            raise ValueError("every decay must be between 0 and 1 and stand there once")
        return ema

    @model_validator(mode="after")
    def _has_an_end(self) -> SolverConfig:
        """Refuse a run that would never stop."""
        if self.epochs is None and self.time_budget_s is None:
            raise ValueError("neither epochs nor time_budget_s is set; give the run an end with one of them")
        return self

    @model_validator(mode="after")
    def _schedule_can_be_followed(self) -> SolverConfig:
        """Refuse a schedule that lacks what it goes by."""
        schedule = self.schedule
        if schedule.name == "plateau" and not self.valid.roots:
            raise ValueError("schedule plateau goes by validation scores; name tracks in valid.roots")
        if schedule.name == "cosine_epochs" and self.epochs is None:
            raise ValueError("schedule cosine_epochs goes by epochs; set epochs, or take cosine")
        if self.epochs is not None and schedule.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be fewer than the {self.epochs} epochs of the run")
        return self
