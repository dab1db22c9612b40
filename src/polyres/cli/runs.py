"""`polyres runs`: what training runs did, listed and beside each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyres.cli.shared.terminal import console, examples

if TYPE_CHECKING:
    from rich.table import Table

    from polyres.separation.training.run_table import Comparison, RunSummary

LIST_EPILOG = examples("polyres runs list runs — all runs below the folder runs, one line each")
COMPARE_EPILOG = examples("polyres runs compare runs/small runs/other — what differs in their recipes and results")


def register(app: typer.Typer) -> None:
    """Add the group `runs` to the command."""
    group = typer.Typer(help="Look at training runs: list them, or compare them.", no_args_is_help=True)
    group.command("list", epilog=LIST_EPILOG)(list_)
    group.command("compare", epilog=COMPARE_EPILOG)(compare)
    app.add_typer(group, name="runs")


def list_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that holds runs, at any depth.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List runs: state, steps, time, parameters, best validation score and its sources."""
    from polyres.separation.training.run_table import list_runs

    runs = list_runs(folder)
    if as_json:
        typer.echo(json.dumps([run.to_dict() for run in runs], indent=2))
        return
    out = console()
    out.print(_summary_table(runs))
    for run in runs:
        if run.problem is not None:
            out.print(f"{run.name}: {run.problem}", markup=False, highlight=False, soft_wrap=True)


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Folders of two or more runs.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Compare runs: settings that differ, best scores after equal steps and equal times, and at the end."""
    from polyres.separation.training.run_table import compare_runs

    comparison = compare_runs(runs)
    if as_json:
        typer.echo(json.dumps(comparison.to_dict(), indent=2))
        return
    out = console()
    for title, table in _comparison_tables(comparison):
        out.print(title, style="bold", highlight=False)
        out.print(table)
        out.print()


def duration_text(seconds: float) -> str:
    """Word a duration as hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _table(left: list[str], right: list[str]) -> Table:
    """Return an empty table: columns of text, then columns of numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _summary_table(runs: Sequence[RunSummary]) -> Table:
    """Return one row per run."""
    sources = list(dict.fromkeys(source for run in runs for source in run.source_scores))
    table = _table(["run", "state"], ["step", "time", "parameters", "best", *sources, "weights"])
    for run in runs:
        parameters = "–" if run.parameters is None else f"{run.parameters:,}".replace(",", " ")
        figures = [str(run.step), duration_text(run.elapsed_s), parameters, _db(run.score)]
        scores = [_db(run.source_scores.get(source)) for source in sources]
        weights = "–" if run.best is None else str(run.best.get("weights", "–"))
        table.add_row(_plain(run.name), run.state, *figures, *scores, weights)
    return table


def _comparison_tables(comparison: Comparison) -> list[tuple[str, Table]]:
    """Return the tables of a comparison with their titles, those without rows left out."""
    runs = comparison.runs
    names = [_plain(run.name) for run in runs]
    tables = [("Best nSDR in dB", _summary_table(runs))]
    if comparison.differences:
        table = _table(["setting", *names], [])
        for key, values in comparison.differences.items():
            table.add_row(_plain(key), *(_plain(_short(value)) for value in values))
        tables.append(("Settings that differ", table))
    for title, column, rows, word in (
        ("Best nSDR in dB after equal steps", "step", comparison.by_step, lambda at: str(int(at))),
        ("Best nSDR in dB after equal times", "time", comparison.by_time, duration_text),
    ):
        if rows:
            table = _table([], [column, *names])
            for at, best in rows:
                table.add_row(word(at), *(_db(score) for score in best))
            tables.append((title, table))
    return tables


def _db(score: float | None) -> str:
    return "–" if score is None else f"{score:.2f}"


def _short(value: Any, limit: int = 60) -> str:
    """Return a setting as JSON, cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _plain(text: str) -> str:
    """Return a text that rich prints as it is."""
    from rich.markup import escape

    return escape(text)
