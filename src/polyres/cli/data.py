"""`polyres data`: look into folders of tracks before training on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from polyres.cli.shared.terminal import console, examples

if TYPE_CHECKING:
    from rich.table import Table

    from polyres.datasets.check import DataCheck, TrackCheck

CHECK_EPILOG = examples(
    "polyres data check DATA/valid — folders of songs with a file per stem, or whatever else is found there",
    "polyres data check MUSDB --layout musdb18hq --split test — one part of a data set",
)
INDEX_EPILOG = examples("polyres data index DATA/train — before a training, or to see what is audible")
PIPE_WIDTH = 160
PROBLEMS_STATUS = 1

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the data set.")]
LayoutName = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="NAME",
        help="stems, synthetic, musdb18hq, musdb18, slakh2100 or moisesdb; found out if left out.",
    ),
]
Split = Annotated[Literal["all", "train", "valid", "test"], typer.Option(help="Part of a data set that has parts.")]
Sources = Annotated[str, typer.Option(metavar="A,B", help="Names of the stems that are wanted.")]
DEFAULT_SOURCES = "drums,bass,other,vocals"


def register(app: typer.Typer) -> None:
    """Add `data` to the command."""
    group = typer.Typer(no_args_is_help=True, help="Check and measure folders of tracks.")
    group.command("check", epilog=CHECK_EPILOG)(check)
    group.command("index", epilog=INDEX_EPILOG)(index)
    app.add_typer(group, name="data")


def check(
    folder: Folder,
    layout: LayoutName = None,
    split: Split = "all",
    sources: Sources = DEFAULT_SOURCES,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Check every track of a data set and say whether it is fit for training.

    Problems are files that are missing, unreadable, cut or hold NaN, stems of unequal length, files of different
    rates in one track, and mixtures that are not the sum of their stems (residual above -20 dB). Stems that a track
    may lack, silent stems and clipped samples are told as notes.

    Exit status: 0 without problems, 1 with problems, 2 if there is no track at all.
    """
    from polyres.datasets.check import check_data

    with _bar() as progress:
        found = check_data(folder, layout, split, _names(sources), progress)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        _print(found)
    if found.problems:
        raise typer.Exit(PROBLEMS_STATUS)


def index(folder: Folder, layout: LayoutName = None, split: Split = "all", sources: Sources = DEFAULT_SOURCES) -> None:
    """Measure lengths, activity and loudness of every stem and keep them in the folder, as training does at its start.

    Files that were measured before and have not changed are not read again.
    """
    from polyres.datasets.layouts import guess_layout
    from polyres.datasets.tracks import index_tracks

    names = _names(sources)
    layout = layout or guess_layout(folder, names) or "stems"
    tracks = index_tracks(folder, names, layout, split, typer.echo)
    for line in (line for track in tracks for line in track.warnings):
        typer.echo(f"warning: {line}")
    for source in names:
        stems = [track.stems[source] for track in tracks if source in track.stems]
        if stems:
            active_h = sum(int(stem.active.sum()) for stem in stems) / 3600
            loudness = sorted(stem.loudness_lufs for stem in stems)[len(stems) // 2]
            typer.echo(f"{source}: {len(stems)} stems, {active_h:.2f} h active, median {loudness:.1f} LUFS")
        else:
            typer.echo(f"{source}: in no track")
    hours = sum(track.length_s for track in tracks) / 3600
    typer.echo(f"{len(tracks)} tracks, {hours:.2f} h, layout {layout}")


def _names(text: str) -> tuple[str, ...]:
    """Read names that commas part."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        from polyres.core.errors import ConfigError

        raise ConfigError(f"--sources is {text!r}; name at least one stem, such as {DEFAULT_SOURCES}")
    return names


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr; silent where that is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("tracks", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _print(found: DataCheck) -> None:
    """Print the table, the problems and the verdict."""
    from rich.markup import escape

    out = console(PIPE_WIDTH)
    out.print(_table(found))
    for track in found.tracks:
        for problem in track.problems:
            out.print(f"problem: {escape(track.name)}: {escape(problem)}", soft_wrap=True, highlight=False)
    total = found.to_dict()["total"]
    hours, minutes = divmod(round(total["length_s"] / 60), 60)
    seconds = f"{total['length_s']:.1f} s" if total["length_s"] < 600 else f"{hours} h {minutes:02d} min"
    facts = f"{total['tracks']} tracks, {seconds}, layout {found.layout}"
    facts += f", split {found.split}" if found.split != "all" else ""
    verdict = "no problems"
    if found.problems:
        verdict = f"{total['problems']} problems in {total['tracks_with_problems']} tracks"
    out.print(f"{facts}: {verdict}", soft_wrap=True, highlight=False)


def _table(found: DataCheck) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("track", "length", "rate", "ch", "LUFS", "residual", "notes"):
        is_text = title in ("track", "notes")
        table.add_column(title, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    for track in found.tracks:
        table.add_row(*(escape(cell) for cell in _cells(track)))
    return table


def _cells(track: TrackCheck) -> tuple[str, ...]:
    minutes, seconds = divmod(track.length_s, 60)
    return (
        track.name,
        f"{int(minutes)}:{seconds:04.1f}",
        "/".join(str(rate_hz) for rate_hz in track.sample_rates_hz) or "-",
        "/".join(str(channels) for channels in track.channels) or "-",
        "-" if track.loudness_lufs is None else f"{track.loudness_lufs:.1f}",
        "-" if track.residual_db is None else f"{track.residual_db:.1f} dB",
        "; ".join([*(["PROBLEM"] if track.problems else []), *track.notes]),
    )
