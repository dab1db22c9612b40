"""Analyse a whole study: screening, summaries, tests and mixed models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from polyres.core.errors import InputError
from polyres.listen.analysis.metrics_against_ratings import Correlation, correlate
from polyres.listen.analysis.mixed import Agreement, Contrast, MixedModel, agreement, mixed_model
from polyres.listen.analysis.pairs import PairAnswers, Strength, pair_answers, preference_strengths
from polyres.listen.analysis.ratings import SIMULATED_PREFIX, Rating, RatingCheck
from polyres.listen.analysis.statistics import (
    ConditionSummary,
    PairTests,
    Scores,
    Screening,
    compare,
    excluded,
    scores_of,
    screen,
    summarise,
)
from polyres.listen.design.files import PAIR_KINDS, ListenStudy
from polyres.metrics.aggregate import MIN_TRACKS, holm

LEVEL = 0.05


@dataclass(frozen=True)
class PairLine:
    """Two systems compared in every way; p-values of a block are Holm-corrected over its lines."""

    tests: PairTests  # differences and tests without a model, p-values uncorrected
    mixed: Contrast | None  # contrast of score ~ condition + (1|listener) + (1|item), p-value uncorrected; None without
    full: Contrast | None  # the same with interactions
    wilcoxon_holm: float  # corrected
    permutation_holm: float  # corrected
    t_holm: float  # corrected
    full_holm: float  # corrected; NaN without a model

    @property
    def verdict(self) -> str:
        """Return "better", "worse" or "undecided"."""
        sure = self.tests.listeners >= MIN_TRACKS and self.wilcoxon_holm < LEVEL
        if sure and self.tests.low > 0:
            return "better"
        if sure and self.tests.high < 0:
            return "worse"
        return "undecided"


@dataclass(frozen=True)
class Block:
    """Results of one attribute, over all stems or one, with or without the listeners that screening leaves out."""

    attribute: str
    stem: str  # name; empty for all
    screened: bool  # whether listeners were left out
    scores: Scores  # what the rest rests on
    summaries: list[ConditionSummary]  # one per condition
    pairs: list[PairLine]  # every two systems; where there is one system, it against each other condition
    mixed: MixedModel | None  # of the compared conditions; None where listeners or ratings are too few for it
    full: MixedModel | None  # the same with interactions
    agreement: Agreement  # of the listeners, over all conditions

    @property
    def name(self) -> str:
        """The name of the block as file names have it."""
        stem = [self.stem] if self.stem else []
        return "_".join(["scores", self.attribute, *stem, "screened" if self.screened else "all"])


@dataclass(frozen=True)
class PairBlock:
    """Results of one attribute of an abx or ab study."""

    attribute: str
    answers: list[PairAnswers]  # one line per pair
    holm: list[float]  # corrected p-values over listeners, of each line
    strengths: list[Strength]  # ab only


@dataclass(frozen=True)
class Analysis:
    """All results of a study."""

    study: ListenStudy  # what was asked
    listeners: int  # how many answered
    simulated: int  # how many of them are simulated
    complete: int  # how many answered everything that their plan asked for at least once
    ratings: int  # answers that count
    screening: list[Screening]  # one line per listener and attribute
    blocks: list[Block]  # results, those without exclusion first; empty for abx and ab
    pairs: list[PairBlock]  # results of abx and ab
    correlations: dict[str, list[Correlation]]  # attribute -> objective metrics against ratings
    seed: int  # of all draws

    def to_dict(self) -> dict[str, Any]:
        """Return plain values as JSON holds them; NaN becomes None, conditions get their labels."""
        labels = {condition.id: condition.label for condition in self.study.conditions}
        plain = {
            "study": self.study.name,
            "kind": self.study.kind,
            "listeners": self.listeners,
            "simulated_listeners": self.simulated,
            "complete_listeners": self.complete,
            "ratings": self.ratings,
            "seed": self.seed,
            "conditions": {condition.id: condition.to_dict() for condition in self.study.conditions},
            "screening": [asdict(line) for line in self.screening],
            "blocks": [_block_dict(block) for block in self.blocks],
            "pairs": [asdict(block) for block in self.pairs],
            "correlations": {name: [asdict(line) for line in lines] for name, lines in self.correlations.items()},
            "labels": labels,
        }
        clean: dict[str, Any] = _without_nan(plain)
        return clean


def _block_dict(block: Block) -> dict[str, Any]:
    models = {
        name: None if model is None else {"formula": model.formula, "means": dict(model.means), "sds": dict(model.sds)}
        for name, model in (("mixed", block.mixed), ("full", block.full))
    }
    return {
        "attribute": block.attribute,
        "stem": block.stem,
        "screened": block.screened,
        "listeners": list(block.scores.listeners),
        "items": list(block.scores.items),
        "summaries": [asdict(line) for line in block.summaries],
        "pairs": [{**asdict(line), "verdict": line.verdict} for line in block.pairs],
        "agreement": asdict(block.agreement),
        **models,
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def analyse(
    study: ListenStudy,
    ratings: Sequence[Rating],
    metric_rows: Sequence[Mapping[str, Any]] | None = None,
    *,
    seed: int = 0,
    resamples: int = 5000,
) -> Analysis:
    """Analyse a study.

    Args:
        ratings: answers of all listeners; those to training pages are left out.
        metric_rows: objective scores to correlate with, as `read_metric_rows` reads them.

    Raises:
        InputError: if there are no ratings, one is of another study or off its scale, or no objective score belongs to
            it.
    """
    counted = _counted(study, ratings)
    by_listener: dict[str, int] = {}
    for row in counted:
        by_listener[row.listener] = by_listener.get(row.listener, 0) + 1
    most = max(by_listener.values())
    screening = screen(study, counted) if study.kind not in PAIR_KINDS else []
    blocks: list[Block] = []
    pairs: list[PairBlock] = []
    correlations: dict[str, list[Correlation]] = {}
    if study.kind in PAIR_KINDS:
        names = [attribute.name for attribute in study.attributes][: 1 if study.kind == "abx" else None]
        pairs = [_pair_block(study, counted, name, seed) for name in names]
    else:
        blocks = _blocks(study, counted, screening, seed, resamples)
        if metric_rows is not None:
            for block in _last_of_each(blocks):
                correlations[block.attribute] = correlate(study, block.scores, metric_rows, seed=seed)
    return Analysis(
        study,
        len(by_listener),
        sum(name.startswith(SIMULATED_PREFIX) for name in by_listener),
        sum(count == most for count in by_listener.values()),
        len(counted),
        screening,
        blocks,
        pairs,
        correlations,
        seed,
    )


def _counted(study: ListenStudy, ratings: Sequence[Rating]) -> list[Rating]:
    if not ratings:
        raise InputError("there are no ratings yet; collect some, or try the study out with polyres listen simulate")
    check = RatingCheck(study)
    for row in ratings:
        check.check(row)
    pages = {page.id for page in study.pages}
    counted = [row for row in ratings if row.page in pages]
    if not counted:
        raise InputError("only training pages have ratings yet; collect some of the test itself")
    return counted


def _blocks(
    study: ListenStudy, ratings: Sequence[Rating], screening: Sequence[Screening], seed: int, resamples: int
) -> list[Block]:
    stems = [stem for stem in dict.fromkeys(page.stem for page in study.pages) if stem]
    parts = ["", *(stems if len(stems) > 1 else [])]
    blocks = []
    for attribute in study.attributes:
        left_out = excluded(screening, attribute.name)
        everyone = {row.listener for row in ratings if row.attribute == attribute.name}
        # Where nobody or everybody would be left out, there is one way to look at the ratings.
        ways = [set(), left_out] if left_out and left_out != everyone else [set()]
        for without in ways:
            for stem in parts:
                try:
                    scores = scores_of(study, ratings, attribute.name, without, stem or None)
                except InputError:
                    if not stem and not without:
                        raise
                    continue
                blocks.append(_block(study, scores, attribute.name, stem, bool(without), (seed, resamples)))
    return blocks


def _block(
    study: ListenStudy, scores: Scores, attribute: str, stem: str, screened: bool, draws: tuple[int, int]
) -> Block:
    seed, resamples = draws
    systems = [name for name in scores.conditions if study.condition(name).role == "system"]
    compared = systems if len(systems) > 1 else list(scores.conditions)
    couples = list(combinations(systems, 2)) or [
        (system, other) for system in systems for other in scores.conditions if other != system
    ]
    mixed, full = _models(scores, compared)
    tests = [compare(scores, first, second, seed=seed, resamples=resamples) for first, second in couples]
    return Block(
        attribute,
        stem,
        screened,
        scores,
        summarise(scores, seed=seed, resamples=resamples),
        _pair_lines(tests, mixed, full),
        mixed,
        full,
        agreement(scores),
    )


def _models(scores: Scores, compared: Sequence[str]) -> tuple[MixedModel, MixedModel] | tuple[None, None]:
    columns = [scores.conditions.index(name) for name in compared]
    part = Scores(scores.listeners, scores.items, tuple(compared), scores.values[:, :, columns])
    try:
        return mixed_model(part), mixed_model(part, interactions=True)
    except InputError:
        return None, None


def _pair_lines(tests: Sequence[PairTests], mixed: MixedModel | None, full: MixedModel | None) -> list[PairLine]:
    contrasts = [
        [None if model is None else model.contrast(test.first, test.second) for test in tests]
        for model in (mixed, full)
    ]
    corrected = [
        _holm([test.wilcoxon_p for test in tests]),
        _holm([test.permutation_p for test in tests]),
        _holm([test.t_p for test in tests]),
        _holm([math.nan if contrast is None else contrast.p_value for contrast in contrasts[1]]),
    ]
    return [
        PairLine(test, plain, wide, *values)
        for test, plain, wide, *values in zip(tests, *contrasts, *corrected, strict=True)
    ]


def _holm(p_values: Sequence[float]) -> list[float]:
    """Correct those that are there; NaN stays NaN."""
    there = [number for number, value in enumerate(p_values) if not math.isnan(value)]
    result = list(p_values)
    for number, value in zip(there, holm([p_values[number] for number in there]).tolist(), strict=True):
        result[number] = value
    return result


def _pair_block(study: ListenStudy, ratings: Sequence[Rating], attribute: str, seed: int) -> PairBlock:
    answers = pair_answers(study, ratings, attribute)
    strengths = preference_strengths(study, ratings, attribute, seed=seed) if study.kind == "ab" else []
    return PairBlock(attribute, answers, _holm([line.listeners_p for line in answers]), strengths)


def _last_of_each(blocks: Sequence[Block]) -> list[Block]:
    """Return the block over all stems of every attribute, the screened one where there is one."""
    return list({block.attribute: block for block in blocks if not block.stem}.values())
