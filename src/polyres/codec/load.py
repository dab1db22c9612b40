"""Load a codec once; encode, decode and reconstruct waves and files of any rate, length and number of channels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyres.audio.resample import resampled_length
from polyres.audio.sources import BlockSource, FileSource, MemorySource, Progress, Wave
from polyres.audio.writer import AudioWriter, WriteSpec
from polyres.codec.base import Codec
from polyres.codec.latent import Latent
from polyres.codec.registry import build_codec
from polyres.codec.staged.codec import codec_of_latent
from polyres.codec.stream import Measured, check_layout, decode_blocks, encode_blocks, measured, run_encoder, step_count
from polyres.codec.windows import Tensors
from polyres.core.errors import WeightsError
from polyres.dsp.levels import peak_level
from polyres.nn.device import resolve_device


class LoadedCodec:
    """A codec ready for use; memory does not grow with the length of what it works on, but for what it returns."""

    def __init__(self, codec: Codec, device: str = "auto") -> None:
        """Wrap a codec that was loaded or built elsewhere."""
        self.device = resolve_device(device)
        self.model = codec.to(self.device).eval()

    @property
    def name(self) -> str:
        """Name of the codec."""
        return self.model.name

    @property
    def sample_rate_hz(self) -> int:
        """Rate the codec works at; anything else is resampled and back."""
        return self.model.sample_rate_hz

    @property
    def phase_sensitive(self) -> bool:
        """Whether SNR and correlation mean something for what it decodes."""
        return self.model.phase_sensitive

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with any weight that latents depend on; latents of other weights are refused."""
        digest = hashlib.blake2b(digest_size=8)
        for key, value in self.model.code_state().items():
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def encode(self, wave: Wave, sample_rate_hz: int, progress: Progress | None = None) -> Latent:
        """Code a waveform: `wave` `[C, T]`."""
        return self.encode_source(MemorySource(wave, sample_rate_hz), progress)

    def encode_file(self, path: str | Path, progress: Progress | None = None) -> Latent:
        """Code a file; see `encode`."""
        return self.encode_source(FileSource(Path(path)), progress)

    def decode(self, latent: Latent, progress: Progress | None = None) -> Tensor:
        """Decode a latent: `[C, T]`."""
        return torch.cat(list(self.decode_blocks(latent, progress)), dim=-1)

    def decode_blocks(self, latent: Latent, progress: Progress | None = None) -> Iterator[Tensor]:
        """Decode a latent block by block: `[C, n]` each; see `decode`."""
        self.check(latent)
        return self._decode_blocks(latent, progress)

    def _decode_blocks(self, latent: Latent, progress: Progress | None) -> Iterator[Tensor]:
        found = Measured(
            latent.input_rate_hz,
            latent.channels,
            latent.length_samples,
            resampled_length(latent.length_samples, latent.input_rate_hz, latent.sample_rate_hz),
            dict(latent.side),
        )
        yield from decode_blocks([dict(latent.tensors)], self.model, found, progress)

    def check(self, latent: Latent) -> None:
        """Refuse latents that this codec cannot decode."""
        if latent.codec.partition(":")[0] != self.name.partition(":")[0] and latent.fingerprint != self.fingerprint:
            raise WeightsError(f"the latent is of codec {latent.codec}, not of {self.name}; load that one")
        if latent.fingerprint != self.fingerprint:
            raise WeightsError(
                f"the latent was made with other weights of {latent.codec} ({latent.fingerprint}, here are "
                f"{self.fingerprint}); use those, or encode the audio again"
            )
        check_layout(latent, self.model)

    def reconstruct(self, wave: Wave, sample_rate_hz: int, progress: Progress | None = None) -> Tensor:
        """Encode and decode a waveform `[C, T]`: the same samples as decode(encode(wave)), at its rate and length."""
        return torch.cat(list(self.reconstruct_blocks(MemorySource(wave, sample_rate_hz), progress)), dim=-1)

    def reconstruct_blocks(self, source: BlockSource, progress: Progress | None = None) -> Iterator[Tensor]:
        """Encode and decode a source, read twice, to blocks `[C, n]` at its rate and of its length in all."""
        found = measured(source, self.model)
        yield from decode_blocks(encode_blocks(source, self.model, found), self.model, found, progress)

    def stages(self, wave: Wave, sample_rate_hz: int) -> dict[str, Tensor]:
        """Encode and decode a waveform and keep every intermediate, as the codec has them: `wave` `[C, T]` to `[G,
        ...]`.
        """
        source = MemorySource(wave, sample_rate_hz)
        found = measured(source, self.model)
        model = self.model.told(found.side)

        def run(window: Tensors) -> Tensors:
            with torch.no_grad():
                stages = model.stages(window["wave"].to(self.device))
            return {"input": window["wave"], **{name: value.cpu() for name, value in stages.items()}}

        parts = list(run_encoder(source, self.model, found, run))
        joined = {name: torch.cat([part[name] for part in parts], dim=2) for name in parts[0]}
        return {**joined, "output": self.reconstruct(wave, sample_rate_hz)}

    def reconstruct_file(self, path: str | Path, out: str | Path, progress: Progress | None = None) -> Path:
        """Encode and decode a file of any length to `out`, whose ending names the format; wav has float samples."""
        from polyres.codec.track import write_blocks

        source = FileSource(Path(path))
        return write_blocks(
            self.reconstruct_blocks(source, progress), Path(out), source.sample_rate_hz, source.channels
        )

    def encode_source(self, source: BlockSource, progress: Progress | None = None) -> Latent:
        """Code a source, which is read more than once; see `encode`."""
        found = measured(source, self.model)
        steps, done = step_count(self.model, found.codec_samples), 0
        tensors: dict[str, Tensor] = {}
        # Into one tensor from the start: small ones that stay between large ones that go would scatter the memory.
        for part in encode_blocks(source, self.model, found, progress):
            for name, value in part.items():
                whole = tensors.setdefault(name, value.new_empty(*value.shape[:2], steps, *value.shape[3:]))
                whole[:, :, done : done + value.shape[2]] = value
            done += next(iter(part.values())).shape[2]
        return Latent(
            tensors=tensors,
            codec=self.name,
            fingerprint=self.fingerprint,
            input_rate_hz=found.input_rate_hz,
            channels=found.channels,
            length_samples=found.length_samples,
            sample_rate_hz=self.sample_rate_hz,
            side=found.side,
            config=self.model.config.to_dict(),
        )


def load_codec(
    name_or_path: str | Path = "default", device: str = "auto", settings: Mapping[str, Any] | None = None
) -> LoadedCodec:
    """Load a codec by name or from a file or folder.

    Args:
        name_or_path: a name from `polyres reconstruct --help`, `NAME:VARIANT`, a weight file, or a folder with the
            parts of AudioLDM2.
        device: "auto" (cuda, else mps, else cpu), "cpu", "cuda", "cuda:N" or "mps".
        settings: what of the codec's config is to be otherwise, such as {"synthesis": "pghi+fgla"}.

    Raises:
        UnknownNameError: for a name that is not known; the message suggests the nearest.
        WeightsError: when the weights cannot be read or do not fit.
        OfflineError: when weights are not here and cannot be downloaded.
        ConfigError: when the device is not available, or for settings that are not possible.
    """
    resolve_device(device)
    return LoadedCodec(build_codec(name_or_path, "cpu", settings), device)


def codec_for(latent: Latent, device: str = "auto") -> LoadedCodec:
    """Load the codec that a latent was coded with, its stages as the latent holds them.

    Args:
        device: as for `load_codec`.

    Raises:
        UnknownNameError: for a codec that is not known.
        WeightsError: when weights cannot be read, or are others than those that the latent was coded with.
        OfflineError: when weights are not here and cannot be downloaded.
        ConfigError: when the device is not available, or a stage is not possible.
    """
    resolve_device(device)
    return LoadedCodec(codec_of_latent(latent), device)


_ENCODE_SAMPLES = 1 << 17


class Take:
    """One version of a file, on disk as raw float samples."""

    def __init__(self, path: Path, channels: int) -> None:
        self.path, self.channels = path, channels
        self.peak = 0.0
        self.length_samples = 0

    def fill(self, blocks: Iterable[Wave]) -> Take:
        """Write all blocks `[C, n]` float32."""
        for block in blocks:
            self.append(block)
        return self

    def append(self, block: Wave) -> None:
        """Append a block `[C, n]` float32."""
        samples = np.asarray(block)
        self.peak = max(self.peak, peak_level(samples))
        with self.path.open("ab" if self.length_samples else "wb") as file:
            np.ascontiguousarray(samples.T).tofile(file)
        self.length_samples += block.shape[-1]

    def read(self, start: int, stop: int) -> Tensor:
        """Read samples `[C, stop - start]` float32."""
        count = (stop - start) * self.channels
        samples = np.fromfile(self.path, np.float32, count, offset=4 * start * self.channels)
        return torch.from_numpy(np.ascontiguousarray(samples.reshape(-1, self.channels).T))

    def encode(self, path: Path, spec: WriteSpec, gain: float) -> None:
        """Write an audio file."""
        with AudioWriter(path, spec) as writer:
            for start in range(0, self.length_samples, _ENCODE_SAMPLES):
                block = self.read(start, min(start + _ENCODE_SAMPLES, self.length_samples))
                writer.write((block * gain if gain != 1.0 else block).numpy())
