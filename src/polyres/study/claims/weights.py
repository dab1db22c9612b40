"""Claims of the notes about learned fusion weights: which resolution leads, how even they are, what sources want."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from polyres.separation.fusion_report.report import disagreement_bits, entropy_percent
from polyres.separation.variants import FIVE, SEVEN, THREE
from polyres.study.claims.base import FAILS, HOLDS, UNDECIDED, Claim, Evidence, Test
from polyres.study.claims.contrasts import Term, contrast
from polyres.study.paper.data import Arm, PaperStudy, Wanted
from polyres.study.paper.weights import OUTPUT, Array, Material, output_stage, output_weights

MIN_RUNS = 2
EVEN_PERCENT = 98.0
ONE_RUN = "one run"
NO_IMPORTANCE = "a weight is no importance"
WIDE = (1024, 4096, 16384)


def _arms(material: Material, wanted: Wanted | None = None) -> Iterator[tuple[PaperStudy, Arm, Array]]:
    """Yield the arms whose output has learned weights, with the weights of their runs `[K, S, R]`."""
    for study in material.studies:
        for arm in study.arms:
            if arm.model is None or (wanted and not wanted(arm.model)):
                continue
            weights = output_weights(material.reports, study, arm)
            if weights is not None:
                yield study, arm, weights


def _verdict(agree: Sequence[bool]) -> str:
    """Judge runs: all agree, none does, or they differ; one run decides nothing."""
    if len(agree) < MIN_RUNS:
        return UNDECIDED
    return HOLDS if all(agree) else UNDECIDED if any(agree) else FAILS


def _kind(material: Material, study: PaperStudy, arm: Arm) -> str:
    reports = [material.reports[study.name, run.name] for run in arm.runs if (study.name, run.name) in material.reports]
    stages = [stage for stage in map(output_stage, reports) if stage is not None]
    return "implicit: share of kernel energy" if stages and stages[0].weight_kind == "implicit" else NO_IMPORTANCE


def leading(n_fft: int, among: tuple[int, ...], source: str | None = None) -> Test:
    """Return a test that a resolution has the largest output weight in every run."""

    def test(material: Material) -> list[Evidence]:
        rows = []
        for study, arm, weights in _arms(material, lambda model: model.n_fft == among):
            if arm.model is None or (source is not None and source not in arm.model.sources):
                continue
            chosen = weights.mean(axis=1) if source is None else weights[:, arm.model.sources.index(source)]
            place = among.index(n_fft)
            agree = [bool(row.argmax() == place and row.max() > row.min()) for row in chosen]
            mean = chosen.mean(axis=0)
            listed = ", ".join(f"{size} {100 * value:.1f} %" for size, value in zip(among, mean, strict=True))
            notes = f"{sum(agree)} of {len(agree)} runs; {_kind(material, study, arm)}; mean: {listed}"
            what = f"{arm.name}: output weight of {n_fft}, {source or 'all stems'}"
            rows.append(
                _row(what, _verdict(agree), 100 * float(mean[place]), "%", (study, arm), notes, chosen[:, place])
            )
        return rows

    return test


def _row(
    what: str,
    verdict: str,
    value: float,
    unit: str,
    of: tuple[PaperStudy, Arm],
    notes: str,
    shares: Array | None = None,
) -> Evidence:
    """Put a number of runs into a row; its ends are those of the runs, not an interval."""
    study, arm = of
    low = high = None
    if shares is not None and len(shares) > 1:
        low, high = 100 * float(shares.min()), 100 * float(shares.max())
        notes += "; the ends are those of the runs"
    runs = tuple(run.name for run in arm.runs)
    return Evidence(what, verdict, value, low, high, unit, None, len(arm.runs), study.name, runs, notes)


def _sources_differ(material: Material) -> list[Evidence]:
    """Compare how much stems disagree within a run with how much runs disagree on a stem."""
    rows = []
    for study, arm, weights in _arms(material, lambda model: "source_weights" in model.output.kind):
        tables = torch.from_numpy(weights)
        between_sources = disagreement_bits(tables)
        value, notes, verdict = float(between_sources.mean()), ONE_RUN, UNDECIDED
        if len(weights) >= MIN_RUNS:
            between_runs = disagreement_bits(tables.transpose(0, 1))
            notes = f"between runs of one stem: at most {float(between_runs.max()):.5f} bits"
            if between_sources.min() > between_runs.max():
                verdict = HOLDS
            elif between_sources.max() < between_runs.min():
                verdict = FAILS
        what = f"{arm.name}: Jensen–Shannon divergence between stems"
        rows.append(_row(what, verdict, value, "bit", (study, arm), notes))
    return rows


def _near_even(material: Material) -> list[Evidence]:
    rows = []
    for study, arm, weights in _arms(material):
        percent = entropy_percent(torch.from_numpy(weights)).mean(dim=1).numpy()
        agree = [bool(value >= EVEN_PERCENT) for value in percent]
        notes = f"{sum(agree)} of {len(agree)} runs at {EVEN_PERCENT:g} % or more"
        what = f"{arm.name}: entropy of the output weights, % of uniform"
        rows.append(_row(what, _verdict(agree), float(percent.mean()), "%", (study, arm), notes, percent / 100))
    return rows


def _spreads(material: Material) -> list[Evidence]:
    """Compare the spread of the raw weights after the first epoch with that after the last."""
    rows = []
    for study, arm, _ in _arms(material):
        changes = []
        for run in arm.runs:
            report = material.reports.get((study.name, run.name))
            evolution = None if report is None else report.evolution.get(OUTPUT)
            if evolution is not None and len(evolution.epochs) > 1:
                first, last = (float(np.mean(evolution.summaries[place].spread)) for place in (0, -1))
                changes.append(100 * (last - first))
        if changes:
            agree = [change > 0 for change in changes]
            notes = f"{sum(agree)} of {len(agree)} runs; first epoch to last"
            what = f"{arm.name}: change of largest less smallest output weight"
            rows.append(_row(what, _verdict(agree), float(np.mean(changes)), "%", (study, arm), notes))
    return rows


def _weights_are_importance(material: Material) -> list[Evidence]:
    """See whether the resolution of most weight is the one whose knock-out loses most."""
    rows = []
    for study, arm, weights in _arms(material, lambda model: model.output.kind not in ("conv",)):
        parts = study.parts(arm, study.primary)
        sizes = arm.model.n_fft if arm.model is not None else ()
        if not sizes or any(f"without {size}" not in parts for size in sizes):
            continue
        losses = [
            contrast(study, [Term(1, arm), Term(-1, arm, None, f"without {size}")], study.primary) for size in sizes
        ]
        if any(loss is None for loss in losses):
            continue
        values = [loss.value for loss in losses if loss is not None]
        heaviest = [int(row.argmax()) for row in weights.mean(axis=1)]
        agree = [place == int(np.argmax(values)) for place in heaviest]
        listed = ", ".join(f"{size} {value:+.2f} dB" for size, value in zip(sizes, values, strict=True))
        notes = f"{sum(agree)} of {len(agree)} runs; losses without: {listed}"
        what = f"{arm.name}: loss without the resolution of most weight ({sizes[heaviest[0]]})"
        rows.append(_row(what, _verdict(agree), values[heaviest[0]], "dB", (study, arm), notes))
    return rows


def _claim(key: str, place: str, statement: str, needs: str, test: Callable[[Material], list[Evidence]]) -> Claim:
    return Claim(key, place, statement, needs, test)


def _with(sizes: Sequence[int], more: str = "") -> str:
    return f"runs with resolutions {' '.join(map(str, sizes))} and output weights{more}"


OF_SEVEN = _with(SEVEN, " per stem")
# fmt: off
WEIGHT_CLAIMS: tuple[Claim, ...] = (
    _claim("8192_leads_three", "notes, core findings 1", "Among 2048, 4096 and 8192, 8192 gets most weight (38 %).",
           _with(THREE), leading(8192, THREE)),
    _claim("2048_leads_five", "draft 0, 4.3; notes 1", "Among five resolutions 2048 gets most weight (26 %).",
           _with(FIVE), leading(2048, FIVE)),
    _claim("8192_leads_seven", "notes, core findings 1", "Among seven resolutions 8192 gets most weight (16.8 %).",
           _with(SEVEN), leading(8192, SEVEN)),
    _claim("4096_leads_wide", "notes, large span",
           "In a span of four, 4096 between 1024 and 16384 gets most weight (43 %).", _with(WIDE), leading(4096, WIDE)),
    _claim("drums_want_8192", "notes, core findings 3", "Drums give most weight to 8192.", OF_SEVEN,
           leading(8192, SEVEN, "drums")),
    _claim("bass_wants_16384", "notes, core findings 3", "Bass gives most weight to 16384.", OF_SEVEN,
           leading(16384, SEVEN, "bass")),
    _claim("other_wants_32768", "notes, core findings 3", "Other gives most weight to 32768.", OF_SEVEN,
           leading(32768, SEVEN, "other")),
    _claim("vocals_want_8192", "notes, core findings 3", "Vocals give most weight to 8192.", OF_SEVEN,
           leading(8192, SEVEN, "vocals")),
    _claim("stems_weigh_differently", "notes, findings 6", "Stems learn weights of their own.",
           "runs of source_weights, two seeds or more", _sources_differ),
    _claim("weights_stay_even", "notes, convergence; draft 4.3",
           "The weights stay near even: 98 % of the entropy of uniform ones or more.",
           "runs with output weights, two seeds or more", _near_even),
    _claim("weights_spread", "notes, evolution 2", "During training the weights move apart.",
           "runs with output weights and two epochs or more", _spreads),
    _claim("weights_are_importance", "draft 3.2", "A weight says how important its resolution is.",
           "runs with output weights, and rows of parts (without each resolution)", _weights_are_importance),
)
# fmt: on
