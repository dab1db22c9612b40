"""The web server of a listening test."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from sqlalchemy.exc import DBAPIError
from starlette.responses import JSONResponse
from starlette.staticfiles import StaticFiles

from polyres.core.errors import ConfigError, PolyresError
from polyres.listen import api, api_admin
from polyres.listen.security import BodyLimit, RootPath, SameSiteOnly, SecurityHeaders
from polyres.listen.server_state import ServerOptions, ServerState
from polyres.listen.store import ClosedError

STATIC_DIR = Path(__file__).parent / "static"
_GRACE_S = 5


def create_app(
    study_dir: str | Path,
    options: ServerOptions | None = None,
    announce: Callable[[str, str], None] | None = None,
) -> FastAPI:
    """Put the server of a study together.

    Args:
        study_dir: folder with `study.json`.
        options: how it is served.
        announce: called with the listeners' link and the administrator's when the application starts.

    Returns:
        An ASGI application; what it knows is its `state.polyres`.

    Raises:
        InputError: if the study or a sound of it is unusable.
        ConfigError: if an option is, or the study has changed since its first listener.
        OutputError: if secrets or database cannot be written.
    """
    options = options or ServerOptions()
    state = ServerState(Path(study_dir), options)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if announce is not None:
            announce(f"{state.base_url}/", state.admin_link())
        yield
        state.store.close()

    # No pages of documentation: they would load scripts of other sites.
    app = FastAPI(title="Listening test", openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.polyres = state
    app.include_router(api.router)
    app.include_router(api_admin.router)
    app.add_api_route("/", _page("index.html"), include_in_schema=False, methods=["GET", "HEAD"])
    app.add_api_route("/admin", _page("admin.html"), include_in_schema=False, methods=["GET", "HEAD"])
    app.mount("/static", StaticFiles(directory=STATIC_DIR), name="static")
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ClosedError, _refused(409))
    app.add_exception_handler(PolyresError, _refused(422))
    app.add_exception_handler(DBAPIError, _database_failed)
    # The last one added is the first one passed.
    app.add_middleware(SameSiteOnly, allowed_origins=options.allowed_origins)
    app.add_middleware(BodyLimit)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RootPath, root_path=options.root_path)
    return app


def run(
    study_dir: str | Path,
    options: ServerOptions | None = None,
    announce: Callable[[str, str], None] | None = None,
) -> None:
    """Serve a study until interrupted.

    Args:
        study_dir: folder with `study.json`.
        options: how it is served.
        announce: called with the listeners' link and the administrator's when the server takes connections.

    Raises:
        InputError: if the study or a sound of it is unusable.
        ConfigError: if an option is, the port is taken, or the study has changed since its first listener.
        OutputError: if secrets or database cannot be written.
    """
    options = options or ServerOptions()
    app = create_app(study_dir, options, announce)
    state: ServerState = app.state.polyres
    listening = _bind(options)
    state.bound_port = listening.getsockname()[1]
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


def _bind(options: ServerOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((options.host, options.port))
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen on {options.host} port {options.port} ({error.strerror}); choose another --port or --host"
        ) from error
    return listening


def _page(name: str) -> Callable[[], FileResponse]:
    def page() -> FileResponse:
        return FileResponse(STATIC_DIR / name, media_type="text/html")

    return page


def _invalid(_request: Request, error: Exception) -> Response:
    """Say what is wrong without repeating what was sent, which need not be text that can be."""
    problems: list[Any] = list(error.errors()) if isinstance(error, RequestValidationError) else []
    texts = [f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in problems[:5]]
    detail = "; ".join(texts)[:1000].encode("ascii", "backslashreplace").decode()
    return JSONResponse({"detail": detail}, status_code=422)


def _refused(status: int) -> Callable[[Request, Exception], Response]:
    def refuse(_request: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error).encode("utf-8", "replace").decode()}, status_code=status)

    return refuse


def _database_failed(_request: Request, error: Exception) -> Response:
    """The page keeps its ratings and sends them again."""
    logging.getLogger("polyres.listen").error("the database failed: %s", error)
    detail = "the answers cannot be written at the moment; they will be sent again"
    return JSONResponse({"detail": detail}, status_code=503, headers={"retry-after": "5"})
