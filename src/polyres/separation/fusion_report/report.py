"""The fusion report: weights of every stage beside what the resolutions do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from polyres.nn.fusion.base import Fusion
from polyres.nn.fusion.networks import BandWeights, BottleneckBandWeights
from polyres.separation.fusion_report.tracks import DataReport
from polyres.separation.fusion_report.weights_over_time import AVERAGE_PREFIX, BEST, ONLY, RAW, FusionSubject

STAGES = ("bottleneck", "output")
LAST_EPOCH = "last epoch"


@dataclass(frozen=True)
class Difference:
    """Raw weights against an average of them."""

    average: str
    largest: float
    mean: float


@dataclass(frozen=True)
class Stage:
    """One place where resolutions are fused.

    `bands`: explicit weights per band `[K][S][R]` of the chosen set, lowest first, where the fusion has bands.
    """

    name: str
    kind: str
    weight_kind: str  # explicit (they mix), implicit (share of kernel energy: they do not) or none
    learned: bool
    tables: dict[str, WeightSummary]
    differences: list[Difference]
    bands: list[list[list[float]]] | None = None
    bands_hz: tuple[float, ...] = ()


@dataclass(frozen=True)
class Evolution:
    """Weights of one stage over the epochs of a run; they are the raw ones."""

    epochs: list[int]
    summaries: list[WeightSummary]


@dataclass(frozen=True)
class FusionReport:
    """Everything about the fusions of a model.

    `gradient_epochs`: share of the gradient norms in the branches per epoch of training, where the run took them: epoch
    -> `[R]`.
    """

    model: str
    sources: tuple[str, ...]
    n_fft: tuple[int, ...]
    chosen: str  # the set of weights that the tables and the data are about
    stages: list[Stage]
    evolution: dict[str, Evolution]  # by stage, where there is a run
    gradient_epochs: dict[int, list[float]]
    data: DataReport | None  # what the resolutions do on tracks, if asked for
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON would hold it; what is not a number is None."""
        plain: dict[str, Any] = _finite(asdict(self))
        return plain


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def choose_weights(subject: FusionSubject, wanted: str | None) -> str:
    """Return the name of the set of weights a report is about.

    `wanted`: name of a set; None takes the best, else the longest average, else what there is. Raises AnalysisError
    when there is no such set.
    """
    if wanted is not None:
        subject.use(wanted)
        return wanted
    averages = sorted((name for name in subject.states if name.startswith(AVERAGE_PREFIX)), reverse=True)
    order = [BEST, *averages, RAW, ONLY]
    return next((name for name in order if name in subject.states), LAST_EPOCH)


def build_report(subject: FusionSubject, chosen: str, data: DataReport | None = None) -> FusionReport:
    """Put the report together. `subject`: the model, its weights and its past; `chosen`: from `choose_weights`."""
    tables: dict[str, dict[str, Tensor]] = {}
    for name in subject.states:
        for stage, weights in subject.use(name).fusion_weights().items():
            tables.setdefault(stage, {})[name] = weights.double().cpu()
    if not subject.states:
        for stage, weights in subject.epochs[-1].weights.items():
            tables[stage] = {LAST_EPOCH: weights}
    model = subject.use(chosen) if chosen in subject.states else subject.model
    return FusionReport(
        model=subject.name,
        sources=model.sources,
        n_fft=model.config.n_fft,
        chosen=chosen,
        stages=[_stage(subject, name, tables.get(name, {})) for name in STAGES],
        evolution=_evolution(subject),
        gradient_epochs=_gradient_epochs(subject),
        data=data,
        notes=list(subject.notes),
    )


def _stage(subject: FusionSubject, name: str, tables: dict[str, Tensor]) -> Stage:
    config = subject.model.config
    settings = {"bottleneck": config.bottleneck, "output": config.output}[name]
    fusion = {"bottleneck": subject.model.bottleneck, "output": subject.model.output}[name]
    raw = tables.get(RAW)
    differences = []
    for average, weights in tables.items():
        if raw is not None and average.startswith(AVERAGE_PREFIX):
            change = (weights - raw).abs()
            differences.append(Difference(average, float(change.max()), float(change.mean())))
    with torch.no_grad():
        bands = fusion.band_weights().tolist() if isinstance(fusion, BandWeights | BottleneckBandWeights) else None
    edges_hz = config.plan().edges_hz() if name == "bottleneck" else settings.bands_hz
    return Stage(
        name=name,
        kind=settings.kind,
        weight_kind=fusion.weight_kind if isinstance(fusion, Fusion) else "none",
        learned=any(True for _ in fusion.parameters()),
        tables={label: summarise(weights) for label, weights in tables.items()},
        differences=differences,
        bands=bands,
        bands_hz=edges_hz if bands is not None else (),
    )


def _evolution(subject: FusionSubject) -> dict[str, Evolution]:
    found = {}
    for stage in STAGES:
        rows = [(epoch.number, epoch.weights[stage]) for epoch in subject.epochs if stage in epoch.weights]
        if rows:
            found[stage] = Evolution([number for number, _ in rows], [summarise(weights) for _, weights in rows])
    return found


def _gradient_epochs(subject: FusionSubject) -> dict[int, list[float]]:
    names = [f"branch@{n_fft}" for n_fft in subject.model.config.n_fft]
    shares = {}
    for epoch in subject.epochs:
        norms = [epoch.gradient_norms.get(name, 0.0) for name in names]
        if sum(norms) > 0:
            shares[epoch.number] = [norm / sum(norms) for norm in norms]
    return shares


Table = list[list[float]]


def entropy_bits(weights: Tensor) -> Tensor:
    """Shannon entropy of distributions.

    `weights`: `[..., R]`, >= 0; they need not sum to 1. Returns `[...]` in bits, float64; NaN where all are zero.
    """
    shares = weights.double() / weights.double().sum(dim=-1, keepdim=True)
    return -torch.special.xlogy(shares, shares).sum(dim=-1) / math.log(2)


def entropy_percent(weights: Tensor) -> Tensor:
    """Entropy in percent of that of uniform weights: 100 is even, 0 is one resolution alone.

    `weights`: `[..., R]`, R >= 2. Returns `[...]`, 0 to 100, float64.
    """
    return 100 * entropy_bits(weights) / math.log2(weights.shape[-1])


def divergence_bits(weights: Tensor) -> Tensor:
    """Kullback–Leibler divergence from uniform weights.

    `weights`: `[..., R]`. Returns `[...]` in bits, 0 (even) to log2 R (one resolution alone), float64.
    """
    return math.log2(weights.shape[-1]) - entropy_bits(weights)


def disagreement_bits(weights: Tensor) -> Tensor:
    """Jensen–Shannon divergence among the sources: how much of the weights depends on the source.

    `weights`: `[..., S, R]`. Returns `[...]` in bits, 0 where all sources share one row, float64.

    Source: Lin 1991, "Divergence measures based on the Shannon entropy", section V.
    """
    shares = weights.double() / weights.double().sum(dim=-1, keepdim=True)
    return (entropy_bits(shares.mean(dim=-2)) - entropy_bits(shares).mean(dim=-1)).clamp_min(0.0)


def spread(weights: Tensor) -> Tensor:
    """Largest weight less the smallest: `[..., R]` -> `[...]`."""
    return weights.amax(dim=-1) - weights.amin(dim=-1)


@dataclass(frozen=True)
class WeightSummary:
    """Weights of one stage at one moment."""

    weights: Table  # `[S, R]`
    entropy_percent: list[float]
    spread: list[float]
    divergence_bits: list[float]
    disagreement_bits: float


def summarise(weights: Tensor) -> WeightSummary:
    """Sum up a table of weights. `weights`: `[S, R]`."""
    return WeightSummary(
        weights=weights.tolist(),
        entropy_percent=entropy_percent(weights).tolist(),
        spread=spread(weights).tolist(),
        divergence_bits=divergence_bits(weights).tolist(),
        disagreement_bits=float(disagreement_bits(weights)),
    )
