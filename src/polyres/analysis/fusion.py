"""The fusion report: weights of every stage beside what the resolutions do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from polyres.analysis.fusion_data import DataReport
from polyres.analysis.fusion_run import AVERAGE_PREFIX, BEST, ONLY, RAW, FusionSubject
from polyres.analysis.fusion_weights import WeightSummary, summarise
from polyres.nn.bottleneck_fusion import BottleneckBandWeights
from polyres.nn.fusion import Fusion
from polyres.nn.fusion_nets import BandWeights

STAGES = ("bottleneck", "output")
LAST_EPOCH = "last epoch"


@dataclass(frozen=True)
class Difference:
    """Raw weights against an average of them.

    Attributes:
        average: its name.
        largest: largest absolute difference.
        mean: mean absolute difference.
    """

    average: str
    largest: float
    mean: float


@dataclass(frozen=True)
class Stage:
    """One place where resolutions are fused.

    Attributes:
        name: bottleneck or output.
        kind: of the fusion.
        weight_kind: explicit (they mix), implicit (share of kernel energy: they do not) or none.
        learned: whether training moves it.
        tables: summary by set of weights.
        differences: raw against averages.
        bands: explicit weights per band `[K][S][R]` of the chosen set, lowest first, where the fusion has bands.
        bands_hz: edges between them.
    """

    name: str
    kind: str
    weight_kind: str
    learned: bool
    tables: dict[str, WeightSummary]
    differences: list[Difference]
    bands: list[list[list[float]]] | None = None
    bands_hz: tuple[float, ...] = ()


@dataclass(frozen=True)
class Evolution:
    """Weights of one stage over the epochs of a run; they are the raw ones.

    Attributes:
        epochs: their numbers.
        summaries: one per epoch.
    """

    epochs: list[int]
    summaries: list[WeightSummary]


@dataclass(frozen=True)
class FusionReport:
    """Everything about the fusions of a model.

    Attributes:
        model: as it was named.
        sources: names, in order.
        n_fft: window lengths, in order.
        chosen: the set of weights that the tables and the data are about.
        stages: of the model.
        evolution: by stage, where there is a run.
        gradient_epochs: share of the gradient norms in the branches per epoch of training, where the run took them:
            epoch -> `[R]`.
        data: what the resolutions do on tracks, if asked for.
        notes: what a reader should know.
    """

    model: str
    sources: tuple[str, ...]
    n_fft: tuple[int, ...]
    chosen: str
    stages: list[Stage]
    evolution: dict[str, Evolution]
    gradient_epochs: dict[int, list[float]]
    data: DataReport | None
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

    Args:
        subject: what there is.
        wanted: name of a set; None takes the best, else the longest average, else what there is.

    Raises:
        AnalysisError: when there is no such set.
    """
    if wanted is not None:
        subject.use(wanted)
        return wanted
    averages = sorted((name for name in subject.states if name.startswith(AVERAGE_PREFIX)), reverse=True)
    order = [BEST, *averages, RAW, ONLY]
    return next((name for name in order if name in subject.states), LAST_EPOCH)


def build_report(subject: FusionSubject, chosen: str, data: DataReport | None = None) -> FusionReport:
    """Put the report together.

    Args:
        subject: the model, its weights and its past.
        chosen: from `choose_weights`.
        data: what the resolutions do.

    Returns:
        The report.
    """
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
