"""Studies made up for the tests: rows with known effects, and run folders of tiny models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from polyres.metrics.catalogue import METRICS
from polyres.nn.fusion.base import FusionConfig
from polyres.nn.transformer import TransformerConfig
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.weights import save_separator
from polyres.study.evaluate.rows import ScoreRow
from polyres.study.run.files import (
    BASELINES_FILE,
    Arm,
    Cost,
    Study,
    model_name,
    read_rows,
    run_folder,
    write_costs,
    write_rows,
    write_study,
)
from polyres.training.run_folder import BEST_FILE, CONFIG_FILE

RATE_HZ = 8000
SOURCES = ("drums", "bass", "other", "vocals")
TINY = SeparatorConfig(
    sample_rate_hz=RATE_HZ,
    segment_samples=8192,
    channels=4,
    norm_starts=9,
    head="mask",
    transformer=TransformerConfig(kind="none"),
    output=FusionConfig(kind="source_weights"),
)


@dataclass(frozen=True)
class MadeArm:
    """An arm: how its model differs from TINY, and how much better its scores are.

    `gain` is added to all scores; `gains` by source on top; `parts` are scored with their losses taken off.
    """

    name: str
    model: Mapping[str, Any] = field(default_factory=dict)
    gain: float = 0.0
    gains: Mapping[str, float] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    wobble: float = 0.0
    scored: bool = True
    macs_per_s: float | None = 1e9
    weights: bool = False


@dataclass(frozen=True)
class Made:
    """What a study is made of; `share` is what an equal share of the mixture scores, None leaves both baselines out."""

    arms: Sequence[MadeArm]
    tracks: int = 8
    seeds: tuple[int, ...] = (1, 2, 3)
    steps: int = 1000
    share: float | None = 1.0
    metrics: tuple[str, ...] = ("nsdr",)
    name: str = "made"
    roots: Mapping[str, str] = field(default_factory=lambda: {"": "nowhere"})


def track_name(number: int) -> str:
    """Tracks of two styles in turn."""
    return f"{('calm', 'loud')[number % 2]}/song {number}"


def write_made(folder: Path, made: Made) -> Path:
    """Write a study; scores are 3 dB plus a tenth per track plus the gains."""
    rows, costs = [], []
    for arm in made.arms:
        for place, seed in enumerate(made.seeds):
            _write_run(folder, arm, seed)
            times = (60.0, 60.0, made.steps, None, 10.0, "cpu", 5.0)
            costs.append(Cost(arm.name, seed, "f" * 16, 1000, arm.macs_per_s, *times))
            for part, loss in {"all": 0.0, **arm.parts}.items():
                extra = arm.gain - loss + arm.wobble * (place - (len(made.seeds) - 1) / 2)
                rows += _rows(made, model_name(arm.name, seed), part, arm, extra) if arm.scored else []
    write_rows(folder, rows)
    for name, score in (("silence", 0.0), ("share", made.share)):
        if score is not None and made.share is not None:
            at = _rows(made, name, "all", MadeArm(name), score - 3)
            write_rows(folder, [*read_rows(folder, BASELINES_FILE), *at], BASELINES_FILE)
    write_costs(folder, costs)
    data = {"roots": dict(made.roots), "layout": "stems", "split": "all", "max_length_s": None}
    arms = tuple(Arm(arm.name, {"model": dict(arm.model)}) for arm in made.arms)
    about = (made.name, f"Title of {made.name}", "Does it work?", "base.yaml", made.arms[0].name, made.metrics[0])
    write_study(folder, Study(*about, made.metrics, data, arms, made.seeds, "abc", {}, {"equal": "steps"}))
    return folder


def _rows(made: Made, model: str, part: str, arm: MadeArm, extra: float) -> list[ScoreRow]:
    rows = []
    for metric in made.metrics:
        sign = 1 if METRICS.build(metric).direction == "higher" else -1
        for number in range(made.tracks):
            for source in SOURCES:
                value = 3 + 0.1 * number + sign * (extra + arm.gains.get(source, 0.0))
                rows.append(ScoreRow(model, part, track_name(number), source, metric, "dB", value))
    return rows


def _write_run(folder: Path, arm: MadeArm, seed: int) -> None:
    run = run_folder(folder, arm.name, seed)
    run.mkdir(parents=True)
    config = TINY.with_values(dict(arm.model))
    recipe = {"seed": seed, "epochs": 2, "steps_per_epoch": 5, **arm.recipe, "model": config.to_dict()}
    (run / CONFIG_FILE).write_text(yaml.safe_dump(recipe))
    if arm.weights:
        save_separator(Separator(config, seed=seed), run / BEST_FILE)
