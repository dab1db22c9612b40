"""Writing decoded audio to files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from polyres.core.errors import OutputError
from polyres.data.names import shown
from polyres.data.writer import AudioWriter, WriteSpec


def write_blocks(blocks: Iterable[Tensor], path: Path, sample_rate_hz: int, channels: int) -> Path:
    """Write blocks to a file that appears only when it is whole.

    Args:
        blocks: `[C, n]` float32.
        path: the file; its ending says the format.
        sample_rate_hz: of the blocks.
        channels: of the blocks.

    Returns:
        The path.

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

    Args:
        path: the file.
        sample_rate_hz: of the audio.
        channels: of the audio.

    Returns:
        The way.

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
