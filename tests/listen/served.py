"""Studies of made-up sounds, and servers of them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from polyres.listen.design.files import STUDY_NAME
from polyres.listen.server.app import create_app
from polyres.listen.server.state import ServerOptions, ServerState

RATE_HZ = 44_100
ADMIN_TOKEN = "an-admin-token-for-tests"


def write_study(
    folder: Path,
    kind: str = "mushra",
    conditions: int = 3,
    pages: int = 2,
    seconds: float = 0.5,
    changes: dict[str, Any] | None = None,
) -> Path:
    """Write a study whose conditions are tones of different pitch; the first is the hidden reference."""
    study: dict[str, Any] = {
        "name": "made-up",
        "title": "Which bass is closest to the original?",
        "kind": kind,
        "conditions": [{"id": f"c{n}", "label": f"Secret {n}"} for n in range(conditions)],
        "pages": [],
        "level_check": False,
        "sample_rate_hz": RATE_HZ,
    }
    study["conditions"][0]["role"] = "reference"
    if kind in ("acr", "dcr"):
        study["attributes"] = [{"name": "quality", "question": "How good is the sound?"}]
    has_reference = kind in ("mushra", "dcr")
    for page in range(pages):
        study["pages"].append(write_page(folder, f"p{page}", conditions, has_reference, seconds))
    study |= changes or {}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STUDY_NAME).write_text(json.dumps(study), encoding="utf-8")
    return folder


def write_page(folder: Path, name: str, conditions: int, reference: bool, seconds: float) -> dict[str, Any]:
    audio = {f"c{n}": f"audio/{name}-{n}.wav" for n in range(conditions)}
    for number, file in enumerate(audio.values()):
        write_tone(folder / file, 220 * (number + 2), seconds)
    page: dict[str, Any] = {"id": name, "item": name, "audio": audio}
    if reference:
        page["reference"] = f"audio/{name}-open.wav"
        write_tone(folder / page["reference"], 440, seconds)
    return page


def write_tone(path: Path, pitch_hz: float, seconds: float, rate_hz: int = RATE_HZ, channels: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    beat = 0.5 + 0.5 * np.cos(2 * np.pi * 4 * time_s)
    tone = 0.2 * beat * np.sin(2 * np.pi * pitch_hz * time_s)
    soundfile.write(path, np.repeat(tone[:, None], channels, axis=1), rate_hz, subtype="PCM_16")


class Client:
    """A listener's browser without a browser."""

    def __init__(self, http: TestClient, token: str = "") -> None:
        self.http = http
        self.token = token

    def join(self) -> Client:
        answer = self.http.post("/api/join", json={})
        assert answer.status_code == 201, answer.text
        self.token = answer.json()["token"]
        return self

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        headers = {"authorization": f"Bearer {self.token}"} | (headers or {})
        content = None if body is None else json.dumps(body)
        if content is not None:
            headers.setdefault("content-type", "application/json")
        return self.http.request(method, path, content=content, headers=headers)

    def visit(self) -> dict[str, Any]:
        answer = self.call("POST", "/api/visit", {})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def rate(self, **rating: Any) -> Any:
        return self.call("PUT", "/api/ratings", {"ratings": [{"attribute": "quality", "revision": 1, **rating}]})

    def rate_all(self, visit: dict[str, Any], value: float = 50) -> None:
        for trial in visit["trials"]:
            part = visit["study"]["parts"][trial["part"]]
            pairs = part["kind"] in ("abx", "ab")
            slots = [None] if pairs else range(trial["sounds"])
            answers = [{"choice": "a"} if pairs else {"slot": slot, "value": value} for slot in slots]
            for attribute in part["attributes"]:
                for answer in answers:
                    sent = self.rate(trial=trial["index"], **answer, attribute=attribute["name"])
                    assert sent.status_code == 200, sent.text
        self.call("PUT", "/api/progress", {"position": len(visit["trials"])})


@contextmanager
def serving(folder: Path, changes: dict[str, Any] | None = None) -> Iterator[TestClient]:
    """The server in this process, without a socket."""
    app = create_app(folder, ServerOptions(**{"admin_token": ADMIN_TOKEN, **(changes or {})}))
    with TestClient(app, "http://localhost", raise_server_exceptions=True) as http:
        yield http


def state_of(http: TestClient) -> ServerState:
    state: ServerState = http.app.state.polyres  # type: ignore[attr-defined]
    return state


class Listening:
    """A server on a socket, in a thread of this process."""

    def __init__(self, app: FastAPI, port: int) -> None:
        self.state: ServerState = app.state.polyres
        self.state.bound_port = port
        self.url = f"{self.state.base_url}/"
        self.admin_url = self.state.admin_link()


@contextmanager
def listening(folder: Path, changes: dict[str, Any] | None = None) -> Iterator[Listening]:
    """The server in a thread, for browsers: quicker to start than a process."""
    app = create_app(folder, ServerOptions(**{"admin_token": ADMIN_TOKEN, **(changes or {})}))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    bound = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        yield Listening(app, bound.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(20)
        bound.close()


_RUN = """
import json, sys
from polyres.listen.server.links import Rate
from polyres.listen.server.app import run
from polyres.listen.server.state import ServerOptions
values = json.loads(sys.argv[2])
values = {name: Rate(*value) if name in ("joins", "calls") else value for name, value in values.items()}
run(sys.argv[1], ServerOptions(**values), lambda listeners, admin: print(listeners, admin, flush=True))
"""


class ServerProcess:
    """The real server, in a process that can be killed."""

    def __init__(self, folder: Path, changes: dict[str, Any] | None = None) -> None:
        options = {"port": 0, "admin_token": ADMIN_TOKEN, "joins": [1e6, 1e6], "calls": [1e6, 1e6], **(changes or {})}
        command = [sys.executable, "-c", _RUN, str(folder), json.dumps(options)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url, _, self.admin_url = self._process.stdout.readline().strip().partition(" ")
        assert self.url, "the server did not start"

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._wait()

    def stop(self) -> int:
        self._process.send_signal(signal.SIGINT)
        return self._wait()

    def _wait(self) -> int:
        code = self._process.wait(30)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code
