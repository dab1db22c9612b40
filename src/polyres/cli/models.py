"""`polyres models`: what can be loaded by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

PIPE_WIDTH = 240


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("models")(models)


def models(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the models and codecs that are known by name: what they give, size, licence, and whether they are here."""
    from polyres.models.codec_list import known_codecs
    from polyres.models.registry import known_models

    separators, codecs = known_models(), known_codecs()
    if as_json:
        rows = [{"kind": "separator", **asdict(one)} for one in separators]
        typer.echo(json.dumps([*rows, *({"kind": "codec", **asdict(one)} for one in codecs)], indent=2))
        return
    about = ("parameters", "licence", "from", "present")
    _print(
        ("name", "stems", *about),
        [
            (one.name, " ".join(one.sources), _number(one.parameters), one.licence, one.source, _yes(one.present))
            for one in separators
        ],
    )
    typer.echo("")
    _print(
        ("codec", "what", *about),
        [
            (one.name, one.summary, _number(one.parameters), one.licence, one.source, _yes(one.present))
            for one in codecs
        ],
    )


def _number(value: int) -> str:
    return f"{value:,}".replace(",", " ") if value else "–"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _print(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; a pipe has no width of its own, there every row stays on one line."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, justify="right" if title == "parameters" else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
    console.print(table)
