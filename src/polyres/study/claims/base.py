"""Claims and how they are judged: by intervals over tracks and seeds, by counts, or by arithmetic; never by a p-value.

A claim is about all pairs of arms that can speak to it. It holds where every pair agrees, fails where one contradicts,
and is undecided otherwise, with fewer than 6 tracks, or where an interval includes the bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from polyres.metrics.aggregate import MIN_TRACKS
from polyres.separation.model import SeparatorConfig
from polyres.study.claims.contrasts import Contrast, Term, contrast
from polyres.study.paper.data import METHOD_KEYS, Arm, PaperStudy, Wanted, basis, differences, matches
from polyres.study.paper.weights import Material

HOLDS, FAILS, UNDECIDED, UNTESTABLE = "holds", "fails", "undecided", "not testable on this data"
VERDICTS = (HOLDS, FAILS, UNDECIDED, UNTESTABLE)


@dataclass(frozen=True)
class Evidence:
    """One row of evidence for or against a claim."""

    what: str  # the number, in words
    verdict: str  # what this row alone says
    value: float | None = None  # the number; None where words say it all
    low: float | None = None  # lower end of its 95 % interval
    high: float | None = None  # upper end
    unit: str = ""  # of the three
    tracks: int | None = None  # it rests on
    seeds: int | None = None  # fewest seeds of an arm
    study: str | None = None  # it comes from; None for arithmetic
    runs: tuple[str, ...] = ()  # it comes from
    notes: str = ""  # what a reader should know


Test = Callable[[Material], list[Evidence]]


@dataclass(frozen=True)
class Claim:
    """A claim of the notes."""

    key: str  # short name
    place: str  # where the notes or the draft say it
    statement: str  # what they say
    needs: str  # what a study must have for a test
    test: Test  # finds the evidence


@dataclass(frozen=True)
class Judged:
    """A claim, its verdict and the evidence."""

    claim: Claim
    verdict: str
    evidence: tuple[Evidence, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        about = {name: getattr(self.claim, name) for name in ("key", "place", "statement", "needs")}
        return {**about, "verdict": self.verdict, "evidence": [_plain(one) for one in self.evidence]}


def _plain(evidence: Evidence) -> dict[str, Any]:
    values = asdict(evidence)
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def judge(claims: Sequence[Claim], material: Material) -> list[Judged]:
    """Test claims on a study."""
    judged = []
    for claim in claims:
        evidence = tuple(claim.test(material))
        judged.append(Judged(claim, combine([one.verdict for one in evidence]), evidence))
    return judged


def combine(verdicts: Sequence[str]) -> str:
    """Combine the verdicts of its evidence to that of a claim."""
    counted = [verdict for verdict in verdicts if verdict != UNTESTABLE]
    if not counted:
        return UNTESTABLE
    if FAILS in counted:
        return FAILS
    return HOLDS if all(verdict == HOLDS for verdict in counted) else UNDECIDED


@dataclass(frozen=True)
class Rule:
    """What an interval must show for a claim to hold."""

    kind: Literal["above", "below", "within", "no_worse"] = "above"  # `within` ± the bound, `no_worse` than minus it
    bound: float = 0.0  # in the unit of the metric

    def verdict(self, found: Contrast) -> str:
        """Judge a contrast."""
        low, high, bound = found.low, found.high, self.bound
        if found.tracks < MIN_TRACKS or math.isnan(low) or math.isnan(high):
            return UNDECIDED
        holds, fails = {
            "above": (low > bound, high < bound),
            "below": (high < bound, low > bound),
            "within": (low > -bound and high < bound, low > bound or high < -bound),
            "no_worse": (low > -bound, high < 0),
        }[self.kind]
        if holds:
            return HOLDS
        return FAILS if fails else UNDECIDED

    def text(self, unit: str) -> str:
        """Word what is asked."""
        bound = f"{self.bound:g} {'' if unit == '1' else unit}".strip()
        return {
            "above": f"interval above {bound}",
            "below": f"interval below {bound}",
            "within": f"interval within ±{bound}",
            "no_worse": f"interval above −{bound}",
        }[self.kind]


def score_evidence(found: Contrast, rule: Rule, what: str, study: PaperStudy, arms: Sequence[Arm]) -> Evidence:
    """Turn a contrast and its verdict into a row."""
    notes = [rule.text(found.unit)]
    if found.tracks < MIN_TRACKS:
        notes.append(f"fewer than {MIN_TRACKS} tracks")
    if found.seeds < 2:
        notes.append("one seed: the interval knows of tracks only")
    if len(arms) == 2:
        keys = [key.removeprefix("model.") for key in differences(arms[0], arms[1])]
        notes.append(f"they differ in {', '.join(keys)}")
    runs = tuple(run.name for arm in arms for run in arm.runs)
    return Evidence(
        what,
        rule.verdict(found),
        found.value,
        found.low,
        found.high,
        "" if found.unit == "1" else found.unit,
        found.tracks,
        found.seeds,
        study.name,
        tuple(dict.fromkeys(runs)),
        "; ".join(notes),
    )


def count_evidence(name: str, label: str, study: PaperStudy, less: Arm, more: Arm) -> Evidence | None:
    """Say whether one arm costs less than another; None where a cost is not known.

    What is counted (MACs, parameters) is the same in every run. Times are undecided unless both arms have two runs or
    more and the ranges of their runs do not overlap.
    """
    first, second = less.costs(name), more.costs(name)
    if not first or not second:
        return None
    ratio = (sum(first) / len(first)) / (sum(second) / len(second))
    measured = name.endswith("_s") and name != "macs_per_s"
    if measured and min(len(first), len(second)) < 2:
        verdict, notes = UNDECIDED, "a time, measured once"
    elif max(first) < min(second):
        verdict, notes = HOLDS, ""
    elif min(first) >= max(second):
        verdict, notes = FAILS, ""
    else:
        verdict, notes = UNDECIDED, "the runs overlap"
    runs = tuple(run.name for arm in (less, more) for run in arm.runs)
    what = f"{label}: {less.name} / {more.name}"
    return Evidence(
        what, verdict, ratio, unit="×", seeds=min(len(first), len(second)), study=study.name, runs=runs, notes=notes
    )


Sources = tuple[str, ...] | None
MEAN: tuple[Sources, ...] = (None,)
ABOVE = Rule("above")
MARGIN_DB = 0.1
"""Differences within this are called none."""
NO_WORSE = Rule("no_worse", MARGIN_DB)
SAME = Rule("within", MARGIN_DB)
EACH: tuple[Sources, ...] = (("drums",), ("bass",), ("other",), ("vocals",))


@dataclass(frozen=True)
class Pairs:
    """The arms that a claim compares."""

    first: Wanted  # says which models are meant by its first side
    second: Wanted  # the same of the other side
    may: Sequence[str] = ()  # beginnings of dotted keys in which they may differ
    must: Sequence[str] = ()  # beginnings of which each must tell them apart
    fits: Callable[[SeparatorConfig, SeparatorConfig], bool] = lambda first, second: True  # of both models together
    settings: Callable[[Arm, Arm], bool] = lambda first, second: True  # looks at both recipes together

    def find(self, material: Material) -> Iterator[tuple[PaperStudy, Arm, Arm]]:
        """Yield the pairs."""
        for study, first, second in matches(material.studies, self.first, self.second, self.may, self.must):
            if first.model is None or second.model is None:
                continue
            if self.fits(first.model, second.model) and self.settings(first, second):
                yield study, first, second


def pair_text(first: Arm, second: Arm) -> str:
    """Name a pair, on what footing it trained and what else tells the two apart."""
    return f"{first.name} − {second.name} ({basis(first, second)})"


def score_test(pairs: Pairs, rule: Rule, groups: Sequence[Sources] = MEAN, metrics: Sequence[str] = ()) -> Test:
    """Return a test of the first arm's scores less the second's."""

    def test(material: Material) -> list[Evidence]:
        rows = []
        for study, first, second in pairs.find(material):
            for metric in metrics or (study.primary,):
                for sources in groups:
                    terms = [Term(1, first, sources), Term(-1, second, sources)]
                    found = contrast(study, terms, metric)
                    if found is not None:
                        stems = "all stems" if sources is None else ", ".join(sources)
                        what = f"{metric}, {stems}: {pair_text(first, second)}"
                        rows.append(score_evidence(found, rule, what, study, (first, second)))
        return rows

    return test


def cost_test(pairs: Pairs, name: str, label: str) -> Test:
    """Return a test that the first arm costs less than the second."""

    def test(material: Material) -> list[Evidence]:
        found = (count_evidence(name, label, *pair) for pair in pairs.find(material))
        return [one for one in found if one is not None]

    return test


def untestable(key: str, place: str, statement: str, needs: str) -> Claim:
    """Return a claim that no study can test."""
    return Claim(key, place, statement, needs, lambda material: [])


def multi(model: SeparatorConfig) -> bool:
    """Say whether a model has several resolutions."""
    return len(model.n_fft) > 1


def single(model: SeparatorConfig) -> bool:
    """Say whether a model is HTDemucs: one resolution of 4096 samples and a wave branch."""
    return model.n_fft == (4096,) and model.wave_branch


def listens(*n_fft: int) -> Wanted:
    """Return a test for models with just these resolutions."""
    return lambda model: model.n_fft == n_fft


def output(*kinds: str) -> Wanted:
    """Return a test for models of several resolutions with one of these output fusions, learned from an even start."""
    return lambda model: (
        multi(model) and model.output.kind in kinds and model.output.learned and model.output.favour_n_fft is None
    )


SAME_WIDTH = Pairs(multi, single, METHOD_KEYS, ("model.n_fft",))
HALF_WIDTH = Pairs(
    multi,
    single,
    METHOD_KEYS,
    ("model.n_fft", "model.channels"),
    fits=lambda first, second: second.channels == 2 * first.channels,
)
