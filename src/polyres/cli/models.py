"""`polyres models`: what can be loaded by name."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

PIPE_WIDTH = 200


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("models")(models)


def models(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the models that are known by name: stems, size, licence, where from, and whether they are here already."""
    from rich.console import Console
    from rich.table import Table

    from polyres.models.registry import known_models

    known = known_models()
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in known], indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for title in ("name", "stems", "parameters", "licence", "from", "present"):
        table.add_column(title, justify="right" if title == "parameters" else "left", overflow="fold")
    for one in known:
        table.add_row(
            one.name,
            " ".join(one.sources),
            f"{one.parameters:,}".replace(",", " ") if one.parameters else "–",
            one.licence,
            one.source,
            "yes" if one.present else "no",
        )
    # A pipe has no width of its own; there every model stays on one line.
    console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
    console.print(table)
