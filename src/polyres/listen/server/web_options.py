"""Options for the address of a server; imports no web library."""

from __future__ import annotations

import ipaddress
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import idna

from polyres.core.errors import ConfigError

_USUAL_PORTS = {"http": 80, "https": 443}
SHARED_DIR = Path(__file__).parents[1] / "shared"  # modules of pages that listening tests and the studio both load


def plain_host(name: str) -> str | None:
    """Write a host as browsers send it: in lower case, letters of other scripts encoded, without a dot at its end.

    Source: WHATWG URL Standard, 3.3 (host parsing); UTS 46.
    """
    name = name.lower().rstrip(".")
    with suppress(ValueError):
        return str(ipaddress.ip_address(name))
    try:
        return idna.encode(name, uts46=True).decode().rstrip(".") if not name.isascii() else name or None
    except idna.IDNAError:
        return None


def plain_origin(url: str) -> str | None:
    """Return the origin of an address as browsers send it: scheme, host, and the port where it is not the usual one."""
    try:
        parts = urlsplit(url.strip())
        host, port = plain_host(parts.hostname or ""), parts.port
    except ValueError:
        return None
    if parts.scheme not in _USUAL_PORTS or not host or re.search(r"[\s/?#@<>^|%\\]", host):
        return None
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, _USUAL_PORTS[parts.scheme]) else "")


@dataclass(frozen=True)
class WebOptions:
    """Where a server listens, and whom it believes."""

    host: str = "127.0.0.1"  # address to listen on; "0.0.0.0" for all
    port: int = 8765  # TCP port; 0 takes any that is free
    root_path: str = ""  # path under which a proxy shows the server, such as "/listen"; it may or may not strip it
    proxy_addresses: str = "127.0.0.1"  # whose `X-Forwarded-For` is believed, comma-separated; "*" for everybody
    allowed_origins: tuple[str, ...] = ()  # further origins that may send changes
    # address under which browsers find the server, such as "https://lab.example/listen"; host and port by default
    public_url: str = ""

    def __post_init__(self) -> None:
        """Validate the options early."""
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port {self.port} does not exist; choose 1024 to 65535, or 0 for any that is free")
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            example = self.root_path.strip("/") or "listen"
            raise ConfigError(
                f"root path {self.root_path!r} must begin with '/' and not end with one; write it like /{example}"
            )
        if self.public_url and plain_origin(self.public_url) is None:
            raise ConfigError(f"public URL {self.public_url!r} names no host; write it like https://lab.example/listen")
        for origin in self.allowed_origins:
            if plain_origin(origin) is None:
                raise ConfigError(f"origin {origin!r} names no host; write it like https://lab.example")

    @property
    def answers_everywhere(self) -> bool:
        """Whether it listens on all addresses of the machine."""
        return self.host in ("0.0.0.0", "::", "")

    @property
    def host_names(self) -> frozenset[str]:
        """Names by which browsers may address the server, beside those of the loopback."""
        addresses = (self.public_url, *self.allowed_origins)
        named = {urlsplit(plain_origin(address) or "").hostname or "" for address in addresses}
        own = {socket.gethostname(), f"{socket.gethostname()}.local"} if self.answers_everywhere else {self.host}
        return frozenset(named | {plain_host(name) or name.lower() for name in own} - {""})

    def url(self, port: int) -> str:
        """Return the address without a slash at the end.

        Args:
            port: the one that was bound.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{port}{self.root_path}"
