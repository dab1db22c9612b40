"""What both servers stand on."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from polyres.core.errors import ConfigError, InputError
from polyres.listen.server.links import MAX_BODY_BYTES
from polyres.listen.server.web import bind, refused, serve, web_app
from polyres.listen.server.web_options import SHARED_DIR, WebOptions


@asynccontextmanager
async def nothing(_app: FastAPI) -> AsyncIterator[None]:
    yield


def page_app(folder: Path, root_path: str = "") -> FastAPI:
    (folder / "index.html").write_text("<!doctype html><p>page</p>", encoding="utf-8")
    (folder / "own.js").write_text("// own", encoding="utf-8")
    app = web_app("Test", folder, WebOptions(root_path=root_path), nothing)

    @app.post("/api/number")
    def number(value: int) -> int:
        if value < 0:
            raise InputError(f"{value} is too small \ud800")
        if value > 9:
            raise KeyError(value)
        return value

    app.add_exception_handler(KeyError, refused(409))
    return app


def test_pages_and_what_they_share_are_served(tmp_path: Path) -> None:
    with TestClient(page_app(tmp_path), "http://localhost") as http:
        page = http.get("/")
        assert (page.text, page.headers["content-type"]) == ("<!doctype html><p>page</p>", "text/html; charset=utf-8")
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert http.get("/static/own.js").text == "// own"
        shared = http.get("/static/dom.js")
        assert shared.text == (SHARED_DIR / "dom.js").read_text(encoding="utf-8")
        assert "javascript" in shared.headers["content-type"]
        assert http.head("/static/dom.js").status_code == 200
        assert http.get("/openapi.json").status_code == http.get("/docs").status_code == 404


def test_errors_are_one_line_and_nobody_else_may_ask(tmp_path: Path) -> None:
    with TestClient(page_app(tmp_path, "/lab"), "http://localhost") as http:
        assert http.post("/lab/api/number", params={"value": 3}).json() == 3
        assert http.get("/lab", follow_redirects=False).headers["location"] == "/lab/"
        small = http.post("/api/number", params={"value": -1})
        assert (small.status_code, small.json()["detail"]) == (422, "-1 is too small ?")
        assert http.post("/api/number", params={"value": 10}).status_code == 409
        wrong = http.post("/api/number", params={"value": "x"})
        assert wrong.status_code == 422
        assert wrong.json()["detail"].startswith("query.value: ")
        foreign = http.post("/api/number", params={"value": 3}, headers={"origin": "https://evil.example"})
        assert foreign.status_code == 403
        assert http.post("/api/number", content=b"x" * (MAX_BODY_BYTES + 1)).status_code == 413


def test_impossible_options_are_refused() -> None:
    for port in (-1, 70_000):
        with pytest.raises(ConfigError, match=f"port {port} does not exist"):
            WebOptions(port=port)
    for path in ("lab", "/lab/"):
        with pytest.raises(ConfigError, match="must begin with '/' and not end with one; write it like /lab"):
            WebOptions(root_path=path)


def test_addresses() -> None:
    assert WebOptions(host="::1", root_path="/lab").url(80) == "http://[::1]:80/lab"
    assert WebOptions().url(8765) == "http://127.0.0.1:8765"


def test_a_taken_port_is_named() -> None:
    with bind(WebOptions(port=0)) as taken:
        port = taken.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            pass
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {port}"):
            bind(WebOptions(port=port))


def test_connections_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[uvicorn.Config] = []

    class Server:
        def __init__(self, config: uvicorn.Config) -> None:
            seen.append(config)

        def run(self, sockets: list[socket.socket]) -> None:
            pass

    monkeypatch.setattr(uvicorn, "Server", Server)
    options = WebOptions(port=0)
    serve(page_app(tmp_path), bind(options), options)
    assert seen[0].limit_concurrency == 512


def test_the_studio_needs_no_database() -> None:
    code = (
        "import sys, polyres.listen.server.web; assert 'sqlalchemy' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    light = "import sys, polyres.listen.server.web_options, polyres.studio.songs; assert 'fastapi' not in sys.modules"
    subprocess.run([sys.executable, "-c", light], check=True)
