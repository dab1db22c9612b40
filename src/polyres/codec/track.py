"""Reconstruct one file into a folder: audio of every version, latent, scores and figure; all or nothing."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from torch import Tensor

import polyres
from polyres.audio.file_names import shown
from polyres.audio.sources import DEFAULT_BLOCK_SAMPLES, BlockSource, FileSource, Progress
from polyres.audio.writer import AudioWriter, WriteSpec
from polyres.batch.jobs import Job, OutputOptions, Watch, one_file, run_label
from polyres.batch.manifest import InputId, changed_settings, publish_folder, work_folder
from polyres.codec.enhance.enhancers import ENHANCERS
from polyres.codec.load import LoadedCodec, Take
from polyres.codec.staged.codec import staged
from polyres.codec.stream import measure, mel_averages
from polyres.core.errors import ConfigError, OutputError, PolyresError
from polyres.core.json_text import json_file
from polyres.dsp.levels import shared_gain
from polyres.metrics.reconstruction.metrics import invalid_reason, reconstruction_names, score

REPORT_NAME, LATENT_NAME, FIGURE_NAME = "reconstruction.json", "latent.safetensors", "comparison.png"
ORIGINAL, CODEC, ENHANCED = "original", "codec", "enhanced"


@dataclass(frozen=True)
class Reconstruction:
    """Result of one input."""

    input: Path
    status: Literal["done", "skipped", "failed"]  # "done", "skipped" (it was there) or "failed"
    folder: Path | None = None  # of all results; None when failed
    files: dict[str, Path] = field(default_factory=dict)  # name to file
    # of every version but the original, by metric; None where a metric has no finite value
    scores: dict[str, Scores] = field(default_factory=dict)
    num_scalars: int = 0  # numbers in the latent file
    audio_s: float = 0.0  # length of the audio in seconds
    seconds: float = 0.0  # time it took
    gain: float = 1.0  # on all versions alike; 1 unless one of them would have clipped
    warnings: tuple[str, ...] = ()  # one line each
    error: str | None = None  # one line when failed

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        values["input"], values["folder"] = str(self.input), None if self.folder is None else str(self.folder)
        values["files"] = {name: str(path) for name, path in self.files.items()}
        values["scalars_per_second"] = round(self.num_scalars / self.audio_s, 2) if self.audio_s else None
        return values


@dataclass(frozen=True)
class Chain:
    """A codec, with or without an enhancer."""

    codec: LoadedCodec  # codes and decodes it
    enhanced: LoadedCodec | None = None  # decodes it once more with an enhancer; None without
    informed: bool = False  # whether the enhancer is told about the original, as no decoder is

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
    """Reconstruct one file into its folder."""
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
        from polyres.report.figures import check_matplotlib

        check_matplotlib(otherwise="leave --plots out")
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
        from polyres.codec.figure import draw_comparison

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


PIECE_S = 30.0
"""Longest piece that is scored at once; of several pieces the median counts."""

Scores = dict[str, float | None]


def score_takes(original: Take, decoded: Take, sample_rate_hz: int) -> Scores:
    """Score a take against its original: the median over pieces of at most 30 s by metric, None where there is none."""
    found: dict[str, list[float]] = {name: [] for name in reconstruction_names()}
    for start, stop in pieces(original.length_samples, sample_rate_hz):
        one, other = original.read(start, stop), decoded.read(start, stop)
        for name, value in score(one, other, sample_rate_hz, list(found)).items():
            if math.isfinite(value):
                found[name].append(value)
    return {name: median(values) if values else None for name, values in found.items()}


def pieces(length_samples: int, sample_rate_hz: int) -> list[tuple[int, int]]:
    """Cut a length into equal pieces of at most 30 s."""
    count = max(1, math.ceil(length_samples / (PIECE_S * sample_rate_hz)))
    edges = [length_samples * number // count for number in range(count + 1)]
    return [(edges[number], edges[number + 1]) for number in range(count)]


def invalid_metrics(phase_sensitive: bool) -> dict[str, str]:
    """Name the metrics that must not judge a codec, with the reason.

    Args:
        phase_sensitive: whether the codec follows the phase of the original.
    """
    reasons = {name: invalid_reason(name, not phase_sensitive) for name in reconstruction_names()}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def write_blocks(blocks: Iterable[Tensor], path: Path, sample_rate_hz: int, channels: int) -> Path:
    """Write blocks to a file that appears only when it is whole.

    Args:
        blocks: `[C, n]` float32.
        path: the file; its ending says the format.

    Raises:
        OutputError: when it cannot be written.
        ConfigError: for an ending that is no known format.
    """
    spec = write_spec(path, sample_rate_hz, channels)
    with AudioWriter(path, spec) as writer:
        for block in blocks:
            writer.write(block.contiguous().numpy())
    return path


def write_spec(path: Path, sample_rate_hz: int, channels: int) -> WriteSpec:
    """How to write a file: by its ending; wav holds float samples, flac 24 bits.

    Raises:
        OutputError: when no format holds this rate or number of channels.
        ConfigError: for an ending that is no known format.
    """
    kind = path.suffix.lower().removeprefix(".") or "wav"
    return WriteSpec(sample_rate_hz, channels, kind, "float" if kind == "wav" else 24)


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse to replace a file that nobody said may be replaced.

    Args:
        path: of the file to write.
        overwrite: whether it may be replaced.

    Raises:
        OutputError: when it is there and may not.
    """
    if path.exists() and not overwrite:
        raise OutputError(f"{shown(path)} is there already; --overwrite replaces it, or choose another name")


def codec_label(name: str) -> str:
    """Folder name for the results of a codec: its name, or the last part of its path."""
    return run_label(Path(name))


def chain_of(codec: LoadedCodec, enhancer: str | None, strength: float = 1.0) -> Chain:
    """Combine a codec and an enhancer.

    Args:
        enhancer: name in ENHANCERS; None for none.

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
