"""What separates files, whatever computes the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Self

from polyres.audio.sources import Progress
from polyres.batch.jobs import Job, OutputOptions, model_folder, plan_jobs
from polyres.dsp.overlap import Runner
from polyres.separation.ensemble import Ensemble
from polyres.separation.files import TrackResult, separate_track
from polyres.separation.options import SeparateOptions


class ReadySeparator(ABC):
    """Models that are loaded, with their name and the mark of their weights.

    Attributes:
        name: of the folder for its results, and in messages.
        device: where the models are.
        engine: what computes them, a name of `polyres.separation.engines.ENGINES`.
    """

    name: str
    device: object
    engine: str
    _ensemble: Ensemble

    @property
    @abstractmethod
    def weights_id(self) -> str:
        """16 hex digits that change with any weight of the model."""

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

    @property
    def precision(self) -> str:
        """Arithmetic of the models, "fp32" or "bf16"."""
        return self._ensemble.precision

    def computed_by(self, engine: str, wrap: Callable[[Runner], Runner]) -> Self:
        """Return this separator with its models computed otherwise.

        Args:
            engine: what to call that.
            wrap: takes what computes a model, from array to array, and returns what is to.
        """
        other = copy(self)
        members = tuple(replace(member, run=wrap(member.run)) for member in self._ensemble.members)
        other.engine, other._ensemble = engine, replace(self._ensemble, members=members)
        return other

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

    def run(
        self, job: Job, options: SeparateOptions, output: OutputOptions, progress: Progress | None = None
    ) -> TrackResult:
        """Do one planned job; see `separate_file`."""
        return separate_track(self._ensemble, (self.name, self.weights_id), job, options, output, progress)


@contextmanager
def reporting(progress: Progress | bool | None, title: str) -> Iterator[Callable[[float], None] | None]:
    """Turn what a caller gave as progress into a function of the finished share; True shows a bar."""
    if not isinstance(progress, bool):
        yield progress
    elif not progress:
        yield None
    else:
        from rich.progress import Progress as Bars

        with Bars() as bars:
            task = bars.add_task(title, total=1.0)
            yield lambda share: bars.update(task, completed=share)
