"""Small sound files of many kinds, made on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

SAMPLE_FORMATS = {"libopus": "flt", "pcm_s16le": "s16", "flac": "s16"}


def sound(length: int, channels: int = 2, rate_hz: int = 44100, seed: int = 0) -> np.ndarray:
    """A sweep with noise, different in each channel, `[C, T]` float32 below full scale."""
    t = np.arange(length) / rate_hz
    sweep = 0.3 * np.sin(2 * np.pi * (300 * t + 400 * t * t)) * (1 + 0.3 * np.sin(6 * np.pi * t))
    noise = np.random.default_rng(seed).standard_normal((channels, length))
    noise = np.cumsum(noise, axis=1) - np.cumsum(np.pad(noise, ((0, 0), (8, 0)))[:, :length], axis=1)
    gains = 1 - 0.1 * np.arange(channels)[:, None]
    return (gains * sweep + 0.02 * noise).astype(np.float32)


def snr_db(wanted: np.ndarray, got: np.ndarray) -> float:
    error = np.sum((wanted.astype(np.float64) - got) ** 2)
    return float(10 * np.log10(np.sum(wanted.astype(np.float64) ** 2) / max(error, 1e-30)))


def lag(wanted: np.ndarray, got: np.ndarray) -> int:
    """Samples by which `got` comes late, from the cross-correlation of the first channels."""
    size = 1 << (wanted.shape[1] + got.shape[1]).bit_length()
    spectrum = np.fft.rfft(got[0], size) * np.fft.rfft(wanted[0], size).conj()
    peak = int(np.argmax(np.fft.irfft(spectrum)))
    return peak if peak < size // 2 else peak - size


def write_media(
    path: Path,
    codec: str,
    waves: Sequence[np.ndarray],
    rate_hz: int = 44100,
    container: str | None = None,
    options: dict[str, str] | None = None,
    with_video: bool = False,
    tags: dict[str, str] | None = None,
    late_samples: int = 0,
    gap: tuple[int, int] = (0, 0),
    default_stream: int | None = None,
) -> Path:
    """Encode each `[C, T]` of `waves` as one audio stream through FFmpeg's libraries.

    The sound may start late, and leave a gap in its time stamps: where, and how long, in samples.
    """
    with av.open(str(path), "w", format=container, options=options or {}) as file:
        file.metadata.update(tags or {})
        streams = []
        video = None
        if with_video:
            video = file.add_stream("mpeg4", rate=10)
            video.width = video.height = 32
            video.pix_fmt = "yuv420p"
        for wave in waves:
            layout = {1: "mono", 2: "stereo", 6: "5.1", 7: "6.1", 8: "7.1"}.get(len(wave), f"{len(wave)} channels")
            stream = file.add_stream(codec, rate=rate_hz, layout=layout)
            stream.codec_context.format = SAMPLE_FORMATS.get(codec, "fltp")
            if codec not in ("flac", "pcm_s16le", "wavpack"):
                stream.codec_context.bit_rate = 128000
            stream.codec_context.open()
            if default_stream is not None:
                stream.disposition = av.stream.Disposition.default if len(streams) == default_stream else 0
            streams.append((stream, layout))
        if video is not None:
            for at in range(10):
                picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), at * 20, np.uint8), format="rgb24")
                picture.pts = at
                file.mux(video.encode(picture.reformat(format="yuv420p")))
            file.mux(video.encode(None))
        for (stream, layout), wave in zip(streams, waves, strict=True):
            _encode(file, stream, layout, wave, rate_hz, (late_samples, gap))
    return path


def _encode(
    file: av.container.OutputContainer,
    stream: av.AudioStream,
    layout: str,
    wave: np.ndarray,
    rate_hz: int,
    place: tuple[int, tuple[int, int]],
) -> None:
    late, (gap_at, gap_length) = place
    context = stream.codec_context
    size = context.frame_size or 1024
    wanted = context.format.name
    packed = wanted.removesuffix("p")
    # PyAV cannot fill eight planes or more from an array, so frames are made packed and spread by its resampler.
    spread = av.AudioResampler(format=wanted, layout=layout, rate=rate_hz)
    for at in range(0, wave.shape[1], size):
        part = wave[:, at : at + size]
        if packed == "s16":
            part = np.round(part * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part.T).reshape(1, -1), format=packed, layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, at + late, Fraction(1, rate_hz)
        if gap_length and at >= gap_at:
            frame.pts += gap_length
        for ready in spread.resample(frame):
            file.mux(stream.encode(ready))
    file.mux(stream.encode(None))


def unsized_flac(path: Path, wave: np.ndarray, rate_hz: int = 44100) -> Path:
    """Write a 16-bit FLAC whose header states no length, as one that was written to a pipe."""
    soundfile.write(path, wave.T, rate_hz, format="FLAC", subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    return path


def cut(path: Path, keep_bytes: int | float, name: str | None = None) -> Path:
    """Keep the first bytes (or the first part) of a file, under another name."""
    content = path.read_bytes()
    keep = round(keep_bytes * len(content)) if isinstance(keep_bytes, float) else keep_bytes
    shorter = path.with_name(name or f"cut_{path.name}")
    shorter.write_bytes(content[:keep])
    return shorter
