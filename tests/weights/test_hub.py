from __future__ import annotations

import hashlib
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from polyres.core.errors import OfflineError, OutputError, WeightsError
from polyres.weights import hub
from polyres.weights.hub import (
    OFFICIAL,
    REFUSED,
    OfficialModel,
    answering,
    check_name,
    download,
    fetch,
    find_file,
    kept_file,
    model_folder,
    present_files,
    remark_licence,
    signature_of,
)
from polyres.weights.places import cache_folder

CONTENT = bytes(range(256)) * 5000
SUM = hashlib.sha256(CONTENT).hexdigest()[:8]
MODEL = OfficialModel("htdemucs", (f"955717e8-{SUM}",), ("a",), 1, "adefossez/HTDemucs")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    cut = False
    asked: list[str]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        if "Range" not in self.headers:  # nothing but a question whether it is there
            self.server.asked.append(self.path)
        if not self.path.endswith(".th"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000] if self.server.cut else CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.asked = []
        address = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setattr(hub, "LEGACY_URL", f"{address}/")
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reaches the network or the real cache."""
    monkeypatch.setenv("POLYRES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(hub, "LEGACY_URL", "http://127.0.0.1:9/")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")

    def offline(repository: str, name: str, local_dir: Path) -> str:
        raise ConnectionError(f"no way to {repository}")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    return tmp_path / "cache"


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# -- what there is ----------------------------------------------------------------------------------------------------


def test_the_official_models_are_those_of_the_official_list() -> None:
    import demucs
    import yaml

    remote = Path(demucs.__file__).parent / "remote"
    files = {line.partition("-")[0]: line for line in (remote / "files.txt").read_text().split() if "-" in line}
    for name, model in OFFICIAL.items():
        bag = yaml.safe_load((remote / f"{name}.yaml").read_text())
        assert [f"{files[signature]}" for signature in bag["models"]] == [f"{file}.th" for file in model.files]
        weights = bag.get("weights")
        assert model.weights == (None if weights is None else tuple(map(tuple, weights)))
    assert {path.stem for path in remote.glob("*.yaml")} == {*OFFICIAL, *REFUSED}


def test_repositories_are_those_of_demucs_4_1() -> None:
    from demucs.hf import DEFAULT_NAMESPACE, hf_repo_name

    for name, model in OFFICIAL.items():
        assert model.repository == f"{DEFAULT_NAMESPACE}/{hf_repo_name(name)}"


# -- the folder -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="the platform's own folder")
def test_the_cache_folder_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("POLYRES_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "polyres"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "polyres"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "polyres"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert cache_folder() == tmp_path / "polyres" / "Cache"


@pytest.mark.parametrize(
    "name", ["955717e8.safetensors", "955717e8.th", "955717e8-8726e21a.th", "955717e8-00000000.th"]
)
def test_files_are_found_in_every_layout(name: str, tmp_path: Path) -> None:
    assert find_file(tmp_path, "955717e8-8726e21a") is None
    put(tmp_path / "f7e0c4bc.th")
    assert find_file(tmp_path, "955717e8-8726e21a") is None
    path = put(tmp_path / name)
    assert find_file(tmp_path, "955717e8-8726e21a") == find_file(tmp_path, "955717e8") == path


def test_a_bag_is_present_only_when_complete(tmp_path: Path) -> None:
    model = OFFICIAL["htdemucs_ft"]
    paths = [tmp_path / f"{name}.th" for name in model.files]
    for path in paths[:-1]:
        put(path)
        assert present_files(model, tmp_path) is None
    put(paths[-1])
    assert present_files(model, tmp_path) == paths


def test_signatures_of_official_files() -> None:
    assert signature_of(Path("a/955717e8-8726e21a.th")) == "955717e8"
    assert signature_of(Path("04573f0d.safetensors")) == "04573f0d"
    assert signature_of(Path("mine.th")) is None


# -- fetching ---------------------------------------------------------------------------------------------------------


def test_files_that_are_there_are_not_fetched(cache: Path) -> None:
    path = put(model_folder(MODEL) / "955717e8.safetensors")
    assert fetch(MODEL) == [path]
    assert path.parent == cache / "htdemucs"


def test_the_hub_comes_first(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def from_hub(repository: str, name: str, local_dir: Path) -> str:
        calls.append((repository, name, local_dir))
        return str(put(local_dir / name))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", from_hub)
    assert fetch(MODEL) == fetch(MODEL) == [cache / "htdemucs" / "955717e8.safetensors"]
    assert calls == [("adefossez/HTDemucs", "955717e8.safetensors", cache / "htdemucs")]
    assert server.asked == []


def test_the_old_address_comes_second(cache: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    path = cache / "htdemucs" / f"955717e8-{SUM}.th"
    assert fetch(MODEL) == fetch(MODEL) == [path]
    assert path.read_bytes() == CONTENT
    assert server.asked == [f"/955717e8-{SUM}.th"]
    assert list(path.parent.iterdir()) == [path]
    assert path.name in capsys.readouterr().err


@pytest.mark.usefixtures("server")
def test_a_download_with_another_hash_is_refused_and_not_kept(cache: Path) -> None:
    model = OfficialModel("htdemucs", ("955717e8-8726e21a",), ("a",), 1, "x/y")
    with pytest.raises(
        WeightsError, match=rf"955717e8-8726e21a\.th is damaged: its SHA-256 begins with {SUM} instead of"
    ):
        fetch(model)
    assert list((cache / "htdemucs").iterdir()) == []


def test_a_download_that_stops_is_not_kept(cache: Path, server: Server) -> None:
    server.cut = True
    with pytest.raises(
        OfflineError, match=r"cannot download htdemucs \(.*ended after 1000 of 1280000 bytes\); put http"
    ):
        fetch(MODEL)
    assert list((cache / "htdemucs").iterdir()) == []


def test_interrupting_a_download_leaves_nothing(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(hub, "check_name", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download(f"{hub.LEGACY_URL}x.th", cache / "x.th")
    assert list(cache.iterdir()) == []
    assert server.asked == ["/x.th"]


def test_offline_says_what_to_put_where_by_hand(cache: Path) -> None:
    text = (
        rf"^cannot download htdemucs \(.*\); put http://127\.0\.0\.1:9/955717e8-{SUM}\.th "
        rf"into the folder {cache}/htdemucs by hand$"
    )
    with pytest.raises(OfflineError, match=text):
        fetch(MODEL)


def test_files_put_by_hand_are_used(cache: Path) -> None:
    with pytest.raises(OfflineError):
        fetch(MODEL)
    path = put(cache / "htdemucs" / f"955717e8-{SUM}.th")
    assert fetch(MODEL) == [path]


def test_offline_mode_asks_no_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineError, match="downloads are switched off by HF_HUB_OFFLINE"):
        fetch(MODEL)
    assert server.asked == []


def test_a_server_without_the_file(server: Server, cache: Path) -> None:
    with pytest.raises(OSError, match="404"):
        download(f"{hub.LEGACY_URL}none", cache / "none")
    assert server.asked == ["/none"]


def test_a_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYRES_CACHE", str(put(tmp_path / "file")))
    with pytest.raises(OutputError, match=r"cannot make the folder .*file/htdemucs: .*; set POLYRES_CACHE to another"):
        fetch(MODEL)


# -- names with a hash, licence ---------------------------------------------------------------------------------------


def test_hashes_in_names_are_checked(tmp_path: Path) -> None:
    check_name(put(tmp_path / f"955717e8-{SUM}.th"))
    check_name(put(tmp_path / "mine-v2.th"))
    check_name(tmp_path / "955717e8-8726e21a.th")
    with pytest.raises(WeightsError, match=rf"begins with {SUM} instead of 8726e21a; get the file again"):
        check_name(put(tmp_path / "955717e8-8726e21a.th"))


def test_the_licence_is_remarked_once(caplog: pytest.LogCaptureFixture) -> None:
    remark_licence.cache_clear()
    with caplog.at_level(logging.WARNING, logger="polyres"):
        remark_licence()
        remark_licence()
    assert [record.name for record in caplog.records] == ["polyres"]
    assert "not covered by the MIT licence" in caplog.text
    assert "scientific purposes only" in caplog.text


def test_the_remark_reaches_stderr_without_any_set_up() -> None:
    import subprocess

    code = "from polyres.weights.hub import remark_licence; remark_licence(); remark_licence()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout == ""
    assert done.stderr.count("scientific purposes only") == 1


# -- what others have kept, and no network ----------------------------------------------------------------------------


def test_what_torch_and_the_hubs_client_have_kept_is_found(tmp_path: Path) -> None:
    assert kept_file(MODEL, MODEL.files[0]) is None
    by_torch = put(tmp_path / "torch" / "hub" / "checkpoints" / f"{MODEL.files[0]}.th")
    assert fetch(MODEL) == [by_torch]
    commit = "0" * 40
    repository = tmp_path / "hf" / "models--adefossez--HTDemucs"
    by_hub = put(repository / "snapshots" / commit / "955717e8.safetensors")
    put(repository / "refs" / "main", commit.encode())
    assert kept_file(MODEL, MODEL.files[0]) == by_hub
    own = put(model_folder(MODEL) / f"{MODEL.files[0]}.th")
    assert fetch(MODEL) == [own]


HEADERS = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


@contextmanager
def stalling(to_head: bytes, to_get: bytes) -> Iterator[str]:
    """A server that takes connections, says so much to each, and then nothing more; yields its address."""
    held: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                held.append(listening.accept()[0])
                asked = held[-1].recv(4096)
                held[-1].sendall(to_head if asked.startswith(b"HEAD") else to_get)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    for one in held:
        one.close()


@pytest.mark.parametrize(
    ("to_head", "to_get"),
    [(b"", b""), (HEADERS, b""), (HEADERS, HEADERS[:20]), (HEADERS, HEADERS)],
    ids=["mute", "head alone", "half a head", "no content"],
)
def test_a_server_that_stops_talking_is_given_up_soon(
    monkeypatch: pytest.MonkeyPatch, to_head: bytes, to_get: bytes
) -> None:
    with stalling(to_head, to_get) as address:
        monkeypatch.setattr(hub, "LEGACY_URL", f"{address}/")
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr(hub, "answering", lambda urls: answering(urls, 0.3))
        start = time.monotonic()
        with pytest.raises(OfflineError, match=r"cannot download htdemucs \(no server answers\); put http://127"):
            fetch(MODEL)
        assert time.monotonic() - start < 2


def test_a_download_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with stalling(b"", HEADERS + b"a") as address:
        monkeypatch.setattr(hub, "LEGACY_URL", f"{address}/")
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        assert hub.TIMEOUT_S <= 10
        monkeypatch.setattr(hub, "TIMEOUT_S", 0.2)
        with pytest.raises(OfflineError, match=r"cannot download htdemucs \(timed out\); put http://127"):
            fetch(MODEL)
    assert list(model_folder(MODEL).iterdir()) == []


def test_it_is_the_file_itself_that_a_server_is_asked_for(
    cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may show its front page and give no files; the Hub's client then tries for more than a minute."""
    asked: list[str] = []

    def none_answers(urls: list[str]) -> set[str]:
        asked.extend(urls)
        return set()

    monkeypatch.setattr(hub, "answering", none_answers)
    with pytest.raises(OfflineError, match="no server answers"):
        fetch(MODEL)
    address = f"http://127.0.0.1:{server.server_port}"
    assert asked == [f"{address}/adefossez/HTDemucs/resolve/main/955717e8.safetensors", f"{address}/955717e8-{SUM}.th"]
    assert list((cache / "htdemucs").iterdir()) == []


def test_servers_are_asked_at_the_same_time(server: Server) -> None:
    there = f"http://127.0.0.1:{server.server_port}/x"
    assert answering([there, "http://127.0.0.1:9/", "no address", "ftp://127.0.0.1:9/"], 2.0) == {there}
