"""The `polyres` command: its groups, and errors as one line each."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

import polyres
from polyres.cli import (
    complexity,
    data,
    decode,
    encode,
    enhance,
    evaluate,
    fusion,
    ladder,
    listen,
    models,
    pack,
    paper,
    reconstruct,
    runs,
    separate,
    studio,
    study,
    synth,
    train,
)
from polyres.cli.examples import examples
from polyres.cli.streams import prepare_streams
from polyres.core.cpu import tune_cpu
from polyres.core.errors import PolyresError
from polyres.core.interrupts import interruptible
from polyres.core.plugins import PLUGINS_VARIABLE, use_plugin

REGISTER: tuple[Callable[[typer.Typer], None], ...] = (
    separate.register,
    models.register,
    train.register,
    runs.register,
    pack.register,
    synth.register,
    evaluate.register,
    reconstruct.register,
    encode.register,
    decode.register,
    enhance.register,
    ladder.register,
    study.register,
    complexity.register,
    fusion.register,
    paper.register,
    listen.register,
    studio.register,
    data.register,
)

EPILOG = examples(
    "polyres separate song.mp3 — drums, bass, other and vocals, in separated/polyres-small/song/",
    "polyres studio — the same in a browser, with a mixer",
    "polyres reconstruct song.mp3 — through a codec and back, with scores",
    "polyres train recipes/debug.yaml --out RUN — the whole path of training in a minute",
    "polyres COMMAND --help shows what a command takes, with examples.",
)
_USAGE_STATUS = 2
_INTERRUPTED_STATUS = 130


def build_app() -> typer.Typer:
    """Put the command together from its groups."""
    app = typer.Typer(
        name="polyres",
        help="Split songs into stems, and take audio through codecs, with models that listen at many time-frequency "
        "resolutions.",
        epilog=EPILOG,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
    )
    app.callback(invoke_without_command=True)(_without_command)
    for register in REGISTER:
        register(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"polyres {polyres.__version__}")
        raise typer.Exit


def _without_command(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
    plugins: Annotated[
        list[Path] | None,
        typer.Option(
            "--plugin",
            metavar="FILE.py",
            help="Load a file that registers parts of your own (fusions, metrics, codecs …), before the command; "
            f"repeatable. {PLUGINS_VARIABLE} does the same.",
        ),
    ] = None,
) -> None:
    for plugin in plugins or ():
        use_plugin(plugin)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: the words after `polyres`; those of the process by default.

    Returns:
        The exit status: 0, that of the error (2 for everything a user can mend), or 130 when interrupted.
    """
    # Huge pages for large tensors: far fewer page faults. torch reads this once, at its first tensor.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if "torch" not in sys.modules:
        tune_cpu()
    lost = prepare_streams()
    status = _run(arguments)
    if (error := lost()) is not None:
        return status or _report(f"a part of the output could not be printed ({error.strerror}); print it elsewhere", 2)
    return status


def _run(arguments: Sequence[str] | None) -> int:
    """Run the command and return its status; errors are one line."""
    try:
        with interruptible(signal.SIGINT):
            status = build_app()(arguments, prog_name="polyres", standalone_mode=False)
    except PolyresError as error:
        return _report(str(error), error.exit_code)
    except typer.TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "polyres")
        return _report(f"{error.format_message().rstrip('.')} ({command} --help shows what is allowed)", _USAGE_STATUS)
    except (typer.Abort, KeyboardInterrupt):
        return _report("interrupted", _INTERRUPTED_STATUS)
    return status if isinstance(status, int) else 0


def _report(message: str, status: int) -> int:
    print("error: " + " ".join(message.splitlines()), file=sys.stderr)
    return status
