"""`polyres reconstruct`: what a codec makes of audio."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyres.cli.shared.pipes import MaxStdin, Name, Stream, from_stdin
from polyres.cli.shared.terminal import JsonTracks, examples, tell_note
from polyres.core.process import interruptible

if TYPE_CHECKING:
    from polyres.codec.track import Chain, Reconstruction

EPILOG = examples(
    "polyres reconstruct song.mp3 --plots — through the default codec, with a figure, in reconstructed/CODEC/song/",
    "polyres reconstruct album/ --codec audioldm2 --enhance frequency --strength 0.5 — and with sharper latents",
    "polyres reconstruct a.wav --codec audioldm2 --phase pghi+fgla — a phase method instead of the vocoder",
    "polyres reconstruct a.wav --codec polyres_wave:wide — and the band above 8 kHz, which it drops, made up",
    "polyres reconstruct a.wav --codec staged.yaml — a codec, then enhancer, detail network, filters, bandwidth",
    "polyres reconstruct a.wav --codec audioldm2:decibel_front_end — a wrong turn, as a control",
    "Every folder holds original, codec and (with --enhance) enhanced at the input's rate, channels and length and "
    "at one common gain; latent.safetensors, from which 'polyres decode' makes the audio again; and "
    "reconstruction.json with all scores. Scores of files longer than 30 s are medians over pieces. A codec that "
    "makes up phases cannot be judged by metrics that compare sample by sample: those are marked.",
)
_SHOWN = ("snr", "log_mel_l1", "lsd", "mr_stft", "band_error_low", "band_error_mid", "band_error_high", "lag")


def _list_codecs(wanted: bool) -> None:
    if wanted:
        from polyres.codec.registry import codec_names, codec_summary

        for name in codec_names():
            typer.echo(f"{name}: {codec_summary(name)}")
        raise typer.Exit


Inputs = Annotated[list[Path], typer.Argument(metavar="AUDIO", help="Audio or video files, and folders; - is stdin.")]
Codec = Annotated[
    str,
    typer.Option(help="Name (--list), NAME:VARIANT, weights, a folder with vae and vocoder, or a YAML file of stages."),
]
Enhance = Annotated[str | None, typer.Option(metavar="NAME", help="Decode once more with this enhancer of latents.")]
Strength = Annotated[float, typer.Option(help="Of the enhancer: 0 changes nothing, 1 is the nominal amount.")]
Phase = Annotated[
    str | None, typer.Option(metavar="METHOD", help="Phase method instead of the vocoder, such as pghi+fgla.")
]
Vocoder = Annotated[str | None, typer.Option(metavar="FOLDER", help="Another vocoder in transformers' format.")]
PostFilter = Annotated[str | None, typer.Option(metavar="NAME", help="Filter for decoded audio, such as wiener.")]
Bandwidth = Annotated[
    str | None,
    typer.Option(metavar="WEIGHTS", help="Make the band above a codec of 16 kHz: default, a file or a run folder."),
]
Out = Annotated[Path, typer.Option(help="Results go to OUT/CODEC/TRACK/.")]
Plots = Annotated[bool, typer.Option("--plots", help="Draw comparison.png: waveform, spectrograms, bands.")]
Format = Annotated[str, typer.Option("--format", help="wav, flac, mp3, m4a, ogg or opus.")]
BitDepth = Annotated[str, typer.Option(help="16, 24 or float (wav only; keeps levels above full scale).")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print results as one JSON document on stdout, a line per file as it finishes.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Make results again that are already there.")]
List = Annotated[bool, typer.Option("--list", help="List the codecs and exit.", callback=_list_codecs, is_eager=True)]


def reconstruct(
    inputs: Inputs,
    codec: Codec = "default",
    enhance: Enhance = None,
    strength: Strength = 1.0,
    phase: Phase = None,
    vocoder: Vocoder = None,
    post_filter: PostFilter = None,
    bandwidth: Bandwidth = None,
    out: Out = Path("reconstructed"),
    plots: Plots = False,
    file_format: Format = "wav",
    bit_depth: BitDepth = "24",
    device: Device = "auto",
    as_json: AsJson = False,
    stream: Stream = None,
    overwrite: Overwrite = False,
    name: Name = "stdin",
    max_stdin_gb: MaxStdin = 4.0,
    list_codecs: List = False,
) -> None:
    """Send audio through a codec and compare what comes back: audio, scores and a figure per file."""
    from polyres.batch.jobs import OutputOptions, plan_jobs
    from polyres.cli.shared.terminal import Bars
    from polyres.codec.load import load_codec
    from polyres.codec.track import chain_of, codec_label, reconstruct_jobs

    output = OutputOptions(file_format, bit_depth, overwrite)
    given = {"synthesis": phase, "vocoder": vocoder, "post_filter": post_filter, "bandwidth": bandwidth}
    try:
        with (
            interruptible(signal.SIGTERM),
            from_stdin(inputs, max_stdin_gb, name) as piped,
            JsonTracks({"codec": codec}, as_json) as document,
        ):
            loaded = load_codec(codec, device, {key: value for key, value in given.items() if value is not None})
            chain = chain_of(loaded, enhance, strength)
            document.describe(_head(chain, enhance))
            failed = piped.failed
            jobs = [
                replace(job, stream=stream) for job in plan_jobs(piped.paths, out, codec_label(loaded.name), tell_note)
            ]
            with Bars(len(jobs)) as bars:
                for one in reconstruct_jobs(chain, jobs, output, plots, bars):
                    result = piped.told(one)
                    document.add(result.to_dict())
                    _tell(result, chain.codec.phase_sensitive, to_stderr=as_json)
                    failed |= result.status == "failed"
    except KeyboardInterrupt:
        typer.echo("error: interrupted; finished files are kept", err=True)
        raise typer.Exit(130) from None
    if failed:
        raise typer.Exit(2)


def _head(chain: Chain, enhancer: str | None) -> dict[str, Any]:
    codec = chain.codec
    return {
        "codec": codec.name,
        "fingerprint": codec.fingerprint,
        "enhancer": enhancer,
        "device": str(codec.device),
        "phase_sensitive": codec.phase_sensitive,
        "informed": chain.informed,
    }


def _tell(result: Reconstruction, phase_sensitive: bool, to_stderr: bool) -> None:
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if result.status == "failed":
        typer.echo(f"error: {result.error}", err=True)
        return
    if result.status == "skipped":
        typer.echo(f"{result.folder}: is there; skipped (--overwrite makes it again)", err=to_stderr)
        return
    rate = result.num_scalars / result.audio_s
    took = f"{result.audio_s:.1f} s of audio in {result.seconds:.1f} s, {rate:.0f} numbers per second"
    typer.echo(f"{result.folder}: {' '.join(path.name for path in result.files.values())} ({took})", err=to_stderr)
    for name, scores in result.scores.items():
        typer.echo(f"  {name}: {_scores_text(scores, phase_sensitive)}", err=to_stderr)


def _scores_text(scores: dict[str, float | None], phase_sensitive: bool) -> str:
    from polyres.codec.track import invalid_metrics
    from polyres.metrics.reconstruction.metrics import RECONSTRUCTION_METRICS

    invalid = invalid_metrics(phase_sensitive)
    texts = []
    for name in _SHOWN:
        value, unit = scores.get(name), RECONSTRUCTION_METRICS.build(name).unit
        number = "–" if value is None else f"{value:.2f}" + ("" if unit == "1" else f" {unit}")
        texts.append(f"{name} {number}" + (" (invalid here)" if name in invalid else ""))
    return ", ".join(texts)
