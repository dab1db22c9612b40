"""Many files one after the other; a bad one does not stop the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from polyres.batch.jobs import Job, OutputOptions, Watch, one_file
from polyres.core.errors import PolyresError
from polyres.separation.files import TrackResult
from polyres.separation.load import LoadedSeparator
from polyres.separation.options import SeparateOptions, plan_stems


def separate_jobs(
    separator: LoadedSeparator,
    jobs: Iterable[Job],
    options: SeparateOptions,
    output: OutputOptions,
    watch: Watch,
) -> Iterator[TrackResult]:
    """Do all jobs, in order.

    `jobs`: what to read and where to write. Yields one result per job; a job that went wrong gives one with status
    "failed" and a line that says why. Raises UnknownNameError for a stem the model does not have, before any file is
    touched.
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
