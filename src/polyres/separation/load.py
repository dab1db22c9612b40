"""Load a model once, separate as often as you like."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch

from polyres.audio.sources import MemorySource, Progress, Wave
from polyres.batch.jobs import Job, OutputOptions, model_folder, plan_jobs
from polyres.core.errors import ConfigError
from polyres.nn.device import resolve_device, resolve_precision
from polyres.separation.bag import Bag, Subset
from polyres.separation.engine import separate_blocks
from polyres.separation.ensemble import Ensemble, Member
from polyres.separation.files import TrackResult, separate_track
from polyres.separation.model import Separator
from polyres.separation.options import SeparateOptions, plan_stems
from polyres.separation.registry import load_model, model_label
from polyres.separation.stems import Stems, reporting


class LoadedSeparator:
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
        self.precision = resolve_precision(precision, self.device)
        self.model = model.to(self.device).eval()
        self._ensemble = Ensemble(
            members=_members(model),
            sources=tuple(model.sources),
            sample_rate_hz=model.sample_rate_hz,
            audio_channels=model.audio_channels,
            device=self.device,
            precision=self.precision,
        )

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the stems the model gives."""
        return self._ensemble.sources

    @property
    def sample_rate_hz(self) -> int:
        """Rate the model works at; input of any other rate is resampled and back."""
        return self._ensemble.sample_rate_hz

    @property
    def audio_channels(self) -> int:
        """Channels the model takes; other numbers are doubled or split into groups."""
        return self._ensemble.audio_channels

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
            stems = torch.cat(list(separate_blocks(source, self._ensemble, chosen, report)), dim=-1)
        return Stems(dict(zip(names, stems, strict=True)), sample_rate_hz)

    def separate_file(
        self,
        path: str | Path,
        out_dir: str | Path = "separated",
        options: SeparateOptions | None = None,
        output: OutputOptions | None = None,
        progress: Progress | bool | None = None,
    ) -> TrackResult:
        """Separate a file into `out_dir/MODEL/TRACK/STEM.EXT`, in memory that does not grow with its length.

        Args:
            path: any file with audio in it.
            out_dir: folder of all results; made if missing.
            options: how to separate; the defaults if None.
            output: how to write; 24-bit wav if None.
            progress: called with the finished share, 0 to 1; True shows a bar.

        Returns:
            Paths of the stems, warnings and times.

        Raises:
            InputError: when the file cannot be used.
            OutputError: when the result cannot be written.
            UnknownNameError: for a stem the model does not have.
        """
        chosen = output or OutputOptions()
        folder = model_folder(Path(out_dir), self.name, self.weights_id, chosen.overwrite)
        job = plan_jobs([Path(path)], Path(out_dir), folder)[0]
        with reporting(progress, Path(path).name) as report:
            return self.run(job, options or SeparateOptions(), chosen, report)

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
        part = copy(self)
        subset = Subset(model, [known.index(size) for size in n_fft]).eval()
        part._ensemble = replace(
            self._ensemble, members=tuple(replace(member, model=subset) for member in self._ensemble.members)
        )
        return part

    def run(
        self, job: Job, options: SeparateOptions, output: OutputOptions, progress: Progress | None = None
    ) -> TrackResult:
        """Do one planned job; see `separate_file`."""
        return separate_track(self._ensemble, (self.name, self.weights_id), job, options, output, progress)


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


def _members(model: Separator | Bag) -> tuple[Member, ...]:
    if isinstance(model, Separator):
        return (Member(model, model.segment_samples, (1.0,) * len(model.sources)),)
    pairs = zip(model.models, model.weights, strict=True)
    return tuple(Member(one, one.segment_samples, row) for one, row in pairs if isinstance(one, Separator))
