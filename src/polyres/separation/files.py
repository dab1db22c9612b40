"""Separation of one file into a folder of stems: all or nothing on disk, finished work is kept."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polyres
from polyres.audio.file_names import safe_name, shown
from polyres.audio.sources import FileSource, FloatSink, Progress, ScaledSink
from polyres.audio.writer import WriteSpec
from polyres.batch.jobs import Job, OutputOptions, Watch, one_file
from polyres.batch.manifest import (
    MANIFEST_NAME,
    InputId,
    Manifest,
    StemRecord,
    changed_settings,
    manifest_text,
    read_manifest,
    work_folder,
)
from polyres.core.errors import OutputError, PolyresError
from polyres.separation.engine import separate_blocks
from polyres.separation.ensemble import Ensemble
from polyres.separation.options import SeparateOptions, plan_stems

if TYPE_CHECKING:
    from polyres.separation.ready import ReadySeparator

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class TrackResult:
    """What became of one input."""

    input: Path
    status: Status  # "done", "skipped" (all stems were there) or "failed"
    folder: Path | None = None  # folder of the stems; None when failed
    stems: dict[str, Path] = field(default_factory=dict)
    seconds: float = 0.0
    audio_s: float = 0.0  # length of the audio in seconds; 0 when skipped or failed
    gain: float = 1.0  # factor applied to all stems; 1 unless one of them would have clipped
    warnings: tuple[str, ...] = ()
    error: str | None = None

    @property
    def real_time_factor(self) -> float | None:
        """Time taken per time of audio: below 1 is faster than playing it. None without audio."""
        return self.seconds / self.audio_s if self.audio_s else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        factor = self.real_time_factor
        return {
            "input": str(self.input),
            "status": self.status,
            "skipped": self.status == "skipped",
            "folder": None if self.folder is None else str(self.folder),
            "stems": {name: str(path) for name, path in self.stems.items()},
            "seconds": round(self.seconds, 3),
            "audio_seconds": round(self.audio_s, 3),
            "real_time_factor": None if factor is None else round(factor, 4),
            "gain": self.gain,
            "warnings": list(self.warnings),
            "error": self.error,
        }


@dataclass(frozen=True)
class _Target:
    """The files of one track: all wanted ones, those still to be made, and what is known about the others."""

    input: InputId
    folder: Path
    files: dict[str, str]
    todo: tuple[str, ...]
    settings: dict[str, Any]
    manifest: Manifest
    warnings: tuple[str, ...]

    @property
    def paths(self) -> dict[str, Path]:
        return {name: self.folder / file for name, file in self.files.items()}

    @property
    def kept_gain(self) -> float:
        """Gain of the stems that stay and were made with the same settings."""
        kept = [r.gain for r in self.manifest.files.values() if r.settings == self.settings and r.stem not in self.todo]
        return min(kept, default=1.0)


def separate_track(
    ensemble: Ensemble,
    model_id: tuple[str, str],
    job: Job,
    options: SeparateOptions,
    output: OutputOptions,
    progress: Progress | None = None,
) -> TrackResult:
    """Separate one file into its folder.

    The stems are made in a hidden folder beside their place and moved there when all are complete, so that no half file
    is ever seen and what was there before is never lost. Stems that are there and were made the same way are not made
    again.
    """
    if job.error is not None:
        raise job.error
    began = time.perf_counter()
    source = FileSource(job.input, job.stream)
    spec = WriteSpec(source.sample_rate_hz, source.channels, output.format, output.samples, source.info.tags)
    target = _target(ensemble, model_id, job, options, output)
    if not target.todo:
        return TrackResult(job.input, "skipped", target.folder, target.paths, warnings=target.warnings)
    try:
        with work_folder(target.folder) as work:
            sink = _sink(spec, target, work, options, output)
            length = _fill(sink, source, ensemble, _only(options, target), progress)
            fitted = () if spec.note is None else (f"{shown(job.input)}: {spec.note}",)
            warnings = (*source.warnings, *fitted, *target.warnings, *_gain_warnings(sink.gain, target))
            audio = {"sample_rate_hz": source.sample_rate_hz, "channels": source.channels, "length_samples": length}
            _publish(work, target, sink.gain, {"polyres": polyres.__version__, "audio": audio, "warnings": warnings})
    except OSError as error:
        raise OutputError(
            f"{shown(target.folder)}: cannot be written ({error.strerror or error}); choose another --out or make room"
        ) from error
    return TrackResult(
        job.input,
        "done",
        target.folder,
        target.paths,
        seconds=time.perf_counter() - began,
        audio_s=length / source.sample_rate_hz,
        gain=sink.gain,
        warnings=warnings,
    )


def _target(
    ensemble: Ensemble, model_id: tuple[str, str], job: Job, options: SeparateOptions, output: OutputOptions
) -> _Target:
    plan = plan_stems(ensemble.sources, options)
    this = InputId.of(job.input)
    files = {name: f"{safe_name(name, 200)}.{output.format}" for name in plan.names}
    settings = {
        "model": model_id[0],
        "weights": model_id[1],
        "precision": ensemble.precision,
        "shifts": options.shifts,
        "seed": options.seed if options.shifts else None,
        "overlap": options.overlap,
        "consistency": plan.consistency,
        "bit_depth": None if output.is_lossy else str(output.bit_depth),
        "input_bytes": this.size_bytes,
        "input_changed_ns": this.mtime_ns,
        **({"offset": options.offset} if options.offset != "once" else {}),
        **({"stream": job.stream} if job.stream is not None else {}),
    }
    manifest = read_manifest(job.folder) or Manifest(this)
    manifest.input = this
    there = [name for name in plan.names if (job.folder / files[name]).is_file() and not output.overwrite]
    for name in there:
        _check_weights(job.folder / files[name], manifest.files, settings)
    warnings = tuple(
        text for name in there if (text := _difference(job.folder / files[name], manifest.files, settings)) is not None
    )
    todo = tuple(name for name in plan.names if name not in there)
    return _Target(this, job.folder, files, todo, settings, manifest, warnings)


def _check_weights(path: Path, records: dict[str, StemRecord], settings: dict[str, Any]) -> None:
    """Refuse to pass stems of one model off as those of another."""
    old = records[path.name].settings if path.name in records else settings
    if old.get("weights") != settings["weights"]:
        raise OutputError(
            f"{shown(path)} was made by other weights ({old.get('model')}, now {settings['model']}); "
            "choose another --out, or --overwrite makes it again"
        )


def _difference(path: Path, records: dict[str, StemRecord], settings: dict[str, Any]) -> str | None:
    """Say why a file that is kept may not be what was asked for."""
    record = records.get(path.name)
    if record is None:
        return f"{shown(path)}: kept, but it is not known how it was made; --overwrite makes it again"
    if dict(record.settings) != settings:
        changed = changed_settings(record.settings, settings)
        return f"{shown(path)}: kept, but it was made otherwise ({changed}); --overwrite makes it again"
    return None


def _only(options: SeparateOptions, target: _Target) -> SeparateOptions:
    """Narrow the wanted stems to those still to be made where that saves work."""
    if options.two_stems is not None or len(target.todo) == len(target.files):
        return options
    return replace(options, stems=target.todo)


def _sink(
    spec: WriteSpec, target: _Target, work: Path, options: SeparateOptions, output: OutputOptions
) -> FloatSink | ScaledSink:
    names = target.files if options.two_stems is not None else target.todo
    paths = [work / target.files[name] for name in names]
    if output.is_float:
        return FloatSink(paths, spec)
    return ScaledSink(paths, spec, target.kept_gain, options.block_samples)


def _fill(
    sink: FloatSink | ScaledSink,
    source: FileSource,
    ensemble: Ensemble,
    options: SeparateOptions,
    progress: Progress | None,
) -> int:
    length = 0
    try:
        for stems in separate_blocks(source, ensemble, options, progress):
            sink.write(stems)
            length += stems.shape[-1]
        sink.finish()
    except BaseException:  # also when interrupted: nothing may stay open or behind
        sink.abort()
        raise
    return length


def _gain_warnings(gain: float, target: _Target) -> tuple[str, ...]:
    if gain == target.kept_gain == 1.0:
        return ()
    text = f"all stems were turned down by one gain of {gain:.4f} so that none clips; --bit-depth float keeps the level"
    if gain != target.kept_gain and len(target.todo) < len(target.files):
        text += "; stems that were there before have another gain, --overwrite makes all again"
    return (text,)


def _publish(work: Path, target: _Target, gain: float, facts: dict[str, Any]) -> None:
    """Move the finished files to their place, the manifest last."""
    for name in target.todo:
        target.manifest.files[target.files[name]] = StemRecord(name, target.settings, gain)
    (work / MANIFEST_NAME).write_text(manifest_text(target.manifest, facts), encoding="utf-8")
    if not target.folder.exists():
        work.rename(target.folder)
        return
    for name in target.todo:
        os.replace(work / target.files[name], target.folder / target.files[name])
    os.replace(work / MANIFEST_NAME, target.folder / MANIFEST_NAME)


def separate_jobs(
    separator: ReadySeparator,
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
