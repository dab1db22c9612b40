"""Load a model once, separate as often as you like."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from polyres.audio.sources import Block, MemorySource, Progress, Wave
from polyres.core.errors import ConfigError
from polyres.dsp.overlap import Runner
from polyres.nn.device import autocast_for, default_batch, resolve_device, resolve_precision
from polyres.separation.bag import Bag, Subset
from polyres.separation.engine import separate_blocks
from polyres.separation.ensemble import Ensemble, Member
from polyres.separation.labels import model_label
from polyres.separation.model import Separator
from polyres.separation.options import SeparateOptions, plan_stems
from polyres.separation.ready import ReadySeparator, reporting
from polyres.separation.registry import load_model
from polyres.separation.stems import Stems


class LoadedSeparator(ReadySeparator):
    """A separator ready for use: `separate` for a waveform in memory, `separate_file` for a file.

    Example:
        separator = polyres.load_separator()
        stems = separator.separate(wave, 44100)          # wave: [C, T] -> {"drums": [C, T], ...}
        result = separator.separate_file("song.mp3", "separated")
    """

    def __init__(self, model: Separator | Bag, name: str, device: str = "auto", precision: str = "auto") -> None:
        """Wrap a model that was loaded or built elsewhere.

        Args:
            model: one separator or a bag of them; moved to the device and put into eval mode.
            name: name of the folder for its results, and in messages.
            device: "auto", "cpu", "cuda", "cuda:N" or "mps".
            precision: "auto", "fp32" or "bf16".

        Raises:
            ConfigError: when the device is not available.
        """
        self.name = name
        self.device = resolve_device(device)
        self.engine = "torch"
        self.model = model.to(self.device).eval()
        exactness = resolve_precision(precision, self.device)
        self._ensemble = Ensemble(
            members=_members(model, self.device, exactness),
            sources=tuple(model.sources),
            sample_rate_hz=model.sample_rate_hz,
            audio_channels=model.audio_channels,
            precision=exactness,
            batch=default_batch(self.device),
        )

    @cached_property
    def weights_id(self) -> str:
        """16 hex digits that change with any weight of the model."""
        digest = hashlib.blake2b(digest_size=8)
        for key, value in self.model.state_dict().items():
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def separate(
        self,
        wave: Wave,
        sample_rate_hz: int,
        options: SeparateOptions | None = None,
        progress: Progress | bool | None = None,
    ) -> Stems:
        """Separate a waveform in memory.

        Args:
            wave: `[C, T]` floating point, tensor or NumPy array, finite, any number of channels, full scale = 1.
            sample_rate_hz: its rate.
            options: how to separate; the defaults if None.
            progress: called with the finished share, 0 to 1; True shows a bar.

        Returns:
            Stem name to `[C, T]` float32 on the CPU, at the rate and of the length of `wave`. The same samples as
            `separate_file` writes to a float wav. Notebooks show the result with players and spectrograms.

        Raises:
            InputError: when the waveform cannot be used.
            UnknownNameError: for a stem the model does not have.
        """
        chosen = options if options is not None else SeparateOptions()
        names = plan_stems(self.sources, chosen).names
        source = MemorySource(wave, sample_rate_hz)
        with reporting(progress, self.name) as report:
            stems = np.concatenate(list(separate_blocks(source, self._ensemble, chosen, report)), axis=-1)
        return Stems(dict(zip(names, torch.from_numpy(stems), strict=True)), sample_rate_hz)

    def listening(self, n_fft: Collection[int]) -> LoadedSeparator:
        """Return this separator with only some of its resolutions switched on; the weights are shared.

        Args:
            n_fft: window lengths of the resolutions that listen; none leaves silence (plus the wave branch, if any).

        Returns:
            A separator of the same name.

        Raises:
            ConfigError: for a bag, or a window length the model does not have.
        """
        model = self.model
        if not isinstance(model, Separator):
            raise ConfigError(f"{self.name} is a bag of models; resolutions can be switched off in a single model only")
        known = model.config.n_fft
        unknown = [size for size in n_fft if size not in known]
        if unknown:
            raise ConfigError(f"{self.name} does not listen at n_fft {unknown[0]}; it has {', '.join(map(str, known))}")
        subset = Subset(model, [known.index(size) for size in n_fft]).eval()
        return self.computed_by(self.engine, lambda _: torch_runner(subset, self.device, self.precision))


def load_separator(
    name_or_path: str | Path = "default", device: str = "auto", precision: str = "auto"
) -> LoadedSeparator:
    """Load a separator by name or from a file.

    Args:
        name_or_path: a name from `polyres models`, or the path of a weights file or folder.
        device: "auto" (cuda, else mps, else cpu), "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "fp32" or "bf16".

    Returns:
        The separator.

    Raises:
        UnknownNameError: for a name that is not known; the message suggests the nearest.
        WeightsError: when the weights cannot be read or do not fit.
        ConfigError: when the device is not available.
    """
    resolved = resolve_device(device)
    return LoadedSeparator(load_model(name_or_path, resolved), model_label(str(name_or_path)), device, precision)


def torch_runner(model: nn.Module, device: torch.device, precision: str) -> Runner:
    """Let a model take and give arrays.

    Args:
        model: `[B, C, T]` to `[B, S, C, T]`, in eval mode on its device.
        device: where it is.
        precision: "fp32" or "bf16".

    Returns:
        The same from array to array, float32.
    """

    def run(segments: Block) -> Block:
        try:
            with torch.no_grad(), autocast_for(precision, device):
                output = model(torch.from_numpy(segments).to(device))
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"out of memory on {device} with {segments.shape[0]} segments per model call; "
                "use a smaller --batch, or --device cpu"
            ) from error
        result: Block = output.float().cpu().numpy()
        return result

    return run


def _members(model: Separator | Bag, device: torch.device, precision: str) -> tuple[Member, ...]:
    if isinstance(model, Separator):
        pairs: list[tuple[nn.Module, tuple[float, ...]]] = [(model, (1.0,) * len(model.sources))]
    else:
        pairs = list(zip(model.models, model.weights, strict=True))
    return tuple(
        Member(torch_runner(one, device, precision), one.segment_samples, row)
        for one, row in pairs
        if isinstance(one, Separator)
    )
