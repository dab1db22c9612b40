"""`polyres evaluate`: scores of models, or of stems that are files already, on songs with known stems."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from polyres.cli.shared.terminal import examples
from polyres.core.errors import ConfigError, InputError, PolyresError

if TYPE_CHECKING:
    from polyres.datasets.stems import TracksDataset
    from polyres.separation.options import SeparateOptions
    from polyres.study.evaluate.rows import ScoreRow
    from polyres.study.evaluate.run import EvaluateOptions
    from polyres.study.evaluate.subjects import ModelSubject, Subject

EPILOG = examples(
    "polyres evaluate default share --data SONGS — the default model, and what a fair share of the mixture scores",
    "polyres evaluate RUN htdemucs --data MUSDB --layout musdb18hq --split test --against htdemucs — two models and "
    "their paired differences",
    "polyres evaluate RUN --data SONGS --parts --out parts — each resolution alone, and all but each",
    "polyres evaluate --estimates separated/other --data SONGS — stems that another program made",
    "SONGS holds a folder per song with drums.wav, bass.wav, other.wav and vocals.wav; polyres synth SONGS --miniature "
    "makes some.",
)
Given = TypeVar("Given", str, Path)
DEFAULT_METRICS = "nsdr,sdr"
TABLES_FILE = "tables.md"
PARQUET_FILE = "scores.parquet"

Models = Annotated[list[str] | None, typer.Argument(metavar="[MODEL...]", help="Names or paths as for separate.")]
Data = Annotated[
    Path | None,
    typer.Option(help="Folder of songs with known stems; or YAML with roots, a recipe or a run's config.yaml."),
]
Layout = Annotated[str | None, typer.Option(help="How the songs lie there: see polyres data check; found by default.")]
Split = Annotated[str | None, typer.Option(help="all, train, valid or test; all by default.")]
Estimates = Annotated[
    list[Path] | None,
    typer.Option(help="Score stems that are there: DIR/TRACK/vocals.wav, also DIR/test/TRACK … May be repeated."),
]
Metrics = Annotated[
    str, typer.Option(help="Comma-separated, or all: nsdr, sdr, isr, sir, sar, si_sdr, log_wmse, onset_correlation …")
]
Stems = Annotated[str, typer.Option(help="Stems to score, comma-separated.")]
Parts = Annotated[bool, typer.Option("--parts", help="Also each resolution alone, and all but each.")]
Shapley = Annotated[
    bool, typer.Option("--shapley", help="Also the exact Shapley value of every resolution: 2^R passes per song.")
]
OwnMixture = Annotated[
    bool, typer.Option("--own-mixture", help="Separate the track's mixture file, not the sum of its stems.")
]
MaxLength = Annotated[float | None, typer.Option(min=1.0, help="Score only the first seconds of every song, so many.")]
SampleRate = Annotated[int | None, typer.Option(min=1, help="Hz at which is scored; that of the songs by default.")]
Out = Annotated[Path, typer.Option(help="Folder of the results; what it holds is not done again.")]
Parquet = Annotated[bool, typer.Option("--parquet", help="Also write the rows to OUT/scores.parquet.")]
Average = Annotated[
    str, typer.Option(help="Over windows, then over tracks: median_of_medians, mean_of_medians or mean.")
]
Intervals = Annotated[bool, typer.Option("--intervals", help="Print the interval over tracks of every stem too.")]
Against = Annotated[
    str | None,
    typer.Option(help="Also print paired differences to this model, one of those scored, with intervals."),
]
Overlap = Annotated[float, typer.Option(min=0.0, max=0.99, help="Share of a segment that the next one repeats.")]
Shifts = Annotated[int, typer.Option(min=0, help="Shifted passes that are averaged.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[str, typer.Option(help="auto, fp32 or bf16.")]
Workers = Annotated[int, typer.Option(min=1, help="Songs scored at the same time, beside the one being separated.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the rows as JSON lines instead of a table.")]


@dataclass(frozen=True)
class View:
    """How results are shown."""

    average: str
    against: str | None
    intervals: bool
    as_json: bool


def evaluate(
    models: Models = None,
    data: Data = None,
    layout: Layout = None,
    split: Split = None,
    estimates: Estimates = None,
    metrics: Metrics = DEFAULT_METRICS,
    stems: Stems = "drums,bass,other,vocals",
    parts: Parts = False,
    shapley: Shapley = False,
    own_mixture: OwnMixture = False,
    max_length_s: MaxLength = None,
    sample_rate: SampleRate = None,
    out: Out = Path("scores"),
    parquet: Parquet = False,
    average: Average = "median_of_medians",
    intervals: Intervals = False,
    against: Against = None,
    overlap: Overlap = 0.25,
    shifts: Shifts = 0,
    device: Device = "auto",
    precision: Precision = "fp32",
    workers: Workers = 1,
    as_json: AsJson = False,
) -> None:
    """Score models on songs with known stems, and keep every score as a row.

    MODEL may also be mixture, share (mixture / stems) or silence: what a model has to beat.

    OUT gets scores.jsonl, tables.md and, for sdr, isr, sir and sar, museval/MODEL/test/TRACK.json in museval's schema.

    sdr and its kin are over windows of one second, as in museval; nsdr and the others are over whole tracks.
    """
    if data is None:
        raise ConfigError("no songs to score on; give --data DIR")
    if not models and not estimates:
        raise ConfigError("nothing to score; name a model, such as default, or give --estimates DIR")
    from polyres.metrics.aggregate import AGGREGATIONS
    from polyres.separation.options import SeparateOptions
    from polyres.study.evaluate.rows import check_pyarrow
    from polyres.study.evaluate.run import EvaluateOptions
    from polyres.study.evaluate.subjects import SongChoices, open_songs

    AGGREGATIONS.build(average)
    if parquet:
        check_pyarrow()
    sources = _words(stems)
    problems: list[str] = []
    options = EvaluateOptions(_metric_names(metrics), workers, own_mixture)
    tracks = open_songs(data, SongChoices(sources, layout, split, sample_rate, max_length_s))
    separate = SeparateOptions(overlap=overlap, shifts=shifts)
    guard = _Guard(len(models or []) + len(estimates or []), problems)
    wholes = guard.all_of(models or [], lambda name: _model(name, device, precision, separate))
    subjects = [part for one in wholes for part in _with_parts(one, parts, shapley)]
    subjects += guard.all_of(estimates or [], _folder)
    reference = None if against is None else _reference(against, subjects)
    rows = _run(subjects, tracks, out, options, problems)
    rows += _shapley(wholes, rows, out) if shapley else []
    _keep(rows, sources, out, View(average, reference, intervals, as_json), parquet)
    _refuse_unscored(problems, rows, out)


def _refuse_unscored(problems: list[str], rows: list[ScoreRow], out: Path) -> None:
    """End with an error where something could not be scored."""
    if problems:
        scored = len({(row.model, row.part, row.track) for row in rows})
        raise InputError(
            f"{len(problems)} of {len(problems) + scored} could not be scored, as told above; mend them and run this "
            f"again; {scored} {'is' if scored == 1 else 'are'} in {out}"
        )


def _reference(against: str, subjects: list[Subject]) -> str:
    """Return the name in the results of what others are compared with; it may be given as the model was."""
    from polyres.batch.jobs import run_name
    from polyres.separation.labels import model_label

    names = list(dict.fromkeys(subject.name for subject in subjects))
    for name in (against, model_label(against), run_name(Path(against).expanduser().resolve())):
        if name in names:
            return name
    raise ConfigError(f"--against {against!r} is not among what is scored: {', '.join(names)}; name one of these")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _metric_names(text: str) -> tuple[str, ...]:
    from polyres.metrics.catalogue import METRICS

    return tuple(METRICS.names()) if text.strip() == "all" else _words(text)


def _run(
    subjects: list[Subject], tracks: TracksDataset, out: Path, options: EvaluateOptions, problems: list[str]
) -> list[ScoreRow]:
    """Score with a line per track on stderr; what cannot be scored is told there, and added to the problems."""
    from polyres.study.evaluate.run import count_jobs
    from polyres.study.evaluate.run import evaluate as run

    total = count_jobs(subjects, tracks, out, options)
    done, start = 0, time.monotonic()

    def report(model: str, part: str, track: str) -> None:
        nonlocal done
        done += 1
        left_s = (time.monotonic() - start) / done * (total - done)
        left = f"  about {left_s / 60:.0f} min left" if left_s >= 60 else ""
        typer.echo(f"{done}/{total}  {model}  {part}  {track}{left}", err=True)

    def failed(line: str) -> None:
        problems.append(line)
        typer.echo(f"not scored: {line}", err=True)

    rows = run(subjects, tracks, out, replace(options, failed=failed), report)
    for line in tracks.warnings:
        typer.echo(f"warning: {line}", err=True)
    return rows


class _Guard:
    """Opens what is scored; one of several that cannot be opened is told, and does not stop the others."""

    def __init__(self, count: int, problems: list[str]) -> None:
        self._left, self._problems = count, problems

    def all_of(self, given: Sequence[Given], make: Callable[[Given], Subject]) -> list[Subject]:
        """Open each; the last that could be scored raises where none could."""
        made = []
        for one in given:
            try:
                made.append(make(one))
            except PolyresError as error:
                self._left -= 1
                if not self._left:
                    raise
                self._problems.append(str(error))
                typer.echo(f"not scored: {error}", err=True)
        return made


def _model(name: str, device: str, precision: str, options: SeparateOptions) -> Subject:
    from polyres.batch.jobs import run_name
    from polyres.separation.load import load_separator
    from polyres.study.evaluate.subjects import GUESSES, GuessSubject, ModelSubject, origin_of

    if name in GUESSES:
        return GuessSubject(name)
    separator = load_separator(name, device, precision)
    folder = Path(name).expanduser().resolve()
    if folder.is_dir() and run_name(folder) != folder.name:
        separator.name = run_name(folder)  # ARM/seedN, as the rows of the study have it
    return ModelSubject(separator, origin_of(name, separator), options)


def _folder(folder: Path) -> Subject:
    from polyres.audio.track_files import require_folder
    from polyres.study.evaluate.subjects import FolderSubject

    return FolderSubject(require_folder(folder), folder.resolve().name)


def _with_parts(whole: Subject, parts: bool, shapley: bool) -> list[Subject]:
    from polyres.study.evaluate.shapley import coalitions_of
    from polyres.study.evaluate.subjects import ModelSubject, parts_of

    if not isinstance(whole, ModelSubject):
        return [whole]
    if shapley:
        return [whole, *coalitions_of(whole)]
    return [whole, *(parts_of(whole) if parts else [])]


def _shapley(wholes: list[Subject], rows: list[ScoreRow], out: Path) -> list[ScoreRow]:
    from polyres.study.evaluate.shapley import add_shapley
    from polyres.study.evaluate.subjects import ModelSubject

    chosen: list[ModelSubject] = [whole for whole in wholes if isinstance(whole, ModelSubject)]
    return [row for whole in chosen for row in add_shapley(out, whole, rows)]


def _keep(rows: list[ScoreRow], sources: tuple[str, ...], out: Path, view: View, parquet: bool) -> None:
    """Write the tables, and print them or the rows."""
    from polyres.core.whole_files import write_whole
    from polyres.study.evaluate.rows import row_text, write_parquet
    from polyres.study.evaluate.summary import markdown, paired, paired_markdown, shown_lines, summarise

    lines = shown_lines(summarise(rows, sources, view.average))
    text = f"{view.average.replace('_', ' ')} over tracks\n\n{markdown(lines, sources, view.intervals)}\n"
    if view.against is not None:
        text += f"\n{paired_markdown(paired(rows, view.against), view.against)}\n"
    write_whole(out / TABLES_FILE, text)
    if parquet:
        write_parquet(rows, out / PARQUET_FILE)
    if view.as_json:
        text = "".join(f"{row_text(row)}\n" for row in rows)
    typer.echo(text, nl=False)
