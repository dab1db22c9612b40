"""`polyres export`: a model as a graph for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyres.cli.shared.terminal import examples

EPILOG = examples(
    "polyres export default — for 'polyres separate song.wav --engine onnxruntime'",
    "polyres export RUN --to openvino — of the best weights of a run, for --engine openvino",
    "polyres export htdemucs --precision fp16 --out htdemucs.onnx — smaller, for a program of your own",
    "The graph maps mix [1, C, T] to stems [1, S, C, T], T being the model's segment, at its sample rate, the mixture "
    "shifted and scaled to mean 0 and deviation 1; transforms are part of it. Its metadata hold all that is needed.",
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("export", epilog=EPILOG)(export)


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name (see 'polyres models'), weights file or folder.")],
    to: Annotated[str, typer.Option(help="onnx or openvino.")] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="The file, .onnx or .xml; by default where --engine looks for it.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, or fp16: weights are rounded to half precision; it computes in fp32.")
    ] = "fp32",
) -> None:
    """Write a model as a graph for ONNX Runtime or OpenVINO, compared with torch first.

    What is more than 1e-4 off torch, over noise and over sounds like music, is not written.
    """
    from polyres.separation.export import OPSET, export_separator

    path, facts = export_separator(model, to, out, precision)
    length = f"segments of {facts.segment_samples / facts.sample_rate_hz:.2f} s"
    typer.echo(f"{path}: {' '.join(facts.sources)}, {length}, opset {OPSET}, {facts.error:.1e} off torch at most")
