"""`polyres paper`: tables, figures and claims of finished studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from polyres.cli.shared.terminal import examples

EPILOG = examples(
    "polyres paper studies/main_cpu --out paper — then open paper/index.html",
    "polyres paper studies/one studies/two --no-audio — several studies, without what needs their songs",
    "polyres paper studies/main_cpu complexity.json listening/report — also costs and ratings",
)


def paper(
    studies: Annotated[
        list[Path],
        typer.Argument(
            metavar="EVIDENCE...",
            help="Folders that polyres study made, finished or not; also what polyres complexity --out and "
            "polyres listen analyse wrote, and rows of the benchmarks of enhancers and front ends.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for index, claims, tables and figures.")] = Path("paper"),
    data: Annotated[
        Path | None, typer.Option(help="Folder of the scored tracks, if they are not where the study had them.")
    ] = None,
    track: Annotated[
        str | None, typer.Option(help="Whose drums are shown as spectrograms; the first track with an attack.")
    ] = None,
    arm: Annotated[
        str | None, typer.Option(help="ARM or STUDY:ARM whose architecture is drawn; the first of several resolutions.")
    ] = None,
    figures: Annotated[bool, typer.Option(help="Draw figures as PDF and PNG.")] = True,
    audio: Annotated[bool, typer.Option(help="Draw those that need the tracks: spectrograms and spectra.")] = True,
    device: Annotated[str, typer.Option(help="For the models of the spectrograms: auto, cpu, cuda, …")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the claims and files as JSON.")] = False,
) -> None:
    """Turn studies into a paper's tables (LaTeX and Markdown), figures (PDF and PNG) and judged claims.

    Every number comes from the files of the studies; what they do not have is a dash. A claim holds, fails or is
    undecided at the size tested: it takes 3 seeds, 6 tracks, and models that were trained long enough and surely beat
    silence and an equal share of the mixture. Arithmetic decides what it can. The rest is not run, with the command
    to run, or needs data or people that are not at hand.

    Start with OUT/index.html; the evidence of every claim is in OUT/claims.md and OUT/claims.json.
    """
    from polyres.study.claims.base import VERDICTS
    from polyres.study.paper.write import PaperOptions, write_paper

    options = PaperOptions(figures, audio, data, track, arm, device)
    made = write_paper(studies, out, options, lambda line: typer.echo(line, err=True))
    if as_json:
        files = [path.relative_to(out).as_posix() for path in made.files]
        values = {"files": files, "notes": made.notes, "claims": [one.to_dict() for one in made.claims]}
        typer.echo(json.dumps(values, indent=2))
        return
    for note in made.notes:
        typer.echo(f"note: {note}", err=True)
    for verdict in VERDICTS:
        found = [one for one in made.claims if one.verdict == verdict]
        typer.echo(f"{len(found):3d} {verdict}")
        for one in found:
            typer.echo(f"      {one.claim.statement}" + (f"  [{one.sizes()}]" if one.sizes() else ""))
    typer.echo(f"{len(made.files)} files; start with {out / 'index.html'}")
