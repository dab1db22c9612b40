"""`polyres separate`: from songs to stems."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyres.cli.shared.pipes import MaxStdin, Name, Piped, Stream, from_stdin
from polyres.cli.shared.terminal import JsonTracks, examples, tell_note
from polyres.core.process import interruptible

if TYPE_CHECKING:
    from polyres.batch.jobs import OutputOptions
    from polyres.separation.files import TrackResult
    from polyres.separation.options import SeparateOptions
    from polyres.separation.ready import ReadySeparator

EPILOG = examples(
    "polyres separate song.mp3 — the stems of one song, in separated/MODEL/song/",
    "polyres separate album/ --format flac --out stems — all audio below album/, the same tree below stems/",
    "polyres separate song.wav --two-stems vocals --mixture-consistent — vocals, and mixture minus vocals",
    "polyres separate *.wav --bit-depth float --json > result.json — samples as computed, results for programs",
    "polyres separate MUSDB --layout musdb18hq --out est — all mixtures, as 'evaluate --estimates est' reads them",
    "polyres separate song.wav --engine onnxruntime — starts without torch, after 'polyres export default' once",
    "curl -s ADDRESS | polyres separate - --name song — from a pipe; kept on disk while it is needed",
    "In folders every file with sound counts, whatever its ending; linked folders are followed once. What is left "
    "out (files without sound, hidden files, finished stems) is told in one line.",
    "Stems have the rate, channels, length and level of the input. Where one would clip, all are turned down by "
    "the same gain. Finished tracks are skipped. A file that cannot be used is reported and the others go on; "
    "the exit status is then 2.",
)


Inputs = Annotated[list[Path], typer.Argument(metavar="INPUT", help="Audio or video files, and folders; - is stdin.")]
Model = Annotated[str, typer.Option(help="Name (see 'polyres models'), or a weights file or folder.")]
Out = Annotated[Path, typer.Option(help="Stems go to OUT/MODEL/TRACK/STEM.EXT.")]
Stems = Annotated[str | None, typer.Option(metavar="A,B", help="Only these stems; only what they need is computed.")]
TwoStems = Annotated[str | None, typer.Option(metavar="STEM", help="This stem and no_STEM, the sum of all others.")]
Format = Annotated[str, typer.Option("--format", help="wav, flac, mp3, m4a, ogg or opus.")]
BitDepth = Annotated[str, typer.Option(help="16, 24 or float (wav only; keeps levels above full scale).")]
Layout = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="INPUT is a data set, such as musdb18hq; stems of its mixtures go to OUT/TRACK or OUT/test/TRACK.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Precision = Annotated[str, typer.Option(help="auto, fp32 or bf16.")]
Engine = Annotated[str, typer.Option(help="torch; or onnxruntime or openvino, for what 'polyres export' has written.")]
Shifts = Annotated[
    int, typer.Option(help="Average this many randomly shifted passes: a little better, N times slower. 0 is off.")
]
Seed = Annotated[int, typer.Option(help="Seed of the shifts: same seed, same bytes.")]
Overlap = Annotated[float, typer.Option(help="Share of a segment that the next one repeats, 0 to below 1.")]
Batch = Annotated[
    int | None, typer.Option(help="Segments per model call; more needs more memory.", show_default="by device")
]
Consistent = Annotated[bool, typer.Option("--mixture-consistent", help="Make the stems sum to the mixture exactly.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Make stems again that are already there.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print results as one JSON document on stdout, a line per track as it finishes.")
]


def separate(
    inputs: Inputs,
    model: Model = "default",
    out: Out = Path("separated"),
    stems: Stems = None,
    two_stems: TwoStems = None,
    file_format: Format = "wav",
    bit_depth: BitDepth = "24",
    device: Device = "auto",
    precision: Precision = "auto",
    engine: Engine = "torch",
    shifts: Shifts = 0,
    seed: Seed = 0,
    overlap: Overlap = 0.25,
    batch: Batch = None,
    mixture_consistent: Consistent = False,
    stream: Stream = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    name: Name = "stdin",
    max_stdin_gb: MaxStdin = 4.0,
    layout: Layout = None,
) -> None:
    """Split songs into stems, file to file, in memory that does not grow with their length."""
    from polyres.batch.jobs import OutputOptions
    from polyres.separation.engines import ENGINES
    from polyres.separation.options import SeparateOptions

    options = SeparateOptions(
        stems=None if stems is None else tuple(name.strip() for name in stems.split(",") if name.strip()),
        two_stems=two_stems,
        shifts=shifts,
        seed=seed,
        overlap=overlap,
        batch=batch,
        mixture_consistent=mixture_consistent,
    )
    output = OutputOptions(file_format, bit_depth, overwrite)
    try:
        with (
            interruptible(signal.SIGTERM),
            from_stdin(inputs, max_stdin_gb, name) as piped,
            JsonTracks({"model": model}, as_json) as document,
        ):
            separator = ENGINES.build(engine, model, device, precision)
            document.describe(_head(separator))
            failed = _run(separator, piped, (out, layout), (options, output, stream), document)
    except KeyboardInterrupt:
        typer.echo("error: interrupted; finished tracks are kept", err=True)
        raise typer.Exit(130) from None
    if failed:
        raise typer.Exit(2)


def _run(
    separator: ReadySeparator,
    piped: Piped,
    where: tuple[Path, str | None],
    options: tuple[SeparateOptions, OutputOptions, int | None],
    document: JsonTracks,
) -> bool:
    """Separate all files; tell whether one of them failed."""
    from polyres.batch.jobs import model_folder, plan_jobs, plan_tracks
    from polyres.cli.shared.terminal import Bars
    from polyres.separation.files import separate_jobs

    out, layout = where
    if layout is None:
        folder = model_folder(out, separator.name, separator.weights_id, options[1].overwrite, tell_note)
        jobs = plan_jobs(piped.paths, out, folder, tell_note)
    else:
        jobs = plan_tracks(piped.paths, out, layout)
    jobs = [replace(job, stream=options[2]) for job in jobs]
    failed = piped.failed
    with Bars(len(jobs)) as bars:
        for one in separate_jobs(separator, jobs, options[0], options[1], bars):
            result = piped.told(one)
            document.add({"model": separator.name, **result.to_dict()})
            _tell(result, to_stderr=document.wanted)
            failed |= result.status == "failed"
    return failed


def _tell(result: TrackResult, to_stderr: bool) -> None:
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if result.status == "failed":
        typer.echo(f"error: {result.error}", err=True)
    elif result.status == "skipped":
        typer.echo(f"{result.folder}: all stems are there; skipped (--overwrite makes them again)", err=to_stderr)
    else:
        names = " ".join(path.name for path in result.stems.values())
        took = f"{result.audio_s:.1f} s of audio in {result.seconds:.1f} s"
        typer.echo(f"{result.folder}: {names} ({took})", err=to_stderr)


def _head(separator: ReadySeparator) -> dict[str, object]:
    return {
        "model": separator.name,
        "sources": list(separator.sources),
        "device": str(separator.device),
        "precision": separator.precision,
        "engine": separator.engine,
    }
