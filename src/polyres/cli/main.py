"""The `polyres` command: its groups, and errors as one line each."""

from __future__ import annotations

import gc
import importlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperGroup

import polyres
from polyres.cli.shared.pipes import prepare_streams
from polyres.cli.shared.terminal import examples
from polyres.core.catalogue import PLUGINS_VARIABLE, use_plugin
from polyres.core.errors import PolyresError
from polyres.core.process import interruptible, tune_cpu

COMMANDS = {
    "separate": "Split songs into stems, file to file, in memory that does not grow with their length.",
    "models": "List the models and codecs that are known by name, and whether they are here; download them ahead.",
    "export": "Write a model as a graph for ONNX Runtime or OpenVINO, compared with torch first.",
    "train": "Train a model as a recipe says, and leave its best weights in the folder of the run.",
    "runs": "Look at training runs: list them, or compare them.",
    "pack": "Pack a recipe with compressed data and code, to train where there is no network.",
    "synth": "Make songs with known stems; what is finished already is skipped.",
    "evaluate": "Score models on songs with known stems, and keep every score as a row.",
    "reconstruct": "Send audio through a codec and compare what comes back: audio, scores and a figure per file.",
    "encode": "Code an audio file as latents that 'polyres decode' turns back into audio.",
    "decode": "Turn a latent file back into audio.",
    "enhance": "Change a codec's latent before it is decoded, and measure what that is worth.",
    "ladder": "Take a codec apart and say which of its parts loses what.",
    "study": "Train every arm of a study with every seed, score all, and compare them.",
    "complexity": "Count parameters and multiply-accumulates of models, and measure their speed and memory.",
    "fusion": "Report how a model fuses its resolutions: weights per stage and source, how even they are, raw against "
    "averaged.",
    "paper": "Turn studies into a paper's tables (LaTeX and Markdown), figures (PDF and PNG) and judged claims.",
    "listen": "Blind listening tests: make one, serve it, analyse it. Begin with new; simulate and power help "
    "planning.",
    "studio": "A page that separates songs and plays their stems.",
    "data": "Check and measure folders of tracks.",
}
"""All commands and the first lines of their help; `polyres.cli.NAME` holds each."""

EPILOG = examples(
    "polyres separate song.mp3 — drums, bass, other and vocals, in separated/polyres-small/song/",
    "polyres studio — the same in a browser, with a mixer",
    "polyres reconstruct song.mp3 — through a codec and back, with scores",
    "polyres train recipes/debug.yaml --out RUN — the whole path of training in a minute",
    "polyres COMMAND --help shows what a command takes, with examples.",
)
_HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
_USAGE_STATUS = 2
_TAG = re.compile(r"(\[[a-z#/@][^\[\]]*\])")  # rich.markup.escape does this, but its import takes 30 ms of every start
_INTERRUPTED_STATUS = 130


class _Commands(TyperGroup):
    """The commands by name and first line; the one that is called for is loaded, so that the others cost no time."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args and args[0] in self.commands:
            self.commands[args[0]] = load_command(args[0])
        return super().resolve_command(ctx, args)


def load_command(name: str) -> Any:
    """Load a command of `COMMANDS`: what the `register` of its module makes, else the function of its name."""
    app = typer.Typer(callback=lambda: None, context_settings=_HELP_OPTIONS)
    module = importlib.import_module(f"polyres.cli.{name}")
    if hasattr(module, "register"):
        module.register(app)
    else:
        app.command(name, epilog=getattr(module, "EPILOG", None))(getattr(module, name))
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    command = group.commands[name]
    _escape_help(command)
    return command


def build_app() -> typer.Typer:
    """Put the command together; what `COMMANDS` names is loaded when it is called for."""
    app = typer.Typer(
        name="polyres",
        cls=_Commands,
        help="Split songs into stems, and take audio through codecs, with models that listen at many time-frequency "
        "resolutions.",
        epilog=EPILOG,
        context_settings=_HELP_OPTIONS,
        pretty_exceptions_enable=False,
    )
    app.callback(invoke_without_command=True)(_without_command)
    for name, line in COMMANDS.items():
        app.command(name, help=line)(lambda: None)
    return app


def build_command() -> Any:
    """Return the command with its help as it is written; typer would take `[drums, bass]` for markup."""
    command = typer.main.get_command(build_app())
    _escape_help(command)
    return command


def _escape_help(command: Any) -> None:
    for part in (command, *command.params):
        for name in ("help", "short_help", "epilog"):
            if getattr(part, name, None):
                setattr(part, name, _TAG.sub(r"\\\1", getattr(part, name)))
    for inner in getattr(command, "commands", {}).values():
        _escape_help(inner)


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
        0, the status of the error (2 for everything a user can mend), or 130 when interrupted.
    """
    # Huge pages for large tensors: far fewer page faults. torch reads this once, at its first tensor.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if "torch" not in sys.modules:
        tune_cpu()
        gc.set_threshold(20_000, 20, 20)  # loading libraries makes much and drops little: look for garbage less often
    lost = prepare_streams()
    status = _run(arguments)
    if (error := lost()) is not None:
        return status or _report(f"a part of the output could not be printed ({error.strerror}); print it elsewhere", 2)
    return status


def _run(arguments: Sequence[str] | None) -> int:
    """Run the command and return its status; errors are one line."""
    try:
        with interruptible(signal.SIGINT):
            status = build_command()(arguments, prog_name="polyres", standalone_mode=False)
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
