"""Many files through a codec, one after the other; a bad one does not stop the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from polyres.core.errors import ConfigError, PolyresError
from polyres.inference.batch import Watch
from polyres.inference.codec import LoadedCodec
from polyres.inference.codec_stream import measure, run_encoder
from polyres.inference.codec_track import Chain, Reconstruction, reconstruct_track
from polyres.inference.codec_windows import Tensors
from polyres.inference.names import folder_name
from polyres.inference.options import OutputOptions
from polyres.inference.plan import Job
from polyres.inference.sources import BlockSource, FileSource
from polyres.models.audioldm2 import AudioLDM2Codec
from polyres.nn.enhance import ENHANCERS
from polyres.nn.enhance_context import MelStatistics


def codec_label(name: str) -> str:
    """Folder name for the results of a codec: its name, or the last part of its path."""
    return folder_name(Path(name).name)


def chain_of(codec: LoadedCodec, enhancer: str | None, strength: float = 1.0) -> Chain:
    """Put a codec and an enhancer together.

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
    if not isinstance(codec.model, AudioLDM2Codec):
        raise ConfigError(f"enhancers change latents of mel spectra; {codec.name} has none; choose an audioldm2 codec")
    missing = [need for need in found.needs if need not in ("decode", "target")]
    if missing:
        raise ConfigError(
            f"enhancer {enhancer!r} needs {missing[0]}, which only 'polyres enhance' can give it; choose another"
        )
    twin = codec.model.reconfigured({"enhancer": enhancer, "strength": strength})
    return Chain(codec, LoadedCodec(twin, str(codec.device)), found.informed or "target" in found.needs)


def reconstruct_jobs(
    chain: Chain, jobs: Iterable[Job], output: OutputOptions, plots: bool, watch: Watch
) -> Iterator[Reconstruction]:
    """Do all jobs, in order.

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
                if chain.informed and job.error is None:
                    _tell_target(chain, FileSource(job.input))
                result = reconstruct_track(chain, job, output, plots, progress)
            except PolyresError as error:
                result = Reconstruction(job.input, "failed", error=str(error))
        yield result


def _tell_target(chain: Chain, source: BlockSource) -> None:
    """Tell the enhancer the averages of the original."""
    if chain.enhanced is not None and isinstance(chain.enhanced.model, AudioLDM2Codec):
        chain.enhanced.model.target = mel_averages(source, chain.enhanced.model)


def mel_averages(source: BlockSource, codec: AudioLDM2Codec) -> MelStatistics:
    """Measure the log-mel spectra of a source, window by window.

    Args:
        source: where samples come from; it is read twice.
        codec: whose front end is used.

    Returns:
        Averages of each channel: `[C, M]` and `[C]`.

    Raises:
        InputError: when the source cannot be used.
    """

    def run(window: Tensors) -> Tensors:
        return {"mel": codec.mel(window["wave"]).double()}

    count, total, squares, power = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())
    for block in run_encoder(source, codec, measure(source, codec), run):
        mel: Tensor = block["mel"][:, 0]
        count += mel.shape[1]
        total, squares = total + mel.sum(dim=1), squares + mel.square().sum(dim=1)
        power = power + (2 * mel).exp().sum(dim=(1, 2))
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    level = (power / (count * mean.shape[1])).log() / 2
    device = codec.device
    return MelStatistics(mean.float().to(device), std.float().to(device), level.float().to(device), informed=True)
