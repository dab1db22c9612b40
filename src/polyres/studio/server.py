"""The web server of the studio."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from starlette.responses import JSONResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from polyres.core.errors import ConfigError, PolyresError, UnknownNameError
from polyres.listen.security import BodyLimit, RootPath, SameSiteOnly, SecurityHeaders
from polyres.studio import api
from polyres.studio.desk import Desk, FullError
from polyres.studio.engines import Engine
from polyres.studio.options import StudioOptions

STATIC_DIR = Path(__file__).parent / "static"
_GRACE_S = 5


class _SmallBodies:
    """Limits bodies as a listening test does, all but those of songs, which are counted while they stream."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._limited = BodyLimit(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        is_song = scope["type"] == "http" and scope["method"] == "POST" and scope["path"].endswith("/api/songs")
        await (self._app if is_song else self._limited)(scope, receive, send)


def create_app(engine: Engine, options: StudioOptions | None = None) -> FastAPI:
    """Put the studio together.

    Args:
        engine: does the work.
        options: how it is served.

    Returns:
        An ASGI application; its `state.desk` knows the songs. Their files are removed when it ends.
    """
    options = options or StudioOptions()
    desk = Desk(engine, options)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    # No pages of documentation: they would load scripts of other sites.
    app = FastAPI(title="polyres studio", openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.desk = desk
    app.include_router(api.router)
    app.add_api_route("/", _page, include_in_schema=False, methods=["GET", "HEAD"])
    app.mount("/static", StaticFiles(directory=STATIC_DIR), name="static")
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(UnknownNameError, _refused(404))
    app.add_exception_handler(FullError, _refused(503))
    app.add_exception_handler(PolyresError, _refused(422))
    # The last one added is the first one passed.
    app.add_middleware(SameSiteOnly, allowed_origins=options.allowed_origins)
    app.add_middleware(_SmallBodies)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RootPath, root_path=options.root_path)
    return app


def run(engine: Engine, options: StudioOptions | None = None, announce: Callable[[str], None] | None = None) -> None:
    """Serve the studio until interrupted.

    Args:
        engine: does the work.
        options: how it is served.
        announce: called with the page's address when the server takes connections.

    Raises:
        ConfigError: if the port is taken or the address is not this machine's.
    """
    options = options or StudioOptions()
    listening = _bind(options)
    app = create_app(engine, options)
    host = f"[{options.host}]" if ":" in options.host else options.host
    if announce is not None:
        announce(f"http://{host}:{listening.getsockname()[1]}{options.root_path}/")
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=options.proxy_addresses,
        timeout_graceful_shutdown=_GRACE_S,
    )
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass  # the usual way to end; uvicorn has finished what was under way
    finally:
        listening.close()
        app.state.desk.close()


def _bind(options: StudioOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((options.host, options.port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        reason = error.strerror or error
        raise ConfigError(
            f"cannot listen on {options.host} port {options.port} ({reason}); choose another --port or --host"
        ) from error
    return listening


def _page() -> FileResponse:
    return FileResponse(STATIC_DIR / "index.html", media_type="text/html")


def _invalid(_request: Request, error: Exception) -> Response:
    """Say what is wrong without repeating what was sent, which need not be text that can be."""
    problems: list[Any] = list(error.errors()) if isinstance(error, RequestValidationError) else []
    texts = [f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in problems[:5]]
    return JSONResponse({"detail": "; ".join(texts)[:1000].encode("ascii", "replace").decode()}, status_code=422)


def _refused(status: int) -> Callable[[Request, Exception], Response]:
    def refuse(_request: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error).encode("utf-8", "replace").decode()}, status_code=status)

    return refuse
