"""`polyres complexity`: what a model weighs and costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyres.cli.shared.terminal import examples
from polyres.core.errors import OutputError

if TYPE_CHECKING:
    from polyres.separation.complexity.measure import Complexity

EPILOG = examples(
    "polyres complexity n w5 released — two variants beside the released HTDemucs",
    "polyres complexity RUN --repeats 0 — only count, do not time",
    "polyres complexity all --threads 2 --out results — every architecture in one table",
)
PAGE_FILE, VALUES_FILE = "complexity.md", "complexity.json"


def complexity(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Variants (n, w5, ...), released, released_6s, all of these by all, models known by name, weight "
            "files, run folders, recipes (YAML).",
        ),
    ],
    seconds: Annotated[float, typer.Option(min=0.0, help="Length of the audio, in one piece.")] = 7.8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="Of the timed passes: auto, fp32 or bf16.")] = "fp32",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the CPU.")] = None,
    repeats: Annotated[int, typer.Option(min=0, help="Timed passes, after a warm-up; 0 only counts.")] = 5,
    depth: Annotated[int, typer.Option(min=1, help="How deep the parts of a model are told apart.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for complexity.md and complexity.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print as Markdown.")] = False,
) -> None:
    """Count parameters and multiply-accumulates of models, and measure their speed and memory.

    Each model runs in a process of its own. Multiply-accumulates include attention and Fourier transforms. With --out
    the files are written after every model, so that nothing is lost where a later one does not fit into memory.
    """
    from polyres.cli.shared.terminal import print_tables
    from polyres.separation.complexity.measure import Request, kinds_table, measure_apart, parts_table, summary_table
    from polyres.separation.variants import subjects_named

    results: list[Complexity] = []
    for model in subjects_named(models):
        typer.echo(f"{model} ...", err=True)
        results.append(measure_apart(Request(model, seconds, device, precision, repeats, threads, depth)))
        if out is not None:
            _write(results, out)
    if as_json:
        typer.echo(json.dumps([result.to_dict() for result in results], indent=2))
        return
    print_tables([summary_table(results), kinds_table(results), *map(parts_table, results)], markdown)


def _write(results: list[Complexity], out: Path) -> None:
    from polyres.core.whole_files import write_whole
    from polyres.separation.complexity.measure import complexity_page

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {out}: {error.strerror}; choose another --out") from error
    write_whole(out / PAGE_FILE, complexity_page(results))
    write_whole(out / VALUES_FILE, json.dumps([result.to_dict() for result in results], indent=1) + "\n")
