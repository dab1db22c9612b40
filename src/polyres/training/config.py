"""What the training loop can be told, whatever it trains."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from polyres.core.config import Config
from polyres.training.optim import OPTIMISERS, SCHEDULES


class OptimiserConfig(Config):
    """Which optimiser moves the weights, and how fast."""

    name: str = "adam"
    lr: float = Field(default=3e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        """Refuse unknown names."""
        OPTIMISERS.get(name)
        return name


class ScheduleConfig(Config):
    """How the learning rate changes; shares are of the whole run, be it counted in steps, epochs or seconds."""

    name: str = "constant"
    warmup: float = Field(default=0.0, ge=0, lt=1)
    final_ratio: float = Field(default=0.01, ge=0, le=1)
    unit: Literal["step", "epoch"] = "step"

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        """Refuse unknown names."""
        SCHEDULES.get(name)
        return name


class ValidConfig(Config):
    """On what, how and how often a run is validated."""

    roots: tuple[str, ...] = ()
    every: int = Field(default=1, ge=1)
    max_seconds: float | None = Field(default=None, gt=0)
    segment_s: float | None = Field(default=None, gt=0)
    overlap: float = Field(default=0.0, ge=0, le=0.9)
    batch_size: int = Field(default=4, ge=1)


class SolverConfig(Config):
    """How to train; the config of a task adds what to train on what."""

    seed: int = Field(default=42, ge=0)
    batch_size: int = Field(default=4, ge=1)
    accumulate: int = Field(default=1, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    steps_per_epoch: int | None = Field(default=None, ge=1)
    time_budget_s: float | None = Field(default=None, gt=0)
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    clip_norm: float | None = Field(default=5.0, gt=0)
    ema: tuple[float, ...] = ()
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    threads: int | None = Field(default=None, ge=1)
    num_workers: int = Field(default=1, ge=0)
    checkpoint_every_s: float = Field(default=300.0, gt=0)
    log_every_s: float = Field(default=30.0, gt=0)
    gradient_norms_every: int = Field(default=10, ge=0)
    valid: ValidConfig = ValidConfig()

    @field_validator("ema")
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
