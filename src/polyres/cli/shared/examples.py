"""Examples below the options of a command."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """Put examples into the form of an epilog.

    Args:
        lines: a command, a dash and what it does each; further sentences may follow.

    Returns:
        Markup for typer, each line a paragraph of its own.
    """
    return "\n\n".join(("Examples:", *lines))
