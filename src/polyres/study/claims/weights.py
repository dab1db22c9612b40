"""Claims of the notes about learned fusion weights: which resolution leads, how even they are, what sources want."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from polyres.separation.fusion_report.report import disagreement_bits, entropy_percent
from polyres.separation.variants import FIVE, SEVEN, THREE
from polyres.study.claims.base import FAILS, HOLDS, UNDECIDED, Claim, Evidence, Material, Test, size_of
from polyres.study.claims.contrasts import Term, contrast, doubts
from polyres.study.paper.data import Arm, PaperStudy, Wanted
from polyres.study.paper.weights import OUTPUT, Array, output_stage, output_weights

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


def _chosen(material: Material, among: tuple[int, ...], source: str | None) -> Iterator[tuple[PaperStudy, Arm, Array]]:
    """Yield the arms with these resolutions, and their runs' weights `[K, R]` for a stem, or for the mean of all."""
    for study, arm, weights in _arms(material, lambda model: model.n_fft == among):
        if arm.model is not None and (source is None or source in arm.model.sources):
            yield study, arm, weights.mean(axis=1) if source is None else weights[:, arm.model.sources.index(source)]


def _verdict(agree: Sequence[bool]) -> str:
    """Judge runs: all agree, none does, or they differ."""
    return HOLDS if all(agree) else UNDECIDED if any(agree) else FAILS


def _kind(material: Material, study: PaperStudy, arm: Arm) -> str:
    reports = [material.reports[study.name, run.name] for run in arm.runs if (study.name, run.name) in material.reports]
    stages = [stage for stage in map(output_stage, reports) if stage is not None]
    return "implicit: share of kernel energy" if stages and stages[0].weight_kind == "implicit" else NO_IMPORTANCE


def leading(n_fft: int, among: tuple[int, ...], source: str | None = None) -> Test:
    """Return a test that a resolution has the largest output weight in every run."""

    def test(material: Material) -> list[Evidence]:
        rows = []
        for study, arm, chosen in _chosen(material, among, source):
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
    doubted = doubts(study, arm)
    about = (study.name, tuple(run.name for run in arm.runs), "; ".join((notes, *doubted)), size_of(study, (arm,)))
    verdict = UNDECIDED if doubted else verdict
    return Evidence(what, verdict, value, low, high, unit, len(study.tracks), len(arm.runs), *about)


def _sources_differ(material: Material) -> list[Evidence]:
    """Compare how much stems disagree within a run with how much runs disagree on a stem."""
    rows = []
    for study, arm, weights in _arms(material, lambda model: "source_weights" in model.output.kind):
        tables = torch.from_numpy(weights)
        between_sources = disagreement_bits(tables)
        value, notes, verdict = float(between_sources.mean()), ONE_RUN, UNDECIDED
        if len(weights) > 1:
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


def _has(n_fft: int, among: tuple[int, ...], percent: float, source: str | None = None) -> Test:
    """Return a test that a resolution's weight is the stated one, to a tenth of it, in the mean and in every run."""

    def test(material: Material) -> list[Evidence]:
        rows = []
        for study, arm, chosen in _chosen(material, among, source):
            shares = chosen[:, among.index(n_fft)]
            agree = [bool(abs(100 * share - percent) <= percent / 10) for share in shares]
            what = f"{arm.name}: output weight of {n_fft}, {source or 'all stems'} (stated: {percent:g} %)"
            notes = f"{sum(agree)} of {len(agree)} runs within a tenth of it"
            rows.append(_row(what, _verdict(agree), 100 * float(shares.mean()), "%", (study, arm), notes, shares))
        return rows

    return test


def _averages_alike(material: Material) -> list[Evidence]:
    """Look how far raw weights and their moving averages are apart."""
    rows = []
    for study, arm, _ in _arms(material):
        reports = [material.reports.get((study.name, run.name)) for run in arm.runs]
        stages = [stage for stage in (output_stage(one) for one in reports if one is not None) if stage is not None]
        largest = [max(one.largest for one in stage.differences) for stage in stages if stage.differences]
        if largest:
            agree = [value < 4e-6 for value in largest]
            what = f"{arm.name}: largest difference of a raw output weight and its average"
            notes = f"{sum(agree)} of {len(agree)} runs below 0.000004"
            rows.append(_row(what, _verdict(agree), 100 * max(largest), "%", (study, arm), notes))
    return rows


def _with(sizes: Sequence[int], more: str = "") -> str:
    return f"runs with resolutions {' '.join(map(str, sizes))} and output weights{more}"


STUDIES = {THREE: "family", FIVE: "family", SEVEN: "joining", WIDE: "spans"}


def _leads(
    key: str, place: str, n_fft: int, among: tuple[int, ...], percent: float, source: str | None = None
) -> list[Claim]:
    """Return two claims: that a resolution has the largest weight, and that it is the stated one."""
    stem, verb = (
        (source.capitalize(), "gives")
        if source in ("bass", "other")
        else ((source or "all stems").capitalize(), "give")
    )
    listed = f"{among[0]} … {among[-1]} ({len(among)})" if len(among) > 3 else ", ".join(map(str, among))
    needs, run = _with(among, " per stem" if source else ""), STUDIES[among]
    return [
        Claim(
            key, place, f"{stem} {verb} most weight to {n_fft} of {listed}.", needs, leading(n_fft, among, source), run
        ),
        Claim(
            f"{key}_by",
            place,
            f"{stem} {verb} {percent:g} % to {n_fft} of {listed}.",
            needs,
            _has(n_fft, among, percent, source),
            run,
        ),
    ]


# fmt: off
WEIGHT_CLAIMS: tuple[Claim, ...] = (
    *_leads("8192_leads_three", "notes, core findings 1", 8192, THREE, 38),
    *_leads("2048_leads_five", "draft 0, 4.3; notes 1", 2048, FIVE, 26),
    *_leads("8192_leads_seven", "notes, core findings 1", 8192, SEVEN, 16.8),
    *_leads("4096_leads_wide", "notes, large span", 4096, WIDE, 43),
    *_leads("drums_want_8192", "notes, core findings 3", 8192, SEVEN, 21.0, "drums"),
    *_leads("bass_wants_16384", "notes, core findings 3", 16384, SEVEN, 20.1, "bass"),
    *_leads("other_wants_32768", "notes, core findings 3", 32768, SEVEN, 16.8, "other"),
    *_leads("vocals_want_8192", "notes, core findings 3", 8192, SEVEN, 17.5, "vocals"),
    *_leads("drums_want_4096_of_wide", "notes, large span", 4096, WIDE, 49.0, "drums"),
    *_leads("bass_wants_16384_of_wide", "notes, large span", 16384, WIDE, 43.6, "bass"),
    *_leads("other_wants_16384_of_wide", "notes, large span", 16384, WIDE, 40.1, "other"),
    *_leads("vocals_want_4096_of_wide", "notes, large span", 4096, WIDE, 60.0, "vocals"),
    Claim("stems_weigh_differently", "notes, findings 6", "Stems learn weights of their own.",
          "runs of source_weights", _sources_differ, "joining"),
    Claim("weights_stay_even", "notes, convergence; draft 4.3",
          f"The weights stay near even: {EVEN_PERCENT:g} % of the entropy of uniform ones or more.",
          "runs with output weights", _near_even, "family"),
    Claim("weights_spread", "notes, evolution 2", "During training the weights move apart.",
          "runs with output weights and two epochs or more", _spreads, "family"),
    Claim("averages_alike", "notes, convergence",
          "Raw weights and their moving averages differ by less than 0.000004.",
          "runs with output weights and moving averages", _averages_alike, "family"),
    Claim("weights_are_importance", "draft 3.2", "A weight says how important its resolution is.",
          "runs with output weights, and rows of parts (without each resolution)", _weights_are_importance, "family"),
)
# fmt: on
