"""Stem files (`.stem.mp4`) and data sets of several layouts, made on the spot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

RATE_HZ = 44_100


def noise(length: int, seed: int = 0, level: float = 0.1, channels: int = 2) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal((channels, length))).astype(np.float32)


def write_wave(path: Path, wave: np.ndarray, rate_hz: int = RATE_HZ, subtype: str = "FLOAT") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave.T, rate_hz, subtype="PCM_16" if path.suffix == ".flac" else subtype)
    return path


def write_stem_mp4(path: Path, waves: Sequence[np.ndarray], with_edit_list: bool = True) -> Path:
    """Encode waves `[2, T]` as AAC streams without noise substitution, so that every decoder state is in the frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {} if with_edit_list else {"movflags": "empty_moov"}
    with av.open(str(path), "w", format="mp4", options=options) as file:
        streams = []
        for _ in waves:
            stream = file.add_stream("aac", rate=RATE_HZ, layout="stereo", options={"aac_pns": "0"})
            stream.codec_context.format = "fltp"
            stream.codec_context.bit_rate = 256_000
            stream.codec_context.open()
            streams.append(stream)
        for stream, wave in zip(streams, waves, strict=True):
            for at in range(0, wave.shape[1], 1024):
                part = np.ascontiguousarray(wave[:, at : at + 1024])
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, at, Fraction(1, RATE_HZ)
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    return path


def write_slakh_track(folder: Path, stems: Mapping[str, str], suffix: str = ".flac", length: int = 2000) -> Path:
    """A track whose stems have the given classes; stem number i holds noise of seed i."""
    lines = ["UUID: 0", "stems:"]
    for number, (name, kind) in enumerate(stems.items()):
        is_drum = str(kind == "Drums").lower()
        lines += [f"  {name}:", "    audio_rendered: true", f"    inst_class: {kind}", f"    is_drum: {is_drum}"]
        write_wave(folder / "stems" / f"{name}{suffix}", noise(length, number), subtype="PCM_16")
    (folder / "metadata.yaml").write_text("\n".join(lines) + "\n")
    return folder


def write_moises_track(folder: Path, stems: Mapping[str, Sequence[str]], length: int = 2000) -> Path:
    """A track with the files of the given ids per stem; file number i, counted over all, holds noise of seed i."""
    listed = []
    number = 0
    for stem, ids in stems.items():
        tracks = [{"id": name, "trackType": "any", "extension": "wav", "has_bleed": False} for name in ids]
        listed.append({"id": stem, "stemName": stem, "tracks": tracks})
        for name in ids:
            write_wave(folder / stem / f"{name}.wav", noise(length, number))
            number += 1
    (folder / "data.json").write_text(json.dumps({"artist": "A", "song": folder.name, "stems": listed}))
    return folder


def write_track(folder: Path, sources: Sequence[str], length: int = 2000, with_mixture: bool = False) -> Path:
    """A folder with one WAV file per source; source number i holds noise of seed i."""
    waves = {source: noise(length, number) for number, source in enumerate(sources)}
    if with_mixture:
        waves["mixture"] = np.sum(list(waves.values()), axis=0)
    for name, wave in waves.items():
        write_wave(folder / f"{name}.wav", wave)
    return folder
