"""Security middleware: headers, body limits, known hosts and same-site requests."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from polyres.listen.server.links import MAX_BODY_BYTES
from polyres.listen.server.web_options import plain_origin

# Everything from this server, nothing inline: a text of the study that slipped through as markup could do nothing.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
_HOST = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::\d{1,5})?")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class SecurityHeaders:
    """Add security headers to every response; responses of the API are not cached."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        default_cache = "no-store" if "/api/" in scope["path"] else "no-cache"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", default_cache)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class KnownHosts:
    """Refuse requests whose Host is not a name of this server.

    A page of another site could else make its own name point here, and read everything as if it were of the same site
    (DNS rebinding). Addresses cannot be made to point elsewhere, so a server that listens on all of the machine's
    answers to any address.

    Source: OWASP Application Security Verification Standard 4.0, 14.5.
    """

    def __init__(self, app: ASGIApp, names: Collection[str] = (), any_address: bool = False) -> None:
        self._app = app
        self._names = {"localhost", *names}
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "http" and not self._is_known(Headers(scope=scope).getlist("host")):
            detail = "this server does not go by that name; use its own address, or start it with --public-url"
            await JSONResponse({"detail": detail}, status_code=421)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_known(self, given: list[str]) -> bool:
        if len(given) != 1:
            return False
        match = _HOST.fullmatch(given[0].lower())
        if match is None:
            return False
        name = (match["address"] or match["name"]).rstrip(".")
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self._any_address


class SameSiteOnly:
    """Refuse cross-site requests that change anything.

    Tokens travel in a header that no other site can set, so this is the second line of defence.
    """

    def __init__(self, app: ASGIApp, allowed_origins: Iterable[str] = ()) -> None:
        self._app = app
        self._allowed = {plain_origin(origin) for origin in allowed_origins} - {None}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "http" and scope["method"] not in _SAFE_METHODS and self._is_foreign(Headers(scope=scope)):
            response = JSONResponse({"detail": "requests from other sites are refused"}, status_code=403)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_foreign(self, headers: Headers) -> bool:
        if headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none"):
            origin = headers.get("origin")
            if origin is None or plain_origin(origin) in self._allowed:
                return False
            # A browser that says "same-origin" has compared the whole origin itself.
            if "sec-fetch-site" in headers:
                return False
            # Only the host: a proxy may speak https outside and http inside.
            try:
                host = urlsplit(origin).netloc.lower()
            except ValueError:
                return True
            return not host or host not in {headers.get(name, "").lower() for name in ("host", "x-forwarded-host")}
        return plain_origin(headers.get("origin", "")) not in self._allowed


class BodyLimit:
    """Refuses request bodies that are too large, whether announced or streamed."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or scope["method"] in _SAFE_METHODS:
            await self._app(scope, receive, send)
            return
        announced = announced_bytes(Headers(scope=scope))
        body = bytearray()
        too_large = announced is None or announced > self._max_bytes
        while not too_large:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            too_large = len(body) > self._max_bytes
            if not message.get("more_body", False):
                break
        if too_large:
            detail = f"the request is too large; at most {self._max_bytes} bytes"
            await JSONResponse({"detail": detail}, status_code=413)(scope, receive, send)
            return
        await self._app(scope, _replay(bytes(body), receive), send)


def announced_bytes(headers: Headers) -> int | None:
    """Return how large a body is said to be.

    Returns:
        Its size; 0 where nothing is said, None where what is said is no number.
    """
    announced = headers.get("content-length", "0")
    return int(announced) if re.fullmatch(r"[0-9]{1,18}", announced) else None


class RootPath:
    """Serve below a path, whether the proxy in front strips it or not."""

    def __init__(self, app: ASGIApp, root_path: str = "") -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "http" and self._root_path:
            if scope["path"] == self._root_path:
                await RedirectResponse(f"{self._root_path}/", status_code=308)(scope, receive, send)
                return
            stripped = not scope["path"].startswith(f"{self._root_path}/")
            path = self._root_path + scope["path"] if stripped else scope["path"]
            scope = {**scope, "root_path": self._root_path, "path": path}
        await self._app(scope, receive, send)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
