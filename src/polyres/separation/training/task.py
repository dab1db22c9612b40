"""Training separators: the recipe, and the task that the solver runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from polyres.core.config import Config, diff
from polyres.core.errors import ConfigError, TrainingError, WeightsError
from polyres.core.yaml_files import merge
from polyres.datasets.augment.chain import augment_batch
from polyres.datasets.augment.config import AugmentConfig
from polyres.datasets.layouts import find_tracks
from polyres.datasets.stem_files import most_active_excerpt
from polyres.datasets.stems import StemsConfig, StemsDataset
from polyres.datasets.tracks import load_layout_track
from polyres.nn.losses import LOSSES, LossConfig, WeightedLoss
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.registry import load_model
from polyres.separation.training.validation import Cutting, branch_shares, score_tracks
from polyres.separation.variants import variant as named_variant
from polyres.separation.weights import save_separator
from polyres.training.config import SolverConfig
from polyres.training.loading import Prepare
from polyres.training.task import Forward, TrackValidConfig, resolve_roots
from polyres.weights.files import fill

MOST_DIFFERENCES = 3


def load_start(name: str, key: str) -> Separator:
    """Load a model that a recipe names."""
    try:
        model = load_model(name)
    except (WeightsError, ConfigError) as error:
        raise TrainingError(f"{key} is {name!r}: {error}") from error
    if not isinstance(model, Separator):
        raise TrainingError(f"{key} is {name!r}, a bag of {len(model.models)} models; give the weights of one model")
    return model


def start_from(model: Separator, name: str) -> None:
    """Give a model the weights that `init` names.

    `name`: a weight file, a run folder, or a name of `polyres models`. Raises TrainingError if they cannot be loaded or
    are those of another model; names the first tensor that differs.
    """
    source = load_start(name, "init")
    try:
        fill(model, source.state_dict(), name)
    except WeightsError as error:
        differences = diff(source.config, model.config)
        shown = [f"{key} {there!r} there, {here!r} here" for key, (there, here) in differences.items()]
        more = f" and {len(shown) - MOST_DIFFERENCES} more" if len(shown) > MOST_DIFFERENCES else ""
        raise TrainingError(
            f"init does not fit the recipe's model: {error} ({'; '.join(shown[:MOST_DIFFERENCES])}{more})"
        ) from error


PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class DistilConfig(Config):
    """From whom to learn, and how much.

    `weight`: share of the teacher in what is minimised, 0 to 1; the true stems have the rest.
    """

    teacher: str  # a weight file, a run folder, or a name of `polyres models`
    weight: float = Field(default=0.5, ge=0, le=1)
    kind: str = "l1"  # name of the distance between the two models' estimates, such as `l1` or `share`

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        """Refuse unknown names."""
        LOSSES.get(kind)
        return kind


class Teacher:
    """A frozen model and the distance to it. It is no part of the student, so no checkpoint holds it."""

    def __init__(self, config: DistilConfig, student: SeparatorConfig, loss: LossConfig, precision: str) -> None:
        self.model = load_start(config.teacher, "distil.teacher").requires_grad_(False)
        for key in ("sources", "sample_rate_hz", "audio_channels"):
            wanted, given = getattr(student, key), getattr(self.model, key)
            if wanted != given:
                raise TrainingError(
                    f"distil.teacher {config.teacher!r} has {key} {given!r} but the recipe's model {wanted!r}; "
                    "give a teacher with the same"
                )
        distance = {"terms": {config.kind: 1.0}, "branch_weight": 0.0}
        self._loss = WeightedLoss(loss.with_values(distance), len(student.sources))
        self._dtype = PRECISIONS.get(precision)

    def distance(self, mix: Tensor, estimate: Tensor) -> Tensor:
        """Compare estimates of a mixture with the teacher's.

        `mix`: `[B, C, T]`; `estimate`: the student's `[B, S, C, T]`, which alone gets a gradient.
        """
        model = self.model.to(mix.device)
        with torch.no_grad(), torch.autocast(mix.device.type, self._dtype, enabled=self._dtype is not None):
            taught = model(mix)
        return self._loss.to(mix.device)(estimate, taught.to(estimate.dtype))[0]


class TrainConfig(SolverConfig):
    """A recipe: which separator is trained, on what, and how.

    `variant` names a row of the table of separators; `model` then says only what differs from it. Roots of data are
    relative to `data_dir`, which is usually set on the command line. `init` names weights to start from: a weight
    file, a run folder (its best) or a model known by name. The seed of the run takes the place of that of the data.
    """

    variant: str | None = None
    model: SeparatorConfig = SeparatorConfig()
    data_dir: str | None = None
    data: StemsConfig
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    distil: DistilConfig | None = None
    init: str | None = None
    valid: TrackValidConfig = TrackValidConfig()

    @model_validator(mode="before")
    @classmethod
    def _start_from_variant(cls, given: Any) -> Any:
        """Lay the model's values over those of the named variant."""
        if isinstance(given, Mapping) and given.get("variant") is not None:
            model = given.get("model", {})
            if isinstance(model, Mapping):
                return {**given, "model": merge(named_variant(str(given["variant"])).to_dict(), model)}
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        """Refuse data that does not sound like what the model expects."""
        for key in ("sources", "sample_rate_hz", "audio_channels"):
            wanted, given = getattr(self.model, key), getattr(self.data, key)
            if wanted != given:
                raise ValueError(f"data.{key} is {given!r} but model.{key} is {wanted!r}; make them equal")
        if self.augment.sample_rate_hz != self.model.sample_rate_hz:
            raise ValueError("augment.sample_rate_hz and model.sample_rate_hz differ; make them equal")
        if self.loss.branch_weight:
            branch_shares(self.model)
        return self


def augmented(config: AugmentConfig, stems: Tensor, generator: torch.Generator) -> Tensor:
    """Augment a batch of stems `[B, S, C, T]`."""
    return augment_batch(stems, config, generator)


class SeparationTask:
    """Trains a separator to give back the stems of mixtures."""

    def __init__(self, config: TrainConfig, goes_on: bool = False) -> None:
        """Find the data and build the loss.

        `goes_on`: whether a checkpoint will replace the weights, so that those of `init` are not needed. Raises
        TrainingError if a root of the data, the teacher or the weights of `init` are not there, or do not suit;
        InputError if a root has no tracks, or one cannot be read; ConfigError if some source is in no track.
        """
        self.config = config
        paths = resolve_roots(tuple(root.path for root in config.data.roots), config.data_dir)
        roots = [{**root.to_dict(), "path": path} for root, path in zip(config.data.roots, paths, strict=True)]
        # Now, so that what is wrong with the data shows before there is a run.
        self._source = StemsDataset(config.data.with_values({"roots": roots, "seed": config.seed}))
        valid = config.valid
        roots_of_valid = resolve_roots(valid.roots, config.data_dir)
        self._valid_files = [
            track
            for root in roots_of_valid
            for track in find_tracks(root, valid.layout, valid.split, config.model.sources)
        ]
        self._loss = WeightedLoss(config.loss, len(config.model.sources))
        self._shares = branch_shares(config.model) if config.loss.branch_weight else None
        self._teacher: Teacher | None = None
        if config.distil is not None and config.distil.weight:
            self._teacher = Teacher(config.distil, config.model, config.loss, config.precision)
        self._init = None if goes_on else config.init
        if self._init is not None:
            self.build_model()  # weights that do not fit must show now too
        self._excerpts: list[Tensor] | None = None

    @property
    def warnings(self) -> list[str]:
        """One line for each track of the training data with stems that are padded."""
        return self._source.warnings

    def build_model(self) -> Separator:
        """Return the separator, with the weights of `init` if there are any."""
        model = Separator(self.config.model, seed=self.config.seed)
        if self._init is not None:
            start_from(model, self._init)
        return model

    def build_source(self) -> StemsDataset:
        """Return the training segments."""
        return self._source

    def build_prepare(self) -> Prepare:
        """Return the augmentation of batches of stems `[B, S, C, T]`."""
        return partial(augmented, self.config.augment)

    def losses(self, forward: Forward, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare the separated mixture with its stems `[B, S, C, T]`, and with the teacher's."""
        mix, loss = batch.sum(dim=1), self._loss.to(batch.device)
        if self._shares is None:
            estimate = forward(mix)
            total, terms = loss(estimate, batch)
        else:
            estimate, waves = forward(mix, None, True)
            total, terms = loss(estimate, batch)
            part, of_branches = loss.branches(waves, batch, self._shares, self.config.model.n_fft)
            total, terms = total + self.config.loss.branch_weight * part, terms | of_branches
        if self._teacher is None or self.config.distil is None:
            return total, terms
        taught, weight = self._teacher.distance(mix, estimate), self.config.distil.weight
        return (1 - weight) * total + weight * taught, {**terms, "distil": taught.detach()}

    def validate(self, forward: Forward) -> dict[str, float]:
        """Return nSDR on the validation tracks: mean, per source, and per source of every resolution alone."""
        valid, model = self.config.valid, self.config.model
        if self._excerpts is None and valid.max_seconds is not None:
            self._excerpts = list(self._load_tracks())
        # Whole tracks may be too much to keep.
        tracks = self._excerpts if self._excerpts is not None else self._load_tracks()
        size = round(valid.segment_s * model.sample_rate_hz) if valid.segment_s else model.segment_samples
        cutting = Cutting(size, valid.overlap, valid.batch_size)
        # A single branch alone would score as the whole does.
        alone = valid.branches and (len(model.n_fft) > 1 or model.wave_branch)
        return score_tracks(forward, tracks, model.sources, cutting, model.n_fft if alone else (), valid.average)

    def _load_tracks(self) -> Iterator[Tensor]:
        """Read the validation tracks, or their excerpts, one after another."""
        valid, model = self.config.valid, self.config.model
        for files in self._valid_files:
            stems = load_layout_track(files, model.sources, model.sample_rate_hz, model.audio_channels)
            if valid.max_seconds is not None:
                length = round(valid.max_seconds * model.sample_rate_hz)
                stems = most_active_excerpt(stems, length, model.sample_rate_hz).clone()
            yield stems

    def describe(self, model: Separator) -> dict[str, Any]:
        """Return the fusion weights."""
        return {"fusion": {name: weights.tolist() for name, weights in model.fusion_weights().items()}}

    def gradient_norms(self, model: Separator) -> dict[str, float]:
        """Return the L2 norms of the gradients of every branch (`branch@4096`) and of all else that is learned."""
        parts: dict[str, list[Tensor]] = {}
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                part, place, *_ = name.split(".")
                key = f"branch@{model.config.n_fft[int(place)]}" if part == "branches" else part
                parts.setdefault(key, []).append(parameter.grad.detach())
        if not parts:
            return {}
        # One transfer from the device for all parts.
        norms = torch.stack([torch.stack(torch._foreach_norm(grads)).norm() for grads in parts.values()])
        return dict(zip(parts, norms.tolist(), strict=True))

    def export(self, model: Separator, path: Path, card: Mapping[str, Any]) -> None:
        """Write weights that `polyres separate --model` reads."""
        save_separator(model, path, card, dtype="fp32")
