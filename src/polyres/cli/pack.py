"""`polyres pack`: a recipe, its data and the code in one small folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from polyres.cli.shared.terminal import examples
from polyres.cli.train import quoted

EPILOG = examples(
    "polyres pack recipes/release_gpu.yaml --data DATA --out bundle — under 60 MB, with everything that training needs",
)


def pack(
    recipe: Annotated[Path, typer.Argument(help="Recipe (YAML).")],
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    data: Annotated[
        str | None,
        typer.Option("--data", envvar="POLYRES_DATA", help="Folder of the songs that the recipe names."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe; repeatable.")
    ] = None,
    max_mb: Annotated[float, typer.Option(min=1.0, help="Upper limit of the size in MB.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was packed as JSON.")] = False,
) -> None:
    """Pack a recipe with compressed data and code, to train where there is no network.

    On the other machine, inside the folder: PYTHONPATH=code python -m polyres train . --time-budget 9m --resume
    """
    from polyres.separation.training.pack import pack as write_bundle
    from polyres.separation.training.task import TrainConfig

    changes = list(overrides or ())
    if data is not None:
        changes.append(f"data_dir={quoted(data)}")
    facts = write_bundle(TrainConfig.from_yaml(recipe, changes), out, max_mb, lambda line: typer.echo(line, err=True))
    if as_json:
        typer.echo(json.dumps(facts))
