"""The web server of a listening test."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response
from sqlalchemy.exc import DBAPIError
from starlette.responses import JSONResponse

from polyres.listen.server import api
from polyres.listen.server.state import ServerOptions, ServerState
from polyres.listen.server.web import add_file, bind, refused, serve, web_app
from polyres.listen.store.database import ClosedError

STATIC_DIR = Path(__file__).parents[1] / "page"


def create_app(
    study_dir: str | Path, options: ServerOptions | None = None, announce: Callable[[str, str], None] | None = None
) -> FastAPI:
    """Put the server of a study together."""
    options = options or ServerOptions()
    state = ServerState(Path(study_dir), options)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if announce is not None:
            announce(f"{state.base_url}/", state.admin_link())
        yield
        state.store.close()

    app = web_app("Listening test", STATIC_DIR, options, lifespan)
    app.state.polyres = state
    app.include_router(api.router)
    app.include_router(api.admin_router)
    add_file(app, "/admin", STATIC_DIR / "admin.html")
    app.add_exception_handler(ClosedError, refused(409))
    app.add_exception_handler(DBAPIError, _database_failed)
    return app


def run(
    study_dir: str | Path, options: ServerOptions | None = None, announce: Callable[[str, str], None] | None = None
) -> None:
    """Serve a study until interrupted.

    Args:
        study_dir: folder with `study.json`.
        announce: called with the listeners' link and the administrator's when the server takes connections.

    Raises:
        InputError: if the study or a sound of it is unusable.
        ConfigError: if an option is, the port is taken, or the study has changed since its first listener.
        OutputError: if secrets or database cannot be written.
    """
    options = options or ServerOptions()
    app = create_app(study_dir, options, announce)
    state: ServerState = app.state.polyres
    listening = bind(options)
    state.bound_port = listening.getsockname()[1]
    serve(app, listening, options)


def _database_failed(_request: Request, error: Exception) -> Response:
    """The page keeps its ratings and sends them again."""
    logging.getLogger("polyres.listen").error("the database failed: %s", error)
    detail = "the answers cannot be written at the moment; they will be sent again"
    return JSONResponse({"detail": detail}, status_code=503, headers={"retry-after": "5"})
