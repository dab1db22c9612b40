"""Where a server listens; light enough for a command that only reads options."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from polyres.core.errors import ConfigError

SHARED_DIR = Path(__file__).parent / "shared"  # modules of pages that listening tests and the studio both load


@dataclass(frozen=True)
class WebOptions:
    """Where a server listens, and whom it believes.

    Attributes:
        host: address to listen on; "0.0.0.0" for all.
        port: TCP port; 0 takes any that is free.
        root_path: path under which a proxy shows the server, such as "/listen"; it may or may not strip it.
        proxy_addresses: whose `X-Forwarded-For` is believed, comma-separated; "*" for everybody.
        allowed_origins: further origins that may send changes.
        public_url: address under which browsers find the server, such as "https://lab.example/listen"; host and port
            by default.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    root_path: str = ""
    proxy_addresses: str = "127.0.0.1"
    allowed_origins: tuple[str, ...] = ()
    public_url: str = ""

    def __post_init__(self) -> None:
        """Check what would only fail later.

        Raises:
            ConfigError: for a port or path that cannot be.
        """
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port {self.port} does not exist; choose 1024 to 65535, or 0 for any that is free")
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            example = self.root_path.strip("/") or "listen"
            raise ConfigError(
                f"root path {self.root_path!r} must begin with '/' and not end with one; write it like /{example}"
            )

        if self.public_url and not urlsplit(self.public_url).hostname:
            raise ConfigError(f"public URL {self.public_url!r} names no host; write it like https://lab.example/listen")

    @property
    def answers_everywhere(self) -> bool:
        """Whether it listens on all addresses of the machine."""
        return self.host in ("0.0.0.0", "::", "")

    @property
    def host_names(self) -> frozenset[str]:
        """Names by which browsers may address the server, beside those of the loopback."""
        addresses = (self.public_url, *self.allowed_origins)
        named = {urlsplit(address).hostname or "" for address in addresses}
        own = {socket.gethostname(), f"{socket.gethostname()}.local"} if self.answers_everywhere else {self.host}
        return frozenset(name.lower() for name in named | own if name)

    def url(self, port: int) -> str:
        """Return the address without a slash at the end.

        Args:
            port: the one that was bound.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{port}{self.root_path}"
