"""Study files: a recipe, the arms that differ from it, seeds, and what the results are scored on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from polyres.core.config import Config
from polyres.datasets.layouts import check_split
from polyres.study.evaluate.run import check_metrics
from polyres.synth.cache import MadeConfig, is_made, root_of

RECIPE_KEY = "recipe"

_ARM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


class StudyDataConfig(Config):
    """What the trained models are scored on.

    `roots` are folders or `make: {...}`, relative to the data folder. In a mapping, or a list of several, they have
    labels, which come before the names of their tracks (`electronic/song_3`) and are what scores by style go by.
    """

    roots: Mapping[str, str]
    layout: str = "stems"
    split: Literal["all", "train", "valid", "test"] = "all"
    max_length_s: float | None = Field(default=None, gt=0)
    own_mixture: bool = False

    @field_validator("roots", mode="before")
    @classmethod
    def _labelled(cls, given: Any) -> Any:
        """Name the roots of a list after their folders, and turn `make: {...}` into roots."""
        if isinstance(given, Mapping):
            return {label: root_of(root) for label, root in given.items()}
        if not isinstance(given, list | tuple):
            return given
        roots = [root_of(root) for root in given]
        if len(roots) == 1:
            return {"": roots[0]}
        labels = [_label(root) for root in roots]
        if len(set(labels)) < len(labels):
            raise ValueError("two roots have one name; write them as a mapping of labels to roots")
        return dict(zip(labels, roots, strict=True))

    @model_validator(mode="after")
    def _is_whole(self) -> StudyDataConfig:
        """Refuse no roots, labels that are no names, and splits that a layout does not have."""
        if not self.roots:
            raise ValueError("no roots; name at least one folder of tracks")
        for label in self.roots:
            if label and not _ARM_NAME.fullmatch(label):
                raise ValueError(f"the label {label!r} is no plain name; use letters, digits, _ . + -")
        check_split(self.layout, self.split)
        return self


def _label(root: Any) -> str:
    """Name a root after its folder, or after what is made."""
    text = str(root)
    return MadeConfig.from_root(text).kind if is_made(text) else PurePath(text).name


class StudyBudgetConfig(Config):
    """What all arms get alike: `steps` is checked, `seconds` of training are given to every arm in place of epochs."""

    equal: Literal["steps", "seconds"] = "steps"
    seconds: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _says_how_long(self) -> StudyBudgetConfig:
        """Refuse seconds where steps are equal, and equal seconds without a number."""
        if (self.equal == "seconds") != (self.seconds is not None):
            raise ValueError("equal: seconds needs a number of seconds, equal: steps takes none")
        return self


class SeparationConfig(Config):
    """How the trained models separate when they are scored."""

    overlap: float = Field(default=0.25, ge=0, le=0.99)
    shifts: int = Field(default=0, ge=0)


class StudyConfig(Config):
    """A study file.

    Args:
        name: of the study, for folders; that of the file if None.
        title: for people.
        question: what the study answers, in one sentence.
        recipe: what all arms start from, relative to the study file.
        common: nested or dotted values over the recipe that hold for all arms.
        arms: name to what makes the arm differ: nested or dotted values, over the recipe or over its own `recipe`.
        seeds: every arm is trained with each.
        data: what is scored on.
        metrics: names of metrics.
        primary: the metric that decides; the first one if None.
        reference: the arm that the others are compared with; None compares nothing.
        budget: what all arms get alike.
        parts: score every resolution alone and all but each, too.
        separation: how to separate for the scores.
        watts_per_core: what a busy core is assumed to draw, for the estimate of energy.
    """

    name: str | None = None
    title: str = Field(min_length=1)
    question: str = Field(min_length=1)
    recipe: str = Field(min_length=1)
    common: Mapping[str, Any] = {}
    arms: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...] = (1, 2, 3)
    data: StudyDataConfig
    metrics: tuple[str, ...] = ("nsdr", "sdr")
    primary: str | None = None
    reference: str | None = None
    budget: StudyBudgetConfig | None = None
    parts: bool = False
    separation: SeparationConfig = SeparationConfig()
    watts_per_core: float = Field(default=10.0, gt=0)

    @field_validator("arms")
    @classmethod
    def _named(cls, arms: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
        """Refuse no arms, and names that make no folder."""
        if not arms:
            raise ValueError("no arms; name at least one")
        for name in arms:
            if not _ARM_NAME.fullmatch(name):
                raise ValueError(f"the name {name!r} makes no folder; use letters, digits, _ . + -")
        return arms

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        """Refuse no seeds, negative ones and repeated ones."""
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("one or more distinct numbers, 0 or more")
        return seeds

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse unknown metrics."""
        if not metrics:
            raise ValueError("no metrics; name at least one, such as nsdr")
        return check_metrics(metrics)

    @model_validator(mode="after")
    def _refers_to_what_is_there(self) -> StudyConfig:
        """Refuse a primary metric that is not measured and a reference that is no arm."""
        if self.primary is not None and self.primary not in self.metrics:
            raise ValueError(f"primary {self.primary!r} is not among the metrics {', '.join(self.metrics)}")
        if self.reference is not None and self.reference not in self.arms:
            raise ValueError(f"reference {self.reference!r} is no arm; the arms are {', '.join(self.arms)}")
        return self


def find_studies(folder: Path) -> list[Path]:
    """Return the YAML files in a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml"))
