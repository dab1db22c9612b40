"""The functions and classes of `demucs.api`, on polyres' engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from polyres.audio.files import read_audio
from polyres.audio.resample import resample
from polyres.audio.writer import AudioWriter, BitDepth, WriteSpec
from polyres.core.errors import InputError, PolyresError, UnknownNameError, WeightsError
from polyres.separation.load import LoadedSeparator, load_separator
from polyres.separation.options import SeparateOptions
from polyres.separation.ready import reporting
from polyres.separation.registry import known_models

Callback = Callable[[dict[str, Any]], None]
ClipMode = Literal["rescale", "clamp", "tanh", "none"]
_SETTINGS = ("device", "shifts", "overlap", "split", "segment", "jobs", "progress", "callback", "callback_arg")
_KEEP = object()


class LoadAudioError(Exception):
    """A file that cannot be read."""


class LoadModelError(Exception):
    """A model that is not known or cannot be loaded."""


class Separator:
    """A loaded model with demucs' settings.

    Example:
        separator = Separator(model="htdemucs")
        mixture, stems = separator.separate_audio_file("song.mp3")  # [C, T] and {"drums": [C, T], ...}
        for name, stem in stems.items():
            save_audio(stem, f"{name}.wav", samplerate=separator.samplerate)
    """

    def __init__(
        self,
        model: str = "htdemucs",
        repo: Path | None = None,
        device: str = "cuda" if torch.cuda.is_available() else "cpu",
        shifts: int = 1,
        overlap: float = 0.25,
        split: bool = True,
        segment: int | None = None,
        jobs: int = 0,
        progress: bool = False,
        callback: Callback | None = None,
        callback_arg: dict[str, Any] | None = None,
    ) -> None:
        """Load a model.

        Args:
            model: a name of `polyres models`, or with `repo` the name of a file or folder in it.
            repo: folder of models.
            device: "cpu", "cuda" or "mps".
            shifts: passes over randomly shifted copies that are averaged; 0 for one pass without a shift.
            overlap: share of a segment that the next one covers again, 0 <= overlap < 1.
            split: taken and not used: segments are always as long as the model was trained for.
            segment: taken and not used, likewise.
            jobs: taken and not used: threads share the work as torch is set up.
            progress: show a bar while separating.
            callback: called with a dict as demucs gives it (`segment_offset`, `audio_length`, `state` and others).
            callback_arg: entries for that dict.

        Raises:
            LoadModelError: for a model that is not known or cannot be loaded.
            ConfigError: when the device is not available, or shifts or overlap are not possible.
        """
        self._source = str(model) if repo is None else str(_in_repo(Path(repo), model))
        given = (device, shifts, overlap, split, segment, jobs, progress, callback, callback_arg)
        self._settings: dict[str, Any] = dict(zip(_SETTINGS, given, strict=True))
        self._check(self._settings)
        self._loaded = self._load()

    def _load(self) -> LoadedSeparator:
        try:
            return load_separator(self._source, self._settings["device"], "fp32")
        except (UnknownNameError, WeightsError) as error:
            raise LoadModelError(str(error)) from error

    @staticmethod
    def _check(settings: dict[str, Any]) -> SeparateOptions:
        return SeparateOptions(shifts=settings["shifts"], overlap=settings["overlap"], offset="every")

    def update_parameter(
        self,
        device: Any = _KEEP,
        shifts: Any = _KEEP,
        overlap: Any = _KEEP,
        split: Any = _KEEP,
        segment: Any = _KEEP,
        jobs: Any = _KEEP,
        progress: Any = _KEEP,
        callback: Any = _KEEP,
        callback_arg: Any = _KEEP,
    ) -> None:
        """Change settings of the constructor; those that are not given, or not possible, leave all as they were.

        Raises:
            ConfigError: for a value that is not possible.
        """
        given = (device, shifts, overlap, split, segment, jobs, progress, callback, callback_arg)
        changed = {name: value for name, value in zip(_SETTINGS, given, strict=True) if value is not _KEEP}
        before, self._settings = self._settings, self._settings | changed
        try:
            self._check(self._settings)
            if self._settings["device"] != before["device"]:
                self._loaded = self._load()
        except BaseException:
            self._settings = before
            raise

    def separate_tensor(self, wav: Tensor, sr: int | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Separate a waveform.

        Args:
            wav: `[C, T]`, full scale = 1.
            sr: its rate in Hz; None for that of the model.

        Returns:
            The mixture `[C, T]` at the model's rate, and stem name to `[C, T]`.

        Raises:
            InputError: when the waveform cannot be used.
        """
        rate_hz = self.samplerate
        if sr is not None and sr != rate_hz:
            wav = torch.from_numpy(resample(wav.detach().cpu().numpy().astype("float32"), sr, rate_hz))
        if wav.shape[0] == 1 and self.audio_channels > 1:
            wav = wav.expand(self.audio_channels, -1)
        report = self._report(wav.shape[-1])
        with reporting(bool(self._settings["progress"]), self._loaded.name) as show:

            def tell(share: float) -> None:
                report(share)
                if show is not None:
                    show(share)

            return wav, self._loaded.separate(wav, rate_hz, self._check(self._settings), tell)

    def separate_audio_file(self, file: str | Path) -> tuple[Tensor, dict[str, Tensor]]:
        """Separate a file; mixture and stems come at the model's rate.

        Args:
            file: any file with audio in it.

        Returns:
            As `separate_tensor`.

        Raises:
            LoadAudioError: when the file cannot be read.
        """
        try:
            wave, rate_hz = read_audio(file)
        except InputError as error:
            raise LoadAudioError(str(error)) from error
        return self.separate_tensor(torch.from_numpy(wave), rate_hz)

    def _report(self, length_samples: int) -> Callable[[float], None]:
        """Turn progress into the calls that demucs makes: the start and the end of every part."""
        callback, given = self._settings["callback"], self._settings["callback_arg"] or {}
        done = 0

        def report(share: float) -> None:
            nonlocal done
            if callback is not None:
                facts = {"model_idx_in_bag": 0, "shift_idx": 0, "segment_offset": done, "models": 1}
                facts |= {"audio_length": length_samples}
                callback({**given, **facts, "state": "start"})
                callback({**given, **facts, "state": "end"})
            done = round(share * length_samples)

        return report

    @property
    def samplerate(self) -> int:
        """Rate of the model in Hz."""
        return self._loaded.sample_rate_hz

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the stems."""
        return self._loaded.sources

    @property
    def audio_channels(self) -> int:
        """Channels of the model."""
        return self._loaded.audio_channels

    @property
    def model(self) -> torch.nn.Module:
        """The network, or a bag of them."""
        return self._loaded.model


def _in_repo(repo: Path, name: str) -> Path:
    """Find a model in a folder: a file of this name, with or without its ending, or a folder."""
    exact = repo / name
    endings = [exact.with_name(exact.name + suffix) for suffix in (".safetensors", ".yaml", ".th")]
    found = [path for path in (exact, *endings, *sorted(repo.glob(f"{name}-*.th"))) if path.exists()]
    if not found:
        raise LoadModelError(f"there is no model {name!r} in '{repo}'; give a file or folder in it")
    return found[0]


def list_models(repo: Path | None = None) -> dict[str, dict[str, str | Path]]:
    """List models by name.

    Args:
        repo: a folder of models; None for those that polyres knows.

    Returns:
        "single" and "bag": name to where the model comes from.
    """
    if repo is not None:
        files = sorted(path for path in Path(repo).iterdir() if path.suffix in (".th", ".safetensors", ".yaml"))
        return {
            "single": {path.stem: path for path in files if path.suffix != ".yaml"},
            "bag": {path.stem: path for path in files if path.suffix == ".yaml"},
        }
    infos = known_models()
    bags = {info.name: info.source for info in infos if info.name.startswith("htdemucs")}
    return {"single": {info.name: info.source for info in infos if info.name not in bags}, "bag": {**bags}}


def save_audio(
    wav: Tensor,
    path: str | Path,
    samplerate: int,
    bitrate: int = 320,
    clip: ClipMode = "rescale",
    bits_per_sample: Literal[16, 24, 32] = 16,
    as_float: bool = False,
    preset: int = 2,
) -> None:
    """Write a waveform as wav, flac or mp3.

    Args:
        wav: `[C, T]`, full scale = 1.
        path: the file; its ending says the format.
        samplerate: its rate in Hz.
        bitrate: taken and not used: mp3 files have the best rate.
        clip: what becomes of samples above full scale: all are turned down, or each is cut or bent.
        bits_per_sample: of wav and flac; 32 means float.
        as_float: write wav with float samples.
        preset: taken and not used.

    Raises:
        OutputError: when it cannot be written.
        ValueError: for another ending or an unknown `clip`.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in ("wav", "flac", "mp3"):
        raise ValueError(f"Invalid suffix for path: .{kind}")
    as_float = kind == "wav" and (as_float or bits_per_sample == 32)
    depth: BitDepth = "float" if as_float else 24 if bits_per_sample == 24 else 16
    spec = WriteSpec(samplerate, wav.shape[0], kind, depth)
    with AudioWriter(path, spec) as writer:
        writer.write(_held(wav.detach().cpu().float(), clip).numpy())


def _held(wav: Tensor, clip: str) -> Tensor:
    """Keep samples within full scale."""
    if clip == "rescale":
        return wav / max(1.01 * float(wav.abs().max()), 1.0)
    if clip == "clamp":
        return wav.clamp(-0.99, 0.99)
    if clip == "tanh":
        return torch.tanh(wav)
    if clip == "none":
        return wav
    raise ValueError(f"Invalid mode {clip}")


__all__ = ["LoadAudioError", "LoadModelError", "PolyresError", "Separator", "list_models", "save_audio"]
