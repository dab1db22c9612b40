"""Common parts of the web servers: address, static pages, error answers and protection."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from starlette.responses import JSONResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from polyres.core.errors import ConfigError, PolyresError
from polyres.listen.server.security import (
    SECURITY_HEADERS,
    BodyLimit,
    KnownHosts,
    RootPath,
    SameSiteOnly,
    SecurityHeaders,
)
from polyres.listen.server.web_options import SHARED_DIR, WebOptions

_GRACE_S = 5
_WAITING = 1024
_MOST_CONNECTIONS = 512

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
Refusal = Callable[[Request, Exception], Response]


def web_app(
    title: str,
    static_dir: Path,
    options: WebOptions,
    lifespan: Lifespan,
    body_limit: Callable[[ASGIApp], ASGIApp] = BodyLimit,
) -> FastAPI:
    """Create an application that serves a page and its files, with one-line errors and the security middleware.

    Args:
        static_dir: folder of `index.html` and what it loads; what all pages share is served beside it.
        lifespan: what happens at the start and at the end.
        body_limit: wraps an application so that it refuses bodies that are too large.

    Returns:
        An ASGI application without an API of its own.
    """
    # No pages of documentation: they would load scripts of other sites.
    app = FastAPI(title=title, openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    add_file(app, "/", static_dir / "index.html")
    for path in sorted(SHARED_DIR.iterdir()):
        add_file(app, f"/static/{path.name}", path)
    app.mount("/static", StaticFiles(directory=static_dir), name="static")
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(PolyresError, refused(422))
    app.add_exception_handler(Exception, _broken)
    # The last one added is the first one passed.
    app.add_middleware(SameSiteOnly, allowed_origins=options.allowed_origins)
    app.add_middleware(body_limit)
    app.add_middleware(RootPath, root_path=options.root_path)
    app.add_middleware(KnownHosts, names=options.host_names, any_address=options.answers_everywhere)
    app.add_middleware(SecurityHeaders)
    return app


def add_file(app: FastAPI, address: str, path: Path) -> None:
    """Serve one file at an address."""

    def file() -> FileResponse:
        return FileResponse(path)

    app.add_api_route(address, file, include_in_schema=False, methods=["GET", "HEAD"])


def bind(options: WebOptions) -> socket.socket:
    """Bind the address of a server, so that its port is known before it starts.

    Raises:
        ConfigError: if the port is taken or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((options.host, options.port))
        listening.listen(_WAITING)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen on {options.host} port {options.port} ({error.strerror or error}); "
            "choose another --port or --host"
        ) from error
    return listening


def serve(app: FastAPI, listening: socket.socket, options: WebOptions) -> None:
    """Serve an application until interrupted.

    Args:
        listening: from `bind`; closed at the end.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=options.proxy_addresses,
        timeout_graceful_shutdown=_GRACE_S,
        limit_concurrency=_MOST_CONNECTIONS,
    )
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass  # the usual way to end; uvicorn has finished what was under way
    finally:
        listening.close()


def refused(status: int) -> Refusal:
    """Return a handler that answers an error with its own words.

    Args:
        status: HTTP status of the answer.
    """

    def refuse(_request: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error).encode("utf-8", "replace").decode()}, status_code=status)

    return refuse


def _broken(_request: Request, _error: Exception) -> Response:
    """Answer an unexpected error; runs outside of all middleware, and the error is logged afterwards."""
    detail = "something went wrong in the server; see its log"
    return JSONResponse({"detail": detail}, 500, headers={**SECURITY_HEADERS, "cache-control": "no-store"})


def _invalid(_request: Request, error: Exception) -> Response:
    """Report what is invalid without repeating the input, which may not be valid text."""
    problems: list[Any] = list(error.errors()) if isinstance(error, RequestValidationError) else []
    texts = [f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in problems[:5]]
    detail = "; ".join(texts)[:1000].encode("ascii", "backslashreplace").decode()
    return JSONResponse({"detail": detail}, status_code=422)
