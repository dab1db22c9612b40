"""Claims and how they are judged: by intervals over tracks and seeds, by counts, or by arithmetic; never by a p-value.

A claim is about all pairs of arms that can speak to it. It holds where every pair agrees, fails where one contradicts,
and is undecided otherwise: where an interval includes the bound, or where the arms themselves are in doubt (`doubts`).
Without any evidence it is not run, or in need of what nobody here has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from polyres.separation.model import SeparatorConfig
from polyres.study.claims.contrasts import MIN_SEEDS, Contrast, Term, contrast, doubts
from polyres.study.paper.data import METHOD_KEYS, Arm, PaperStudy, Wanted, basis, differences, matches
from polyres.study.paper.weights import Reports

HOLDS, FAILS, UNDECIDED, NOT_RUN, LACKS = "holds", "fails", "undecided", "not run", "needs data or people we lack"
VERDICTS = (HOLDS, FAILS, UNDECIDED, NOT_RUN, LACKS)
ARITHMETIC = "arithmetic"
STUDY_FILES = "recipes/studies/cpu"


@dataclass(frozen=True)
class Material:
    """What claims are judged by."""

    studies: Sequence[PaperStudy] = ()  # with scores and costs
    reports: Reports = field(default_factory=dict)  # fusion reports of runs with several resolutions
    complexity: Mapping[str, Any] = field(default_factory=dict)  # entries of `polyres complexity` by model
    listening: Sequence[Mapping[str, Any]] = ()  # reports of `polyres listen analyse`
    enhancers: Sequence[Mapping[str, Any]] = ()  # rows of benchmarks/enhancers.py
    front_ends: Sequence[Mapping[str, Any]] = ()  # rows of benchmarks/front_ends.py


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
    size: str = ARITHMETIC  # at which size it was tested


Test = Callable[[Material], list[Evidence]]


@dataclass(frozen=True)
class Claim:
    """A claim of the notes.

    Attributes:
        key: short name.
        place: where the notes, the draft or the reports say it.
        statement: what they say.
        needs: what a test rests on.
        test: finds the evidence.
        run: what makes that evidence: the name of a study of `STUDY_FILES`, or a whole command.
        lacks: whether that is data or people that are not at hand.
    """

    key: str
    place: str
    statement: str
    needs: str
    test: Test
    run: str = ""
    lacks: bool = False

    def command(self) -> str:
        """Return the command that makes the evidence."""
        if not self.run or " " in self.run:
            return self.run
        return f"polyres study {STUDY_FILES}/{self.run}.yaml --data DATA"


@dataclass(frozen=True)
class Judged:
    """A claim, its verdict and the evidence."""

    claim: Claim
    verdict: str
    evidence: tuple[Evidence, ...]

    def sizes(self) -> str:
        """Say at which sizes it was tested; nothing where arithmetic decides or nothing does."""
        return "; ".join(dict.fromkeys(one.size for one in self.evidence if one.size != ARITHMETIC))

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        about = {name: getattr(self.claim, name) for name in ("key", "place", "statement", "needs")}
        told = {"command": self.claim.command(), "verdict": self.verdict, "sizes": self.sizes()}
        return {**about, **told, "evidence": [_plain(one) for one in self.evidence]}


def _plain(evidence: Evidence) -> dict[str, Any]:
    """Round numbers, so that another processor writes the same file; what is not a number is None."""
    numbers = {k: v for k, v in asdict(evidence).items() if isinstance(v, float)}
    return {**asdict(evidence), **{k: round(v, 6) if math.isfinite(v) else None for k, v in numbers.items()}}


def judge(claims: Sequence[Claim], material: Material) -> list[Judged]:
    """Test claims on all there is."""
    judged = []
    for claim in claims:
        evidence = tuple(claim.test(material))
        absent = LACKS if claim.lacks else NOT_RUN
        judged.append(Judged(claim, combine([one.verdict for one in evidence]) or absent, evidence))
    return judged


def combine(verdicts: Sequence[str]) -> str | None:
    """Combine the verdicts of its evidence to that of a claim; None without any."""
    if not verdicts:
        return None
    if FAILS in verdicts:
        return FAILS
    return HOLDS if all(verdict == HOLDS for verdict in verdicts) else UNDECIDED


@dataclass(frozen=True)
class Rule:
    """What an interval must show for a claim to hold.

    `within` is a test of equivalence: the 90 % interval lies within ± the bound, which is two one-sided tests at 5 %.

    Source: Schuirmann 1987, A Comparison of the Two One-Sided Tests Procedure.
    """

    kind: Literal["above", "below", "within", "no_worse"] = "above"  # `no_worse` than minus the bound
    bound: float = 0.0  # in the unit of the metric

    def verdict(self, found: Contrast) -> str:
        """Judge a contrast by its interval alone; comparisons with NaN are false, so without one it is undecided."""
        low, high, bound = found.low, found.high, self.bound
        holds, fails = {
            "above": (low > bound, high < bound),
            "below": (high < bound, low > bound),
            "within": (found.inner[0] > -bound and found.inner[1] < bound, low > bound or high < -bound),
            "no_worse": (low > -bound, high < -bound),
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
            "within": f"90 % interval within ±{bound} (two one-sided tests)",
            "no_worse": f"interval above −{bound}",
        }[self.kind]


def size_of(study: PaperStudy, arms: Sequence[Arm]) -> str:
    """Say how large the models, the training and the test were."""
    channels = sorted({arm.model.channels for arm in arms if arm.model is not None})
    steps = sorted({round(value) for arm in arms for value in arm.costs("steps")})
    batch = sorted({str(arm.training["batch_size"]) for arm in arms if "batch_size" in arm.training})
    words = [f"{' and '.join(map(str, channels))} channels"]
    if steps:
        words.append(f"{' to '.join(map(str, dict.fromkeys((steps[0], steps[-1]))))} steps")
        words[-1] += f" of {' or '.join(batch)} segments" if batch else ""
    return ", ".join([*words, f"{len(study.tracks)} songs"])


def score_evidence(found: Contrast, rule: Rule, what: str, study: PaperStudy, arms: Sequence[Arm]) -> Evidence:
    """Turn a contrast and its verdict into a row; it decides nothing where an arm is in doubt."""
    doubted = doubts(study, *arms)
    notes = [rule.text(found.unit)]
    if len(arms) == 2:
        keys = [key.removeprefix("model.") for key in differences(arms[0], arms[1])]
        notes.append(f"they differ in {', '.join(keys)}")
    runs = tuple(run.name for arm in arms for run in arm.runs)
    return Evidence(
        what,
        UNDECIDED if doubted else rule.verdict(found),
        found.value,
        found.low,
        found.high,
        "" if found.unit == "1" else found.unit,
        found.tracks,
        found.seeds,
        study.name,
        tuple(dict.fromkeys(runs)),
        "; ".join([*notes, *doubted]),
        size_of(study, arms),
    )


def count_evidence(name: str, label: str, study: PaperStudy, less: Arm, more: Arm) -> Evidence | None:
    """Say whether one arm costs less than another; None where a cost is not known.

    What is counted (MACs, parameters) is the same in every run. Times are undecided unless both arms have three runs
    or more and the ranges of their runs do not overlap.
    """
    first, second = less.costs(name), more.costs(name)
    if not first or not second:
        return None
    ratio = (sum(first) / len(first)) / (sum(second) / len(second))
    measured = name.endswith("_s") and name != "macs_per_s"
    if measured and min(len(first), len(second)) < MIN_SEEDS:
        verdict, notes = UNDECIDED, f"a time, of fewer than {MIN_SEEDS} runs"
    elif max(first) < min(second):
        verdict, notes = HOLDS, ""
    elif min(first) >= max(second):
        verdict, notes = FAILS, ""
    else:
        verdict, notes = UNDECIDED, "the runs overlap"
    runs = tuple(run.name for arm in (less, more) for run in arm.runs)
    what = f"{label}: {less.name} / {more.name}"
    seeds, size = min(len(first), len(second)), size_of(study, (less, more))
    return Evidence(what, verdict, ratio, None, None, "×", None, seeds, study.name, runs, notes, size)


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


def both(*tests: Test) -> Test:
    """Return a test with the rows of several."""
    return lambda material: [row for test in tests for row in test(material)]


SAME_WIDTH = Pairs(multi, single, METHOD_KEYS, ("model.n_fft",))
HALF_WIDTH = Pairs(
    multi,
    single,
    METHOD_KEYS,
    ("model.n_fft", "model.channels"),
    fits=lambda first, second: second.channels == 2 * first.channels,
)
