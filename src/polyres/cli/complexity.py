"""`polyres complexity`: what a model weighs and costs."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `complexity` to the command.

    Args:
        app: the command.
    """
    app.command("complexity")(complexity)


def complexity(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Variants (n, w5, ...), released, released_6s, models known by name, weight files, run folders, "
            "recipes (YAML).",
        ),
    ],
    seconds: Annotated[float, typer.Option(min=0.0, help="Length of the audio, in one piece.")] = 7.8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="Of the timed passes: auto, fp32 or bf16.")] = "fp32",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the CPU.")] = None,
    repeats: Annotated[int, typer.Option(min=0, help="Timed passes, after a warm-up; 0 only counts.")] = 5,
    depth: Annotated[int, typer.Option(min=1, help="How deep the parts of a model are told apart.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print as Markdown.")] = False,
) -> None:
    """Count parameters and multiply-accumulates of models, and measure their speed and memory.

    Each model runs in a process of its own. Multiply-accumulates include attention and Fourier transforms.
    """
    from polyres.analysis.complexity_report import kinds_table, parts_table, summary_table
    from polyres.analysis.measure import Request, measure_apart
    from polyres.analysis.subjects import check_subject
    from polyres.cli.tables import print_tables

    for model in models:
        check_subject(model)
    results = []
    for model in models:
        typer.echo(f"{model} ...", err=True)
        results.append(measure_apart(Request(model, seconds, device, precision, repeats, threads, depth)))
    if as_json:
        typer.echo(json.dumps([result.to_dict() for result in results], indent=2))
        return
    print_tables([summary_table(results), kinds_table(results), *map(parts_table, results)], markdown)
