"""`polyres decode`: a latent file to audio."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Annotated

import typer

from polyres.cli.shared.pipes import PIPE, MaxStdin, from_stdin, to_stdout
from polyres.cli.shared.terminal import examples
from polyres.core.process import interruptible

EPILOG = examples(
    "polyres decode song.safetensors -o again.wav — rate, channels and length of what was encoded, float samples",
    "polyres decode song.safetensors -o again.flac --codec my/codec — encoded with a codec of your own",
    "cat song.wav | polyres encode - -o - | polyres decode - -o - | play - — from pipe to pipe",
    "The file names its codec where that is one of the catalogue. It opens no other files: one of your own is "
    "given with --codec. Weights other than those it was encoded with are refused.",
)


Input = Annotated[Path, typer.Argument(metavar="LATENT", help="File written by 'polyres encode'; - is stdin.")]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="FILE", help="Audio file: .wav, .flac, .mp3, .m4a, …; - is stdout, as wav."),
]
Codec = Annotated[str | None, typer.Option(help="Codec to use.", show_default="the one the file names")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]


def decode(
    latent: Input,
    out: Out,
    codec: Codec = None,
    device: Device = "auto",
    as_json: AsJson = False,
    overwrite: Overwrite = False,
    max_stdin_gb: MaxStdin = 4.0,
) -> None:
    """Turn a latent file back into audio."""
    from polyres.audio.file_names import shown
    from polyres.batch.jobs import Job
    from polyres.cli.shared.terminal import Bars
    from polyres.codec.latent import Latent
    from polyres.codec.load import codec_for, load_codec
    from polyres.codec.track import check_free, write_blocks, write_spec

    if out != PIPE:
        check_free(out, overwrite)
    with (
        interruptible(signal.SIGTERM),
        from_stdin([latent], max_stdin_gb) as piped,
        to_stdout(out, ".wav") as target,
        Bars(1) as bars,
    ):
        given = Latent.load(*piped.paths)
        note = write_spec(target, given.input_rate_hz, given.channels).note
        loaded = codec_for(given, device) if codec is None else load_codec(codec, device)
        loaded.check(given)
        with bars.track(Job(latent, out)) as progress:
            blocks = loaded.decode_blocks(given, progress)
            write_blocks(blocks, target, given.input_rate_hz, given.channels)
    if note is not None:
        typer.echo(f"warning: {shown(out)}: {note}", err=True)
    if as_json:
        facts = {"file": str(out), "codec": loaded.name, "sample_rate_hz": given.input_rate_hz}
        facts |= {"channels": given.channels, "length_samples": given.length_samples}
        typer.echo(json.dumps(facts, indent=2), err=out == PIPE)
    else:
        text = f"{out}: {given.duration_s:.1f} s, {given.channels} channels at {given.input_rate_hz} Hz"
        typer.echo(text, err=out == PIPE)
