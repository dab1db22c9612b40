"""Tables on the terminal, or as Markdown."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from polyres.core.tables import Table

PIPE_WIDTH = 200


def print_tables(tables: Iterable[Table], markdown: bool) -> None:
    """Print tables one below the other.

    Args:
        tables: what to print.
        markdown: as Markdown, else in columns.
    """
    if markdown:
        typer.echo("\n".join(table.markdown() for table in tables), nl=False)
        return
    from rich.console import Console
    from rich.table import Table as Columns
    from rich.text import Text

    # A pipe has no width of its own; there every row stays on one line.
    console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
    for index, table in enumerate(tables):
        columns = Columns(box=None, pad_edge=False)
        for column, title in enumerate(table.header):
            columns.add_column(Text(title), justify="left" if column < table.text_columns else "right", overflow="fold")
        for row in table.rows:
            columns.add_row(*(Text(cell) for cell in row))
        if index:
            console.print()
        if table.title:
            console.print(Text(table.title, style="bold"))
        console.print(columns)
        for note in table.notes:
            console.print(Text(note, style="dim"))
