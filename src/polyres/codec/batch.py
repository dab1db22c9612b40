"""Run many files through a codec; a failed file does not stop the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from polyres.audio.sources import BlockSource, FileSource
from polyres.batch.jobs import Job, OutputOptions, Watch, one_file, run_label
from polyres.codec.enhance.enhancers import ENHANCERS
from polyres.codec.layout import mel_averages
from polyres.codec.load import LoadedCodec
from polyres.codec.staged.build import staged
from polyres.codec.stream import measure
from polyres.codec.track import Chain, Reconstruction, reconstruct_track
from polyres.core.errors import ConfigError, PolyresError


def codec_label(name: str) -> str:
    """Folder name for the results of a codec: its name, or the last part of its path."""
    return run_label(Path(name))


def chain_of(codec: LoadedCodec, enhancer: str | None, strength: float = 1.0) -> Chain:
    """Combine a codec and an enhancer.

    Args:
        codec: any.
        enhancer: name in ENHANCERS; None for none.
        strength: of the enhancer.

    Returns:
        The chain.

    Raises:
        UnknownNameError: when there is no such enhancer.
        ConfigError: when the codec has no place for one, or the enhancer needs what this chain cannot give it.
    """
    if enhancer is None:
        return Chain(codec)
    found = ENHANCERS.build(enhancer)
    missing = [need for need in found.needs if need not in ("decode", "target")]
    if missing:
        raise ConfigError(
            f"enhancer {enhancer!r} needs {missing[0]}, which only 'polyres enhance' can give it; choose another"
        )
    settings = {"enhancer": enhancer, "strength": strength}
    # A codec of mel spectra has a place of its own for them.
    has_place = "strength" in type(codec.model.config).model_fields
    twin = codec.model.reconfigured(settings) if has_place else staged(codec.model, settings)
    return Chain(codec, LoadedCodec(twin, str(codec.device)), found.informed or "target" in found.needs)


def reconstruct_jobs(
    chain: Chain, jobs: Iterable[Job], output: OutputOptions, plots: bool, watch: Watch
) -> Iterator[Reconstruction]:
    """Reconstruct all files in order.

    Args:
        chain: what the files go through.
        jobs: what to read and where to write.
        output: how to write.
        plots: draw figures as well.
        watch: looks on.

    Yields:
        One result per job; a job that went wrong gives one with status "failed" and a line that says why.
    """
    for job in jobs:
        with watch.track(job) as progress:
            try:
                with one_file(job.input):
                    if chain.informed and job.error is None:
                        _tell_target(chain, FileSource(job.input, job.stream))
                    result = reconstruct_track(chain, job, output, plots, progress)
            except PolyresError as error:
                result = Reconstruction(job.input, "failed", error=str(error))
        yield result


def _tell_target(chain: Chain, source: BlockSource) -> None:
    """Tell the enhancer the averages of the original."""
    if chain.enhanced is not None:
        model: Any = chain.enhanced.model
        model.target = mel_averages(source, model, measure(source, model), lambda wave: model.mel(wave)[:, 0])
