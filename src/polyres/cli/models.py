"""`polyres models`: what can be loaded by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from polyres.cli.shared.terminal import console, examples
from polyres.core.catalogue import unknown_name_message
from polyres.core.errors import UnknownNameError, WeightsError

PIPE_WIDTH = 240
EPILOG = examples(
    "polyres models — what is known, and whether it is here",
    "polyres models fetch htdemucs audioldm2 — download ahead, for a machine or a time without a network",
    "What the Hugging Face Hub's client or torch have kept already is found and not downloaded again.",
)


def register(app: typer.Typer) -> None:
    """Add the group to the app."""
    group = typer.Typer(
        help="List the models and codecs that are known by name, and whether they are here; download them ahead.",
        epilog=EPILOG,
    )
    group.callback(invoke_without_command=True)(models)
    group.command("fetch", epilog=examples("polyres models fetch htdemucs htdemucs_6s — two models of demucs"))(fetch)
    group.command(
        "push", epilog=examples("polyres models push runs/mine me/my-separator — then --model hf://me/my-separator")
    )(push)
    app.add_typer(group, name="models")


def models(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False
) -> None:
    """List the models and codecs that are known by name: what they give, size, licence, and whether they are here."""
    if context.invoked_subcommand is not None:
        return
    from polyres.codec.registry import known_codecs
    from polyres.separation.registry import known_models

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


def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Models or codecs that polyres models lists.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print names and files as JSON.")] = False,
) -> None:
    """Download weights ahead; what is here already stays as it is."""
    found = {name: _weight_files(name) for name in names}
    if as_json:
        typer.echo(json.dumps({name: [str(path) for path in paths] for name, paths in found.items()}, indent=2))
        return
    for name, paths in found.items():
        size = sum(path.stat().st_size for path in paths) / 2**20
        where = f"{size:.0f} MiB in {paths[0].parent}" if paths else "part of polyres"
        typer.echo(f"{name}: {where}")


def push(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="A weight file of a separator, or a run folder.")],
    repository: Annotated[str, typer.Argument(metavar="USER/REPO", help="Repository on the Hugging Face Hub.")],
    private: Annotated[bool, typer.Option("--private", help="A new repository is for its owner alone.")] = False,
    message: Annotated[str | None, typer.Option(help="Message of the commit.")] = None,
) -> None:
    """Publish a separator with a model card made from its weights; needs a token in HF_TOKEN."""
    from polyres.separation import sharing

    address = sharing.push(weights, repository, private, message)
    typer.echo(f"{address}: load it with --model {sharing.SCHEME}{sharing.repository_of(repository)}")


def _weight_files(name: str) -> list[Path]:
    """Return the files of a model or codec, downloading them where they are not here; none for parts of the package."""
    from polyres.codec.audioldm2.parts import REPOSITORIES, hub_folder
    from polyres.codec.registry import known_codecs
    from polyres.separation.labels import DEFAULT
    from polyres.separation.registry import known_models
    from polyres.weights import hub

    if name in hub.OFFICIAL:
        return hub.fetch(hub.OFFICIAL[name])
    if name in hub.REFUSED:
        only = f"only the transformer models can be read: {', '.join(hub.OFFICIAL)}"
        raise WeightsError(f"{name} is {hub.REFUSED[name]}; {only}")
    if name in REPOSITORIES:
        return sorted(path for path in hub_folder(name).rglob("*") if path.is_file())
    known = [DEFAULT, *(model.name for model in known_models()), *(codec.name for codec in known_codecs())]
    if name not in known:
        raise UnknownNameError(unknown_name_message("model", name, known))
    return []


def _number(value: int) -> str:
    return f"{value:,}".replace(",", " ") if value else "–"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _print(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, justify="right" if title == "parameters" else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console(PIPE_WIDTH).print(table)
