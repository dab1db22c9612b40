"""Builders of claims about pairs of arms: scores, per stem or in all, and costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from polyres.analysis.claims import Claim, Evidence, Rule, Test, count_evidence, score_evidence
from polyres.analysis.contrasts import Term, contrast
from polyres.analysis.paper_arms import METHOD_KEYS, Wanted, basis, matches
from polyres.analysis.paper_data import Arm, PaperStudy
from polyres.analysis.paper_weights import Material
from polyres.models.separator import SeparatorConfig

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
    """Which arms a claim compares.

    Attributes:
        first: says which models are meant by its first side.
        second: the same of the other side.
        may: beginnings of dotted keys in which they may differ.
        must: beginnings of which each must tell them apart.
        fits: looks at both models together.
        settings: looks at both recipes together.
    """

    first: Wanted
    second: Wanted
    may: Sequence[str] = ()
    must: Sequence[str] = ()
    fits: Callable[[SeparatorConfig, SeparatorConfig], bool] = lambda first, second: True
    settings: Callable[[Arm, Arm], bool] = lambda first, second: True

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
    """Return a test of the first arm's scores less the second's.

    Args:
        pairs: of arms.
        rule: that the difference must meet.
        groups: of stems, a row of evidence each.
        metrics: names; the primary one if empty. Those that were not scored are left out.
    """

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
    """Return a test that the first arm costs less than the second.

    Args:
        pairs: of arms.
        name: of the cost.
        label: for people.
    """

    def test(material: Material) -> list[Evidence]:
        found = (count_evidence(name, label, *pair) for pair in pairs.find(material))
        return [one for one in found if one is not None]

    return test


def untestable(key: str, place: str, statement: str, needs: str) -> Claim:
    """Return a claim that no study can speak to.

    Args:
        key: short name.
        place: where it is said.
        statement: what is said.
        needs: what would be needed.
    """
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
