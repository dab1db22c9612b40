"""`polyres encode`: audio to a latent file."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Annotated

import typer

from polyres.cli.shared.pipes import PIPE, MaxStdin, Stream, from_stdin, to_stdout
from polyres.cli.shared.terminal import examples
from polyres.core.process import interruptible

EPILOG = examples(
    "polyres encode song.wav -o song.safetensors — everything the decoder needs, as 16-bit floats, in one file",
    "polyres encode song.wav -o z.safetensors --codec audioldm2 — 3200 numbers per second and channel",
    "polyres encode song.wav -o z.safetensors --codec polyres_wave_44k:half — stereo at 44.1 kHz, half the numbers",
    "polyres decode song.safetensors -o again.wav — the way back, also elsewhere, with the same codec weights",
)


Input = Annotated[Path, typer.Argument(metavar="AUDIO", help="Audio or video file; - is stdin.")]
Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help="Latent file to write (.safetensors); - is stdout.")
]
Codec = Annotated[str, typer.Option(help="Name ('polyres reconstruct --list'), a weights file or a folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]


def encode(
    audio: Input,
    out: Out,
    codec: Codec = "default",
    device: Device = "auto",
    as_json: AsJson = False,
    overwrite: Overwrite = False,
    stream: Stream = None,
    max_stdin_gb: MaxStdin = 4.0,
) -> None:
    """Code an audio file as latents that 'polyres decode' turns back into audio."""
    from polyres.audio.sources import FileSource
    from polyres.batch.jobs import Job
    from polyres.cli.shared.terminal import Bars
    from polyres.codec.load import load_codec
    from polyres.codec.track import check_free

    if out != PIPE:
        check_free(out, overwrite)
    with (
        interruptible(signal.SIGTERM),
        from_stdin([audio], max_stdin_gb) as piped,
        to_stdout(out, ".safetensors") as target,
        Bars(1) as bars,
    ):
        loaded = load_codec(codec, device)
        (path,) = piped.paths
        with bars.track(Job(path, target)) as progress:
            source = FileSource(path, stream)
            latent = loaded.encode_source(source, progress)
            latent.save(target)
        for warning in source.warnings:
            typer.echo(f"warning: {piped.words(warning)}", err=True)
        rate, size = latent.scalars_per_second, target.stat().st_size
    if as_json:
        facts = {"file": str(out), "codec": latent.codec, "num_scalars": latent.num_scalars}
        facts |= {"duration_s": latent.duration_s, "scalars_per_second": rate, "bytes": size}
        typer.echo(json.dumps(facts, indent=2), err=out == PIPE)
    else:
        text = f"{out}: {latent.duration_s:.1f} s in {latent.num_scalars} numbers, {rate:.0f} per second"
        typer.echo(text, err=out == PIPE)
