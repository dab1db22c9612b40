"""The web server of the studio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import CapacityLimiter
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from polyres.core.errors import UnknownNameError
from polyres.listen.server.security import BodyLimit
from polyres.listen.server.web import bind, refused, serve, web_app
from polyres.studio import api
from polyres.studio.engines import Engine
from polyres.studio.jobs import JobQueue
from polyres.studio.songs import FullError, StudioOptions

STATIC_DIR = Path(__file__).parent / "static"


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
    """Create the studio's application."""
    options = options or StudioOptions()
    queue = JobQueue(engine, options)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        queue.close()

    app = web_app("polyres studio", STATIC_DIR, options, lifespan, _SmallBodies)
    app.state.queue = queue
    app.state.decoders = CapacityLimiter(options.max_decoders)
    app.include_router(api.router)
    app.add_exception_handler(UnknownNameError, refused(404))
    app.add_exception_handler(FullError, refused(503))
    return app


def run(engine: Engine, options: StudioOptions | None = None, announce: Callable[[str], None] | None = None) -> None:
    """Serve the studio until interrupted.

    Args:
        announce: called with the page's address when the server takes connections.

    Raises:
        ConfigError: if the port is taken or the address is not this machine's.
    """
    options = options or StudioOptions()
    listening = bind(options)
    app = create_app(engine, options)
    if announce is not None:
        announce(f"{options.url(listening.getsockname()[1])}/")
    try:
        serve(app, listening, options)
    finally:
        app.state.queue.close()
