"""`polyres synth`: made songs, composed or from scores, sung notes and loops."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyres.cli.shared.terminal import examples
from polyres.core.errors import ConfigError

if TYPE_CHECKING:
    from polyres.synth.jobs import Made, Totals

EPILOG = examples(
    "polyres synth DATA/train --hours 2 --jobs 2 — composed songs, played by built-in synthesisers",
    "polyres synth DATA/valid --tracks 8 --seed 1000 — other songs, to validate on",
    "polyres synth TRIAL --miniature — a few short songs in TRIAL/train and TRIAL/valid",
    "polyres synth DATA/scores --midi MIDI_FOLDER --takes 2 — scores, played by an installed instrument bank",
    "polyres synth DATA/modules --modules MODULES --takes 2 — tracker modules, tempo and pitch drawn for each take",
    "Every track is a folder with drums.wav, bass.wav, other.wav, vocals.wav (those that sound) and a manifest.json.",
)
MINIATURE_TRACKS = 4
MINIATURE_S = 6.0


class Instruments(StrEnum):
    """What plays the notes."""

    electronic = "electronic"
    sampled = "sampled"
    both = "both"


def synth(
    out: Annotated[Path, typer.Argument(help="Folder that gets one sub-folder of stems per track.")],
    hours: Annotated[float | None, typer.Option(help="Make tracks until there are so many hours of audio.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same tracks.")] = 0,
    midi: Annotated[Path | None, typer.Option(help="Folder of MIDI files to play stem by stem.")] = None,
    bank: Annotated[
        list[Path] | None, typer.Option(help="SF2 or SF3 bank, repeatable; by default one that is installed.")
    ] = None,
    singer: Annotated[
        Path | None, typer.Option(help="Folder of sung notes: sings the vocals, or solo where nothing else is made.")
    ] = None,
    loops: Annotated[Path | None, typer.Option(help="Loops and one-shots: drum and bass tracks.")] = None,
    modules: Annotated[
        Path | None, typer.Option(help="Folder of tracker modules (.mod .s3m .xm .it) to play stem by stem.")
    ] = None,
    recordings: Annotated[
        Path | None,
        typer.Option(help="Folder of recorded instruments (drums_*/, bass_*/, others): they play most of a song."),
    ] = None,
    compose: Annotated[
        bool, typer.Option("--compose", help="Compose songs; what happens anyway where no folder is given.")
    ] = False,
    instruments: Annotated[
        Instruments | None, typer.Option(help="Built-in synthesisers, sampled ones from a bank, or both.")
    ] = None,
    style: Annotated[list[str] | None, typer.Option(help="Style of composed songs, repeatable; all in turn.")] = None,
    length: Annotated[float | None, typer.Option(help="Seconds of a composed song; 60, or 6 for miniatures.")] = None,
    takes: Annotated[int, typer.Option(min=1, help="Without --hours: renderings of every MIDI file and module.")] = 1,
    tracks: Annotated[int | None, typer.Option(min=1, help="Without --hours: tracks of every other kind; 16.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Tracks made at the same time; changes nothing in them.")] = 1,
    miniature: Annotated[
        bool, typer.Option("--miniature", help="A few short songs in train and valid, for a trial.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Make songs with known stems; what is finished already is skipped."""
    from polyres.synth.jobs import Totals

    totals = Totals()
    folders = {"midi": midi, "singer": singer, "loops": loops, "modules": modules, "recordings": recordings}
    if miniature:
        if any(value is not None for value in (hours, instruments, *folders.values())) or bank or style:
            raise ConfigError("--miniature goes with --seed, --tracks and --length alone; leave the other options out")
        _make_miniature(out, seed, tracks or MINIATURE_TRACKS, MINIATURE_S if length is None else length, totals)
    else:
        given: dict[str, Any] = {
            "seed": seed,
            "hours": hours,
            "takes": takes,
            "compose": compose,
            "instruments": None if instruments is None else instruments.value,
            "banks": [str(path) for path in bank or ()],
            "styles": list(style or ()),
        }
        given |= {key: str(path) for key, path in folders.items() if path}
        given |= {key: value for key, value in (("tracks", tracks), ("length_s", length)) if value is not None}
        _make_songs(out, given, jobs, totals)
    _show(out, totals, as_json)


def _make_songs(out: Path, given: dict[str, Any], jobs: int, totals: Totals) -> None:
    """Make what was asked for, and write down what that was."""
    from polyres.synth.jobs import run_jobs
    from polyres.synth.requests import Order, plan_order, write_summary

    order = Order.from_dict(given)
    planned = plan_order(order, out, lambda line: typer.echo(line, err=True))
    with _bar(len(planned), totals) as tell:
        made = run_jobs(planned, jobs, tell)
    write_summary(out, order, made)


def _make_miniature(out: Path, seed: int, tracks: int, length_s: float, totals: Totals) -> None:
    """Make miniatures; a quarter of them, but at least one, for validation."""
    from polyres.synth.composed import make_miniature

    valid = max(1, tracks // 4)
    splits = {"train": tracks - valid, "valid": valid} if tracks > 1 else {"train": 1}
    for one in make_miniature(out, seed, length_s=length_s, splits=splits):
        totals.add(one)


@contextmanager
def _bar(total: int, totals: Totals) -> Iterator[Callable[[Made], None]]:
    """Count tracks, with a bar on a terminal and elsewhere a line at every tenth of them; both on stderr."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("tracks, {task.fields[hours]:.2f} h"), TimeElapsedColumn())
    bar = Progress(
        *columns, TextColumn("left"), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )
    task = bar.add_task("", total=total, hours=0.0)
    told = 0

    def tell(made: Made) -> None:
        nonlocal told
        totals.add(made)
        done, hours = totals.tracks + totals.skipped, totals.there_s / 3600.0
        bar.update(task, completed=done, hours=hours)
        if not console.is_terminal and 10 * done // total > told:
            told = 10 * done // total
            typer.echo(f"{done} of {total} tracks, {hours:.2f} h", err=True)

    with bar:
        yield tell


def _show(out: Path, totals: Totals, as_json: bool) -> None:
    """Print what was made, how fast, and how much there is of every stem."""
    facts = totals.to_dict()
    if as_json:
        typer.echo(json.dumps({"out": str(out), **facts}))
        return
    typer.echo(f"{'stem':<8} {'tracks':>6} {'hours':>8}")
    for stem, there in facts["stems"].items():
        typer.echo(f"{stem:<8} {there['tracks']:>6} {there['hours']:>8.3f}")
    before = f", {totals.skipped} were there" if totals.skipped else ""
    typer.echo(f"{totals.tracks} tracks written to {out}{before}: {facts['hours_made']:.3f} h made")
    if totals.hours_per_cpu_hour is not None:
        typer.echo(f"speed: {totals.hours_per_cpu_hour:.1f} hours of audio per hour of CPU")
