"""Options of the studio."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from polyres.core.errors import ConfigError
from polyres.listen.server.web_options import WebOptions

_MIB = 1 << 20


@dataclass(frozen=True)
class StudioOptions(WebOptions):
    """Options of the studio's server."""

    port: int = 8766
    max_upload_bytes: int = 512 * _MIB  # largest file
    max_total_bytes: int = 8192 * _MIB  # most that uploads and results may take on disk together
    max_minutes: float = 20.0  # longest song
    max_waiting: int = 20  # most jobs that wait at once; half of them, and at least one, of one visitor
    max_uploads: int = 4  # most songs that one visitor sends at once
    upload_pause_s: float = 30.0  # longest time in which nothing of a song arrives
    max_decode_s: float = 60.0  # longest that decoding an upload may take
    # most uploads that are decoded at once, each in a process of its own; `max_waiting` more may wait
    max_decoders: int = 4
    keep_hours: float = 6.0  # after this time without use a song and its results are removed
    folder: Path | None = None  # where songs and results lie, also over a restart; None is a temporary folder

    def __post_init__(self) -> None:
        """Validate the options."""
        super().__post_init__()
        limits = {
            "max_upload_bytes": self.max_upload_bytes,
            "max_total_bytes": self.max_total_bytes,
            "max_minutes": self.max_minutes,
            "max_waiting": self.max_waiting,
            "max_uploads": self.max_uploads,
            "upload_pause_s": self.upload_pause_s,
            "max_decode_s": self.max_decode_s,
            "max_decoders": self.max_decoders,
            "keep_hours": self.keep_hours,
        }
        for name, value in limits.items():
            if not value > 0:
                raise ConfigError(f"{name} {value} lets nothing in; choose more than 0")
