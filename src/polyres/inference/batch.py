"""Many files one after the other; a bad one does not stop the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from polyres.core.errors import InputError, PolyresError
from polyres.data.names import shown
from polyres.inference.engine import Progress
from polyres.inference.files import TrackResult
from polyres.inference.load import LoadedSeparator
from polyres.inference.options import OutputOptions, SeparateOptions
from polyres.inference.plan import Job
from polyres.inference.search import unreadable
from polyres.inference.stems import plan_stems


class Watch(Protocol):
    """Looks on while files are separated."""

    def track(self, job: Job) -> AbstractContextManager[Progress]:
        """Enter for each file; what it gives is called with the finished share of that file, 0 to 1."""
        ...


@contextmanager
def one_file(path: Path) -> Iterator[None]:
    """Turn what the system says about one file into an error of that file, so that the others go on.

    Args:
        path: of the file.

    Raises:
        InputError: when the file went away, cannot be read, or needs more memory than there is.
    """
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        raise InputError(f"{shown(path)} needs more memory than there is; cut it, or close other programs") from error


def separate_jobs(
    separator: LoadedSeparator,
    jobs: Iterable[Job],
    options: SeparateOptions,
    output: OutputOptions,
    watch: Watch,
) -> Iterator[TrackResult]:
    """Do all jobs, in order.

    Args:
        separator: the loaded models.
        jobs: what to read and where to write.
        options: how to separate.
        output: how to write.
        watch: looks on.

    Yields:
        One result per job; a job that went wrong gives one with status "failed" and a line that says why.

    Raises:
        UnknownNameError: for a stem the model does not have, before any file is touched.
    """
    plan_stems(separator.sources, options)
    for job in jobs:
        with watch.track(job) as progress:
            try:
                with one_file(job.input):
                    result = separator.run(job, options, output, progress)
            except PolyresError as error:
                result = TrackResult(job.input, "failed", error=str(error))
        yield result
