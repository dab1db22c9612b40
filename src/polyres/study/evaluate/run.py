"""Evaluate every subject on every track, writing scores track by track."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from polyres.audio.file_names import shown
from polyres.core.errors import ConfigError, InputError
from polyres.datasets.stems import TracksDataset
from polyres.metrics.catalogue import METRICS, make_scene, measure
from polyres.study.evaluate.rows import RowFile, ScoreRow, number_or_none, track_scores, write_track
from polyres.study.evaluate.subjects import Subject

ROWS_FILE = "scores.jsonl"

Report = Callable[[str, str, str], None]
"""Told model, part and track when a track is done."""


@dataclass(frozen=True)
class EvaluateOptions:
    """How to evaluate.

    Args:
        metrics: names of the metrics.
        workers: tracks scored at the same time, beside the one that is being separated.
        own_mixture: separate the mixture file that a track brings along, where it has one, not the sum of its stems.
        failed: told in a line of every track that cannot be scored, and the others go on; None ends with the first.
    """

    metrics: tuple[str, ...] = ("nsdr", "sdr")
    workers: int = 1
    own_mixture: bool = False
    failed: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", check_metrics(self.metrics))
        if not self.metrics:
            raise ConfigError("no metrics; name at least one, such as nsdr")
        if self.workers < 1:
            raise ConfigError(f"workers {self.workers} is not possible; choose 1 or more")


def evaluate(
    subjects: Sequence[Subject], tracks: TracksDataset, out: Path, options: EvaluateOptions, report: Report
) -> list[ScoreRow]:
    """Score subjects on tracks; what the output folder holds already is not done again.

    Args:
        subjects: models, parts of models or folders of estimates.
        tracks: references.
        out: gets `scores.jsonl` and, with BSSEval metrics, `museval/MODEL/test/TRACK.json` in museval's schema; its
            `EvalStore.add_eval_dir` reads `museval/MODEL`.
        options: metrics and workers.
        report: told after every track.

    Returns:
        The rows of these subjects, tracks and metrics, old and new.

    Raises:
        ConfigError: if two subjects have one name, or two tracks.
        InputError: if a track or estimate cannot be used and `options.failed` is None.
        OutputError: if results cannot be written.
    """
    _refuse_twins([f"{subject.name} ({subject.part})" for subject in subjects], "models")
    _refuse_twins(tracks.names, "tracks")
    file = RowFile(out / ROWS_FILE)
    done = {(row.model, row.part, row.track, row.metric, row.weights_id) for row in file.rows}

    def missing(subject: Subject, track: str) -> tuple[str, ...]:
        key = (subject.name, subject.part, track)
        return tuple(name for name in options.metrics if (*key, name, subject.origin.weights_id) not in done)

    pending: deque[tuple[Subject, str, Future[TrackScores]]] = deque()

    def finish() -> None:
        subject, track, future = pending.popleft()
        try:
            scores = future.result()
        except InputError as error:
            _refuse(options, subject, track, error)
            return
        _write(out, file, subject, track, scores)
        report(subject.name, subject.part, track)

    with ThreadPoolExecutor(max_workers=options.workers) as pool:
        for subject, index, metrics in _jobs(subjects, tracks, missing):
            try:
                stems, estimates = _estimates(subject, tracks, index, options.own_mixture)
            except InputError as error:
                _refuse(options, subject, tracks.names[index], error)
                continue
            rate_hz = tracks.config.sample_rate_hz
            future = pool.submit(score_track, stems, estimates, tracks.config.sources, metrics, rate_hz)
            pending.append((subject, tracks.names[index], future))
            while len(pending) > options.workers:
                finish()
        while pending:
            finish()
    return _chosen(file.rows, subjects, tracks.names, options.metrics)


def count_jobs(subjects: Sequence[Subject], tracks: TracksDataset, out: Path, options: EvaluateOptions) -> int:
    """Return how many pairs of subject and track are still to be scored."""
    rows = RowFile(out / ROWS_FILE).rows
    done = {(row.model, row.part, row.track, row.metric, row.weights_id) for row in rows}
    return sum(
        any((s.name, s.part, track, name, s.origin.weights_id) not in done for name in options.metrics)
        for s in subjects
        for track in tracks.names
    )


def _refuse_twins(names: Sequence[str], what: str) -> None:
    twins = [name for name in names if names.count(name) > 1]
    if twins:
        raise ConfigError(f"two {what} are called {twins[0]!r}, so their scores would mix; rename one")


def _jobs(
    subjects: Sequence[Subject], tracks: TracksDataset, missing: Callable[[Subject, str], tuple[str, ...]]
) -> Iterator[tuple[Subject, int, tuple[str, ...]]]:
    for index, track in enumerate(tracks.names):
        for subject in subjects:
            metrics = missing(subject, track)
            if metrics:
                yield subject, index, metrics


def _estimates(subject: Subject, tracks: TracksDataset, index: int, own_mixture: bool) -> tuple[Tensor, Tensor]:
    stems = tracks[index]
    mixture = tracks.mixture(index) if own_mixture else None
    if mixture is None:
        mixture = stems.sum(dim=0)
    rate_hz = tracks.config.sample_rate_hz
    return stems, subject.estimate(tracks.names[index], mixture, tracks.config.sources, rate_hz)


def _write(out: Path, file: RowFile, subject: Subject, track: str, scores: TrackScores) -> None:
    """Write museval's file first: rows are what says that a track is done."""
    if scores.frames:
        whole = subject.name if subject.part == "all" else f"{subject.name} {subject.part}"
        frames = {name.upper(): values.tolist() for name, values in scores.frames.items()}
        folder, name = (shown(Path(text)).replace("/", "_") for text in (whole, track))
        write_track(out / "museval" / folder / "test" / f"{name}.json", track_scores(frames, scores.sources))
    file.append(_rows(subject, track, scores))


def _rows(subject: Subject, track: str, scores: TrackScores) -> list[ScoreRow]:
    rows = []
    for metric, by_source in scores.values.items():
        for source, value in by_source.items():
            frames = scores.frames[metric][scores.sources.index(source)] if metric in scores.frames else None
            valid = None if frames is None else int(frames.isfinite().sum())
            rows.append(
                ScoreRow(
                    subject.name,
                    subject.part,
                    track,
                    source,
                    metric,
                    METRICS.build(metric).unit,
                    number_or_none(value),
                    valid,
                    None if frames is None or valid is None else len(frames) - valid,
                    subject.origin.weights_id,
                    subject.origin.fingerprint,
                    subject.origin.commit,
                    subject.origin.seed,
                    None if frames is None else number_or_none(_window_mean(frames)),
                )
            )
    return rows


def _refuse(options: EvaluateOptions, subject: Subject, track: str, error: InputError) -> None:
    """Report a track that cannot be scored, or raise its error."""
    line = f"{subject.name} ({subject.part}) on {shown(Path(track))!r}: {error}"
    if options.failed is None:
        raise InputError(line) from error
    options.failed(line)


def _window_mean(frames: Tensor) -> float:
    """Return the mean over the finite windows; +inf where every window with a score is perfect."""
    finite = frames[frames.isfinite()]
    return math.inf if not len(finite) and bool((frames == math.inf).any()) else float(finite.mean())


def _chosen(
    rows: Sequence[ScoreRow], subjects: Sequence[Subject], tracks: Sequence[str], metrics: Sequence[str]
) -> list[ScoreRow]:
    wanted = {(subject.name, subject.part, subject.origin.weights_id) for subject in subjects}
    return [
        row
        for row in rows
        if (row.model, row.part, row.weights_id) in wanted and row.track in tracks and row.metric in metrics
    ]


FOR_ABSENT = "log_wmse"
"""The metric that means something for a stem that the track lacks."""

SILENT_PEAK = 1e-4
"""A stem that never gets louder than this (-80 dBFS) counts as absent."""


@dataclass(frozen=True)
class TrackScores:
    """Scores of one track."""

    sources: tuple[str, ...]  # stems that the track has
    values: dict[str, dict[str, float]]  # metric to source to its score over the track; NaN where it has none
    frames: dict[str, Tensor]  # windowed metric to `[S, frames]`, NaN or infinite where a window has no value


SPEECH_ONLY = ("pesq", "pesq_wb", "stoi", "estoi")
"""Metrics of reconstructions that people ask for here, too."""


def check_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """Return metrics by their names in the catalogue, whatever the case.

    Raises:
        ConfigError: for predictions about speech, which say nothing about stems of music.
        UnknownNameError: if there is no metric of a name.
    """
    for name in (name for name in names if name.lower() in SPEECH_ONLY):
        raise ConfigError(
            f"{name} predicts what listeners say of speech and says nothing about stems of music; choose among "
            f"{', '.join(METRICS.names())} (for speech, in Python: polyres.metrics.reconstruction.metrics.score)"
        )
    found = [METRICS.build(name.lower()).name for name in names]
    return tuple(dict.fromkeys(found))


def present_stems(stems: Tensor) -> list[int]:
    """Return which of the stems `[S, C, T]` ever sound."""
    return torch.nonzero(stems.abs().amax(dim=(1, 2)) >= SILENT_PEAK).flatten().tolist()


def score_track(
    references: Tensor, estimates: Tensor, sources: Sequence[str], metrics: Sequence[str], sample_rate_hz: int
) -> TrackScores:
    """Score the estimates of the stems `[S, C, T]` of a track; windowed metrics give the median of their windows.

    Stems that the track lacks are left out: BSSEval is undefined for them and would lose every window of the others.
    Only log_wmse is for them too.
    """
    kept = present_stems(references)
    names = tuple(sources[index] for index in kept)
    usual = [name for name in metrics if name != FOR_ABSENT]
    found: dict[str, tuple[Sequence[str], Tensor]] = {}
    if usual and kept:
        mixture = references.sum(dim=0)
        scene = make_scene(references[kept], estimates[kept], sample_rate_hz, mixture)
        found = {name: (names, values) for name, values in measure(scene, usual).items()}
    if FOR_ABSENT in metrics:
        scene = make_scene(references, estimates, sample_rate_hz)
        found[FOR_ABSENT] = (sources, measure(scene, [FOR_ABSENT])[FOR_ABSENT])
    values: dict[str, dict[str, float]] = {name: {} for name in metrics}
    frames: dict[str, Tensor] = {}
    for name, (stems, scores) in found.items():
        if scores.dim() == 2:
            frames[name] = scores
            scores = _median_of_windows(scores)
        values[name] = dict(zip(stems, scores.tolist(), strict=True))
    return TrackScores(names, values, frames)


def _median_of_windows(scores: Tensor) -> Tensor:
    """Take the median over the finite windows, as museval does; +inf where every window with a score is perfect."""
    finite = torch.where(scores.isfinite(), scores, torch.nan).nanmedian(dim=-1).values
    perfect = (scores == torch.inf).any(dim=-1) & finite.isnan()
    return finite.masked_fill(perfect, torch.inf)
