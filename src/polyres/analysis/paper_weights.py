"""Fusion weights of the runs of studies, each run's report read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polyres.analysis.fusion import FusionReport, Stage, build_report, choose_weights
from polyres.analysis.fusion_run import BEST, load_fusion_subject
from polyres.analysis.paper_data import Arm, PaperRun, PaperStudy
from polyres.training.run_folder import BEST_FILE, CONFIG_FILE, METRICS_FILE

OUTPUT = "output"
Array = NDArray[np.float64]
Reports = Mapping[tuple[str, str], FusionReport]
"""(study, run) -> report."""


@dataclass(frozen=True)
class Material:
    """All that claims are tested on.

    Attributes:
        studies: with scores and costs.
        reports: fusion reports of runs with several resolutions.
    """

    studies: Sequence[PaperStudy]
    reports: Reports


def read_reports(studies: Sequence[PaperStudy]) -> dict[tuple[str, str], FusionReport]:
    """Read the fusion weights of all runs that have several resolutions; runs without weights are left out.

    Args:
        studies: whose runs.

    Raises:
        AnalysisError: when a run is damaged.
        WeightsError: when weights cannot be read.
    """
    found = {}
    for study in studies:
        for arm in study.arms:
            for run in arm.runs if arm.model is not None and len(arm.model.n_fft) > 1 else ():
                report = _report(run)
                if report is not None:
                    found[study.name, run.name] = report
    return found


def _report(run: PaperRun) -> FusionReport | None:
    has_weights = (run.folder / BEST_FILE).exists() or (run.folder / METRICS_FILE).exists()
    if not (run.folder / CONFIG_FILE).exists() or not has_weights:
        return None
    subject = load_fusion_subject(str(run.folder))
    if BEST in subject.states:
        subject.states = {BEST: subject.states[BEST]}
    return build_report(subject, choose_weights(subject, None))


def output_stage(report: FusionReport) -> Stage | None:
    """Return the output fusion of a report where it has weights."""
    return next((stage for stage in report.stages if stage.name == OUTPUT and stage.tables), None)


def output_weights(reports: Reports, study: PaperStudy, arm: Arm) -> Array | None:
    """Return the learned output weights of an arm's runs `[K, S, R]`, of K seeds; None where there are none.

    Args:
        reports: of all runs.
        study: of the arm.
        arm: whose runs.
    """
    tables = []
    for run in arm.runs:
        report = reports.get((study.name, run.name))
        stage = None if report is None else output_stage(report)
        if report is not None and stage is not None and stage.learned:
            tables.append(stage.tables[report.chosen].weights)
    return np.array(tables, dtype=np.float64) if tables else None
