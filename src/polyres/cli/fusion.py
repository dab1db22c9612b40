"""`polyres fusion`: what the resolutions of a model weigh, and what they do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from polyres.cli.shared.terminal import examples
from polyres.core.errors import OutputError

EPILOG = examples(
    "polyres fusion RUN — the weights of every resolution, and how they moved over the epochs",
    "polyres fusion RUN --data SONGS --out report — also what each resolution does, with figures",
)


def fusion(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Run folder, checkpoint, weight file, or a model known by name."),
    ],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of tracks with stems, to see what the resolutions do.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for report.md, report.json and figures.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="best, raw or ema_…; the best by default, else the longest average.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="Busiest excerpt of every track; 0 takes it whole.")] = 30.0,
    max_tracks: Annotated[int, typer.Option(min=0, help="Tracks of the folder; 0 takes all.")] = 0,
    shapley: Annotated[bool, typer.Option(help="Try all coalitions of resolutions.")] = True,
    figures: Annotated[bool, typer.Option(help="Draw figures into --out.")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print as Markdown.")] = False,
) -> None:
    """Report how a model fuses its resolutions: weights per stage and source, how even they are, raw against averaged.

    Over the epochs too where there is a run. With --data also knock-outs, exact Shapley values, levels, correlations
    and gradients of every resolution, because a weight is not an importance.
    Tracks that cannot be read are told and left out; the exit status is then 2.
    """
    from polyres.cli.shared.terminal import print_tables
    from polyres.nn.device import resolve_device
    from polyres.report.figures import check_matplotlib
    from polyres.separation.fusion_report import text as fusion_text
    from polyres.separation.fusion_report.figures import draw_report
    from polyres.separation.fusion_report.report import build_report, choose_weights
    from polyres.separation.fusion_report.tracks import DataOptions, analyse_data
    from polyres.separation.fusion_report.weights_over_time import load_fusion_subject

    target = resolve_device(device)
    if out is not None and figures:
        check_matplotlib(otherwise="add --no-figures")
    subject = load_fusion_subject(run)
    chosen = choose_weights(subject, weights)
    listened, problems = None, list[str]()
    if data is not None:
        model = subject.use(chosen).to(target)
        options = DataOptions(data, seconds, max_tracks, shapley)
        listened = analyse_data(model, options, lambda line: typer.echo(line, err=True), problems.append)
    for problem in problems:
        typer.echo(f"error: {problem}", err=True)
    report = build_report(subject, chosen, listened)
    text = json.dumps(report.to_dict(), indent=2)
    if out is not None:
        _write(out, draw_report(report, out) if figures else [], fusion_text.markdown(report), text)
    if as_json:
        typer.echo(text)
    else:
        print_tables(fusion_text.report_tables(report), markdown)
    if problems:
        raise typer.Exit(2)


def _write(folder: Path, figures: Sequence[Path], markdown: str, text: str) -> None:
    """Write the report beside its figures, and say so."""
    from polyres.core.whole_files import write_whole

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}; choose another --out") from error
    write_whole(folder / "report.md", markdown)
    write_whole(folder / "report.json", text + "\n")
    typer.echo(f"{len(figures) + 2} files in {folder}", err=True)
