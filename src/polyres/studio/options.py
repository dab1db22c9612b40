"""What a studio may be told when it starts."""

from __future__ import annotations

from dataclasses import dataclass

from polyres.core.errors import ConfigError

_MIB = 1 << 20


@dataclass(frozen=True)
class StudioOptions:
    """How a studio is served.

    Args:
        host: address to listen on.
        port: port; 0 takes any that is free.
        root_path: path under which a proxy shows the studio, such as "/studio".
        proxy_addresses: proxies that are believed, comma-separated.
        allowed_origins: further origins that may send changes.
        max_upload_bytes: largest file.
        max_total_bytes: most that uploads and results may take on disk together.
        max_minutes: longest song.
        max_waiting: most jobs that wait at once.
        keep_hours: after this time without use a song and its results are removed.

    Raises:
        ConfigError: if a limit lets nothing in, or the path does not begin with a slash.
    """

    host: str = "127.0.0.1"
    port: int = 8766
    root_path: str = ""
    proxy_addresses: str = "127.0.0.1"
    allowed_origins: tuple[str, ...] = ()
    max_upload_bytes: int = 512 * _MIB
    max_total_bytes: int = 8192 * _MIB
    max_minutes: float = 20.0
    max_waiting: int = 20
    keep_hours: float = 6.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        limits = {
            "max_upload_bytes": self.max_upload_bytes,
            "max_total_bytes": self.max_total_bytes,
            "max_minutes": self.max_minutes,
            "max_waiting": self.max_waiting,
            "keep_hours": self.keep_hours,
        }
        for name, value in limits.items():
            if not value > 0:
                raise ConfigError(f"{name} {value} lets nothing in; choose more than 0")
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise ConfigError(f"root path {self.root_path!r} is not one; write it like /studio")
