"""`polyres evaluate`: scores of models, or of stems that are files already, on songs with known stems."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyres.core.errors import ConfigError

if TYPE_CHECKING:
    from polyres.data.datasets import TracksDataset
    from polyres.experiments.evaluate import EvaluateOptions
    from polyres.experiments.rows import ScoreRow
    from polyres.experiments.subjects import Subject
    from polyres.inference.options import SeparateOptions

DEFAULT_METRICS = "nsdr,sdr"


def register(app: typer.Typer) -> None:
    """Add `evaluate` to the command.

    Args:
        app: the command.
    """
    app.command("evaluate")(evaluate)


def evaluate(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL...]", help="Names or paths as for separate --model.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of songs with known stems.")] = None,
    layout: Annotated[str, typer.Option(help="How the songs lie there: see polyres data check --help.")] = "stems",
    split: Annotated[str, typer.Option(help="all, train, valid or test.")] = "all",
    estimates: Annotated[
        list[Path] | None, typer.Option(help="Score stems that are there: DIR/TRACK/vocals.wav … May be repeated.")
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="Comma-separated: nsdr, sdr, isr, sir, sar, si_sdr, log_wmse …")
    ] = DEFAULT_METRICS,
    stems: Annotated[str, typer.Option(help="Stems to score, comma-separated.")] = "drums,bass,other,vocals",
    parts: Annotated[bool, typer.Option("--parts", help="Also each resolution alone, and all but each.")] = False,
    own_mixture: Annotated[
        bool, typer.Option("--own-mixture", help="Separate the track's mixture file, not the sum of its stems.")
    ] = False,
    max_length_s: Annotated[float | None, typer.Option(min=1.0, help="Score only this much of every song.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results; what it holds is not done again.")] = Path("scores"),
    average: Annotated[str, typer.Option(help="Over tracks in the table: median or mean.")] = "median",
    against: Annotated[
        str | None, typer.Option(help="Also print paired differences to this model, with intervals over tracks.")
    ] = None,
    overlap: Annotated[float, typer.Option(min=0.0, max=0.99, help="Of segments.")] = 0.25,
    shifts: Annotated[int, typer.Option(min=0, help="Shifted passes that are averaged.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "fp32",
    workers: Annotated[int, typer.Option(min=1, help="Tracks scored at the same time.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON lines instead of a table.")] = False,
) -> None:
    """Score models on songs with known stems, and keep every score as a row.

    MODEL may also be mixture, share (mixture / stems) or silence: what a model has to beat.

    OUT gets scores.jsonl and, for sdr, isr, sir and sar, one file per track in museval's schema.

    sdr and its kin are medians over windows of one second, as museval computes them; nsdr is over whole tracks.
    """
    if data is None:
        raise ConfigError("no songs to score on; give --data DIR")
    if not models and not estimates:
        raise ConfigError("nothing to score; name a model, such as default, or give --estimates DIR")
    if average not in ("median", "mean"):
        raise ConfigError(f"average {average!r} is not known; choose median or mean")
    from polyres.data.datasets import TracksConfig, TracksDataset
    from polyres.experiments.evaluate import EvaluateOptions
    from polyres.inference.options import SeparateOptions

    sources = _words(stems)
    where = {"roots": [str(data)], "layout": layout, "split": split, "sources": sources, "max_length_s": max_length_s}
    tracks = TracksDataset(TracksConfig.from_dict(where))
    options = EvaluateOptions(_words(metrics), workers, own_mixture)
    separate = SeparateOptions(overlap=overlap, shifts=shifts)
    subjects = _subjects(models or [], estimates or [], parts, device, precision, separate)
    rows = _run(subjects, tracks, out, options)
    _print(rows, sources, average, against, as_json)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _run(subjects: list[Subject], tracks: TracksDataset, out: Path, options: EvaluateOptions) -> list[ScoreRow]:
    from polyres.experiments.evaluate import count_jobs
    from polyres.experiments.evaluate import evaluate as run

    total = count_jobs(subjects, tracks, out, options)
    done = 0

    def report(model: str, part: str, track: str) -> None:
        nonlocal done
        done += 1
        typer.echo(f"{done}/{total}  {model}  {part}  {track}", err=True)

    rows = run(subjects, tracks, out, options, report)
    for line in tracks.warnings:
        typer.echo(f"warning: {line}", err=True)
    return rows


def _subjects(
    models: list[str], estimates: list[Path], parts: bool, device: str, precision: str, options: SeparateOptions
) -> list[Subject]:
    from polyres.data.track_files import require_folder
    from polyres.experiments.subjects import GUESSES, FolderSubject, GuessSubject, ModelSubject, origin_of, parts_of
    from polyres.inference.load import load_separator

    subjects: list[Subject] = []
    for name in models:
        if name in GUESSES:
            subjects.append(GuessSubject(name))
            continue
        separator = load_separator(name, device, precision)
        whole = ModelSubject(separator, origin_of(name, separator), options)
        subjects += [whole, *(parts_of(whole) if parts else [])]
    subjects += [FolderSubject(require_folder(folder), folder.resolve().name) for folder in estimates]
    return subjects


def _print(rows: list[ScoreRow], sources: tuple[str, ...], average: str, against: str | None, as_json: bool) -> None:
    from polyres.experiments.paired import paired, paired_markdown
    from polyres.experiments.summary import markdown, summarise

    if as_json:
        for row in rows:
            typer.echo(json.dumps(asdict(row), ensure_ascii=False))
        return
    typer.echo(f"{average} over tracks\n")
    typer.echo(markdown(summarise(rows, sources, "median" if average == "median" else "mean"), sources))
    if against is not None:
        typer.echo("\n" + paired_markdown(paired(rows, against), against))
