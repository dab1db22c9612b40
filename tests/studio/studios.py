"""A studio with a quick engine, and songs for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import uvicorn
from fastapi.testclient import TestClient

from polyres.batch.manifest import MANIFEST_NAME, InputId, Manifest, StemRecord, manifest_text
from polyres.codec.track import REPORT_NAME
from polyres.core.errors import InputError
from polyres.listen.server.web import bind
from polyres.nn.transformer import TransformerConfig
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.weights import save_separator
from polyres.studio.engines import Choice, Engine, Made, Progress
from polyres.studio.server import create_app
from polyres.studio.songs import StudioOptions

RATE_HZ = 44_100
VISITOR = {"x-studio-visitor": "visitor-0123456789abcdef"}
STEMS = ("low", "high")


def song(path: Path, seconds: float = 0.5, channels: int = 2, rate_hz: int = RATE_HZ) -> Path:
    """A low tone on the left and a high one on the right, with a beat."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    beat = 0.6 + 0.4 * np.cos(2 * np.pi * 2 * time_s)
    pair = [0.3 * beat * np.sin(2 * np.pi * pitch * time_s) for pitch in (110, 1760)]
    wave = np.stack(pair[:channels] if channels <= 2 else [pair[n % 2] for n in range(channels)], axis=1)
    soundfile.write(path, wave, rate_hz, subtype="PCM_16")
    return path


def tiny_weights(path: Path) -> Path:
    """A separator without training, small enough to be quick."""
    config = SeparatorConfig(
        n_fft=(512,), channels=4, wave_branch=False, segment_samples=4096, transformer=TransformerConfig(kind="none")
    )
    return save_separator(Separator(config), path)


class QuickEngine:
    """Takes the left channel for one stem and the right for the other, or halves for "halves"."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.go_on.set()
        self.started = threading.Event()
        self.runs = 0
        self.seen: list[Path] = []

    @property
    def choices(self) -> Sequence[Choice]:
        return [
            Choice("separate:sides", "separate", "sides"),
            Choice("separate:halves", "separate", "halves"),
            Choice("reconstruct:echo", "reconstruct", "echo"),
            Choice("separate:broken", "separate", "broken"),
            Choice("separate:crash", "separate", "crash"),
        ]

    def run(self, choice: Choice, song: Path, folder: Path, progress: Progress) -> Made:
        self.runs += 1
        self.seen.append(folder)
        self.started.set()
        while not self.go_on.wait(0.01):
            progress(0.5)
        progress(0.6)
        if choice.label == "broken":
            raise InputError(f"{song}: is not music")
        if choice.label == "crash":
            raise RuntimeError("boom")
        wave, rate_hz = soundfile.read(song, always_2d=True)
        if choice.kind == "reconstruct":
            parts = {"original": wave, "codec": 0.5 * wave, "difference": 0.5 * wave}
        elif choice.label == "sides":
            parts = {"low": wave * [1, 0], "high": wave * [0, 1]}
        else:
            parts = {"low": 0.5 * wave, "high": 0.5 * wave}
        files = {}
        for name, part in parts.items():
            files[name] = folder / f"{name}.wav"
            soundfile.write(files[name], part, rate_hz, subtype="PCM_24")
        return Made(files, 1.0, (f"{song}: a warning",))


@contextmanager
def studio(engine: Engine | None = None, options: StudioOptions | None = None) -> Iterator[TestClient]:
    app = create_app(engine or QuickEngine(), options)
    with TestClient(app, "http://localhost", headers=VISITOR) as http:
        yield http


@contextmanager
def served(engine: Engine) -> Iterator[str]:
    """A studio on a port of its own; gives its address."""
    listening = bind(StudioOptions(port=0))
    server = uvicorn.Server(uvicorn.Config(create_app(engine), log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()


def separated(folder: Path, labels: Sequence[str] = ("one", "two"), seconds: float = 2.0) -> Path:
    """Folders as separate writes them: the same song by several models."""
    mixture = song(folder.parent / "mixture.wav", seconds)
    wave, rate_hz = soundfile.read(mixture)
    for label in labels:
        track = folder / label / "tune"
        track.mkdir(parents=True)
        files = {}
        for number, name in enumerate(STEMS):
            soundfile.write(track / f"{name}.wav", wave * [1 - number, number], rate_hz, subtype="PCM_24")
            files[f"{name}.wav"] = StemRecord(name, {"model": label}, 1.0)
        (track / MANIFEST_NAME).write_text(manifest_text(Manifest(InputId.of(mixture), files), {}))
    return folder


def reconstructed(folder: Path, label: str = "echo", seconds: float = 2.0) -> Path:
    """A folder as reconstruct writes it: the low tone is lost by the codec, the enhancer has half of it."""
    wave, rate_hz = soundfile.read(song(folder.parent / "in.wav", seconds))
    track = folder / label / "tune"
    track.mkdir(parents=True)
    for name, low in {"original": 1.0, "codec": 0.0, "enhanced": 0.5}.items():
        soundfile.write(track / f"{name}.wav", wave * [low, 1], rate_hz, subtype="PCM_24")
    (track / REPORT_NAME).write_text('{"gain": 1.0}')
    return folder
