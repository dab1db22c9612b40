"""Training separators: the recipe, and the task that the solver runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import model_validator
from torch import Tensor

from polyres.core.yaml_files import merge
from polyres.datasets.activity import most_active_excerpt
from polyres.datasets.augment.chain import AugmentConfig, augment_batch
from polyres.datasets.stems import StemsConfig, StemsDataset, find_tracks, load_layout_track
from polyres.nn.losses import LossConfig, WeightedLoss
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.training.start import DistilConfig, Teacher, start_from
from polyres.separation.training.validation import Cutting, branch_shares, score_tracks
from polyres.separation.variants import variant as named_variant
from polyres.separation.weights import save_separator
from polyres.training.config import SolverConfig
from polyres.training.loading import Prepare
from polyres.training.task import Forward, TrackValidConfig, resolve_roots


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
