from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import yaml

import polyres
from polyres.cli.main import main
from polyres.core.errors import ConfigError, OfflineError, OutputError, WeightsError
from polyres.separation.labels import model_label
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.registry import load_model
from polyres.separation.sharing import WEIGHTS_NAME, pull, push
from polyres.separation.weights import save_separator

CARD = {
    "licence": "MIT",
    "data": ["songs of mine (CC0)"],
    "valid": {"score": 4.25, "drums": 5.0, "drums@512": 1.0},
    "seed": 3,
}


class Hub:
    """A stand-in for the Hub: repositories as files by name, and who asked for what."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool | None] = {}
        self.asked: list[str] = []
        self.messages: list[str] = []

    def post(self, path: str, body: bytes) -> object:
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
            self.files.setdefault(name, {})
            self.private[name] = wanted.get("private") or wanted.get("visibility") == "private"
            return {"url": f"{huggingface_hub.constants.ENDPOINT}/{name}"}
        if "/preupload/" in path:
            paths = [one["path"] for one in json.loads(body)["files"]]
            return {"files": [{"path": one, "uploadMode": "regular", "shouldIgnore": False} for one in paths]}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        repository = path.removeprefix("/api/models/").split("/commit/")[0]
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.files[repository][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            else:
                self.messages.append(line["value"]["summary"])
        return {"commitUrl": f"{huggingface_hub.constants.ENDPOINT}/{repository}/commit/1", "commitOid": "1" * 40}

    def get(self, path: str) -> bytes | None:
        repository, _, file = path.removeprefix("/").partition("/resolve/main/")
        return self.files.get(repository, {}).get(file)


def use_server(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    pattern = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", pattern)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    known = Hub()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_POST(self) -> None:
            known.asked.append(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") != "Bearer right":
                self.answer(401, b'{"error": "no token"}')
            else:
                self.answer(200, json.dumps(known.post(self.path, body)).encode(), Content_Type="application/json")

        def do_GET(self) -> None:
            known.asked.append(self.path)
            content = known.get(self.path)
            if content is not None:
                self.answer(200, content, ETag='"1"', X_Repo_Commit="1" * 40)
            else:
                exists = any(self.path.startswith(f"/{name}/") for name in known.files)
                self.answer(404, b"", X_Error_Code="EntryNotFound" if exists else "RepoNotFound")

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use_server(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "right")
    yield known
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = SeparatorConfig(n_fft=(512,), channels=4, depth=2, wave_branch=False, segment_samples=22050)
    return save_separator(Separator(config), tmp_path_factory.mktemp("weights") / "tiny.safetensors", CARD)


def test_what_is_pushed_loads_by_its_name_and_again_without_a_network(
    hub: Hub, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "push", str(tiny), "me/my.model", "--private", "--message", "first"]) == 0
    assert "--model hf://me/my.model" in capsys.readouterr().out
    assert hub.private == {"me/my.model": True}
    assert hub.messages == ["first"]
    assert hub.files["me/my.model"][WEIGHTS_NAME] == tiny.read_bytes()
    separator = polyres.load_separator("hf://me/my.model", device="cpu")
    assert separator.name == model_label("hf://me/my.model") == "me_my.model"
    ours = load_model(tiny).state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in separator.model.state_dict().items())
    use_server(monkeypatch, "http://127.0.0.1:9")
    assert pull("hf://me/my.model").read_bytes() == tiny.read_bytes()


def test_the_card_says_what_the_model_is(hub: Hub, tiny: Path) -> None:
    push(tiny, "me/mine")
    text = hub.files["me/mine"]["README.md"].decode()
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "polyres",
        "pipeline_tag": "audio-to-audio",
        "license": "mit",
        "tags": ["music-source-separation", "multi-resolution"],
    }
    assert body.startswith("\n# mine\n")
    for part in (
        "--model hf://me/mine",
        "| score | 4.25 |",
        "| drums | 5.00 |",
        "* songs of mine (CC0)",
        "n_fft 512",
        '"seed": 3',
    ):
        assert part in body
    assert "drums@512" not in body


def test_what_cannot_be_shared_is_told(hub: Hub, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files["me/empty"] = {}
    with pytest.raises(WeightsError, match=r"hf://me/empty holds no model\.safetensors"):
        load_model("hf://me/empty")
    with pytest.raises(WeightsError, match="cannot load hf://me/none"):
        load_model("hf://me/none")
    hub.files["me/broken"] = {WEIGHTS_NAME: b"nothing"}
    with pytest.raises(WeightsError):
        load_model("hf://me/broken")
    for name in ("mine", "a/b/c", "hf://../x y"):
        with pytest.raises(ConfigError, match="is no repository; write USER/REPO"):
            push(tiny, name)
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(OutputError, match=r"cannot publish me/mine .*HF_TOKEN"):
        push(tiny, "me/mine")
    (tmp_path / "other.safetensors").write_bytes(b"x")
    with pytest.raises(WeightsError):
        push(tmp_path / "other.safetensors", "me/mine")
    use_server(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(OfflineError, match="cannot download hf://me/mine"):
        load_model("hf://me/mine")
