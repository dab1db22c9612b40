"""Reconstruction of one file into a folder: audio of every version, latent, scores and figure; all or nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import polyres
from polyres.core.errors import OutputError
from polyres.core.json_text import json_file
from polyres.data.names import shown
from polyres.data.writer import WriteSpec
from polyres.inference.codec import LoadedCodec
from polyres.inference.codec_scores import Scores, invalid_metrics, score_takes
from polyres.inference.codec_takes import Take
from polyres.inference.engine import Progress
from polyres.inference.manifest import InputId, changed_settings
from polyres.inference.options import DEFAULT_BLOCK_SAMPLES, OutputOptions
from polyres.inference.plan import Job
from polyres.inference.sources import FileSource
from polyres.inference.work_folder import publish_folder, work_folder
from polyres.ops.levels import shared_gain

REPORT_NAME, LATENT_NAME, FIGURE_NAME = "reconstruction.json", "latent.safetensors", "comparison.png"
ORIGINAL, CODEC, ENHANCED = "original", "codec", "enhanced"


@dataclass(frozen=True)
class Reconstruction:
    """What became of one input.

    Attributes:
        input: the file.
        status: "done", "skipped" (it was there) or "failed".
        folder: of all results; None when failed.
        files: name to file.
        scores: of every version but the original, by metric; None where a metric has no finite value.
        num_scalars: numbers in the latent file.
        audio_s: length of the audio in seconds.
        seconds: time it took.
        gain: on all versions alike; 1 unless one of them would have clipped.
        warnings: one line each.
        error: one line when failed.
    """

    input: Path
    status: Literal["done", "skipped", "failed"]
    folder: Path | None = None
    files: dict[str, Path] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)
    num_scalars: int = 0
    audio_s: float = 0.0
    seconds: float = 0.0
    gain: float = 1.0
    warnings: tuple[str, ...] = ()
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        values["input"], values["folder"] = str(self.input), None if self.folder is None else str(self.folder)
        values["files"] = {name: str(path) for name, path in self.files.items()}
        values["scalars_per_second"] = round(self.num_scalars / self.audio_s, 2) if self.audio_s else None
        return values


@dataclass(frozen=True)
class Chain:
    """What a file goes through.

    Attributes:
        codec: codes and decodes it.
        enhanced: decodes it once more with an enhancer; None without.
        informed: whether the enhancer is told about the original, as no decoder is.
    """

    codec: LoadedCodec
    enhanced: LoadedCodec | None = None
    informed: bool = False

    def settings(self, path: Path, output: OutputOptions, plots: bool) -> dict[str, Any]:
        """Return everything that has an influence on the results."""
        this = InputId.of(path)
        enhanced = None if self.enhanced is None else self.enhanced.model.config.to_dict()
        return {
            "codec": self.codec.name,
            "config": self.codec.model.config.to_dict(),
            "enhanced": enhanced,
            "weights": self.codec.fingerprint,
            "format": output.format,
            "bit_depth": None if output.is_lossy else str(output.bit_depth),
            "plots": plots,
            "input_bytes": this.size_bytes,
            "input_changed_ns": this.mtime_ns,
        }


def reconstruct_track(
    chain: Chain, job: Job, output: OutputOptions, plots: bool = False, progress: Progress | None = None
) -> Reconstruction:
    """Reconstruct one file into its folder.

    Args:
        chain: what it goes through.
        job: what to read and where to write.
        output: how to write audio.
        plots: draw the figure as well.
        progress: called with the finished share, 0 to 1.

    Returns:
        What was done.

    Raises:
        InputError: when the file cannot be used.
        OutputError: when the result cannot be written, or other results are in its place.
        ConfigError: when a figure is wanted without matplotlib.
    """
    if job.error is not None:
        raise job.error
    began = time.perf_counter()
    source = FileSource(job.input, job.stream)
    settings = chain.settings(job.input, output, plots)
    if job.stream is not None:
        settings["stream"] = job.stream
    if not output.overwrite and (kept := _kept(job, settings)) is not None:
        return kept
    if plots:
        from polyres.inference.codec_figure import check_matplotlib

        check_matplotlib()
    try:
        with work_folder(job.folder) as work:
            done = _make(chain, source, work, output, (plots, progress))
            report = {
                "polyres": polyres.__version__,
                "input": vars(InputId.of(job.input)),
                "settings": settings,
                "invalid": invalid_metrics(chain.codec.phase_sensitive),
                "informed": chain.informed,
                **{key: value for key, value in done.items() if key != "files"},
            }
            (work / REPORT_NAME).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
            _publish(work, job.folder)
    except OSError as error:
        raise OutputError(
            f"{shown(job.folder)}: cannot be written ({error.strerror or error}); choose another --out or make room"
        ) from error
    files = {name: job.folder / file for name, file in {**done["files"], "report": REPORT_NAME}.items()}
    facts = {key: done[key] for key in ("scores", "num_scalars", "audio_s", "gain", "warnings")}
    return Reconstruction(job.input, "done", job.folder, files, seconds=time.perf_counter() - began, **facts)


def _make(
    chain: Chain, source: FileSource, work: Path, output: OutputOptions, wanted: tuple[bool, Progress | None]
) -> dict[str, Any]:
    """Make all files of a track in a folder."""
    plots, progress = wanted
    spec = WriteSpec(source.sample_rate_hz, source.channels, output.format, output.samples, source.info.tags)
    parts = 2 if chain.enhanced is None else 3
    latent = chain.codec.encode_file(source.path, _share(progress, 0, parts))
    latent.save(work / LATENT_NAME)
    takes = {ORIGINAL: Take(work / "original.f32", source.channels).fill(source.blocks(DEFAULT_BLOCK_SAMPLES))}
    decoders = {CODEC: chain.codec} if chain.enhanced is None else {CODEC: chain.codec, ENHANCED: chain.enhanced}
    for number, (name, decoder) in enumerate(decoders.items(), 1):
        blocks = decoder.decode_blocks(latent, _share(progress, number, parts))
        takes[name] = Take(work / f"{name}.f32", source.channels).fill(blocks)
    rate_hz = source.sample_rate_hz
    scores = {name: score_takes(takes[ORIGINAL], takes[name], rate_hz) for name in decoders}
    files = {name: f"{name}.{output.format}" for name in takes} | {"latent": LATENT_NAME}
    if plots:
        from polyres.inference.codec_figure import draw_comparison

        title = f"{source.path.name} through {chain.codec.name}, {latent.scalars_per_second:.0f} numbers per second"
        invalid = invalid_metrics(chain.codec.phase_sensitive)
        draw_comparison(takes, rate_hz, scores, title, work / FIGURE_NAME, invalid)
        files["figure"] = FIGURE_NAME
    gain = 1.0 if output.is_float else shared_gain(max(take.peak for take in takes.values()))
    for name, take in takes.items():
        take.encode(work / files[name], spec, gain)
        take.path.unlink()
    fitted = () if spec.note is None else (f"{shown(source.path)}: {spec.note}",)
    warnings = (*source.warnings, *fitted, *_gain_warning(gain))
    audio_s = latent.duration_s
    return {
        "files": files,
        "scores": scores,
        "num_scalars": latent.num_scalars,
        "audio_s": audio_s,
        "gain": gain,
        "warnings": warnings,
    }


def _share(progress: Progress | None, number: int, parts: int) -> Progress | None:
    """Turn the progress of one part into that of all."""
    return None if progress is None else lambda share: progress((number + share) / parts)


def _gain_warning(gain: float) -> tuple[str, ...]:
    if gain == 1.0:
        return ()
    return (f"all versions were turned down by one gain of {gain:.4f} so that none clips; --bit-depth float keeps it",)


def _kept(job: Job, settings: Mapping[str, Any]) -> Reconstruction | None:
    """Return what is there already and was made the same way; refuse to replace anything else."""
    if not job.folder.exists():
        return None
    report = _read_report(job.folder)
    if report is None:
        raise OutputError(f"{shown(job.folder)} is there and holds something else; choose another --out")
    if report["settings"] != settings:
        changed = changed_settings(report["settings"], settings)
        raise OutputError(f"{shown(job.folder)} was made otherwise ({changed}); --overwrite makes it again")
    files = {path.stem: path for path in sorted(job.folder.iterdir())}
    return Reconstruction(job.input, "skipped", job.folder, files, report["scores"], report["num_scalars"])


def _read_report(folder: Path) -> dict[str, Any] | None:
    try:
        report = json_file(folder / REPORT_NAME, special=True)
        return report if isinstance(report, dict) and isinstance(report.get("settings"), dict) else None
    except (OSError, ValueError):
        return None


def _publish(work: Path, folder: Path) -> None:
    """Put the finished folder in its place, unless something else came there meanwhile."""
    if folder.exists() and _read_report(folder) is None:
        raise OutputError(f"{shown(folder)} is there and holds something else; choose another --out")
    publish_folder(work, folder)
