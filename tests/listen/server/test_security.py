"""What strangers and other sites can do: nothing."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from polyres.core.errors import ConfigError
from polyres.listen.server.links import MAX_BODY_BYTES
from polyres.listen.server.security import SECURITY_HEADERS, BodyLimit, KnownHosts, SameSiteOnly
from polyres.listen.server.web import web_app
from polyres.listen.server.web_options import WebOptions, plain_origin
from tests.listen.served import ADMIN_TOKEN, Client, serving, write_study
from tests.listen.server.test_web import nothing


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory):
    folder = write_study(tmp_path_factory.mktemp("security") / "study", seconds=0.05)
    with serving(folder) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/admin", "/static/app.js", "/api/study", "/api/none", "/nothing"])
def test_every_answer_has_the_headers(http: TestClient, path: str) -> None:
    headers = http.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == ("no-store" if path.startswith("/api/") else "no-cache")


def test_the_pages_hold_nothing_inline_and_nothing_of_other_sites(http: TestClient) -> None:
    for path in ("/", "/admin"):
        text = http.get(path).text
        assert "<script>" not in text
        assert " style=" not in text
        assert "http:" not in text
        assert "https:" not in text
        assert 'src="static/' in text  # relative, so that it works below any path


ODD_PATHS = ["../study.json", "..%2fstudy.json", "%2e%2e/study.json", "....//study.json", "/etc/passwd", "..\\x", "%00"]


@pytest.mark.parametrize("path", ODD_PATHS)
def test_no_path_leads_out(http: TestClient, path: str) -> None:
    client = Client(http).join()
    client.visit()
    assert http.get(f"/static/{path}").status_code in (400, 404)
    answer = client.call("GET", f"/api/audio/0/{path}")
    assert answer.status_code in (404, 422)
    assert b"conditions" not in answer.content


def test_too_large_bodies_are_refused_announced_or_not(http: TestClient) -> None:
    client = Client(http).join()
    large = b'{"external_id": "' + b"x" * MAX_BODY_BYTES + b'"}'
    headers = {"content-type": "application/json", "authorization": f"Bearer {client.token}"}
    assert http.post("/api/visit", content=large, headers=headers).status_code == 413
    parts = (large[start : start + 1000] for start in range(0, len(large), 1000))
    assert http.post("/api/visit", content=parts, headers=headers).status_code == 413
    lying = {**headers, "content-length": "minus one"}
    assert http.post("/api/visit", content=b"{}", headers=lying).status_code == 413
    assert http.post("/api/visit", content=b"{}", headers=headers).status_code == 200


FOREIGN = [
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://[broken"},
    {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_changes_asked_for_by_other_sites_are_refused(http: TestClient, headers: dict[str, str]) -> None:
    assert http.post("/api/join", json={}, headers=headers).status_code == 403
    assert http.get("/api/study", headers=headers).status_code == 200


OWN = [
    {},
    {"origin": "http://localhost"},
    {"origin": "https://localhost"},
    {"sec-fetch-site": "same-origin", "origin": "https://outside.example"},
    {"origin": "https://outside.example", "x-forwarded-host": "outside.example"},
    {"sec-fetch-site": "none"},
]


@pytest.mark.parametrize("headers", OWN, ids=str)
def test_changes_of_the_own_page_pass_also_behind_a_proxy(http: TestClient, headers: dict[str, str]) -> None:
    assert http.post("/api/join", json={}, headers=headers).status_code == 201


def test_further_origins_can_be_allowed(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seconds=0.05, pages=1)
    with serving(folder, {"allowed_origins": ("https://lab.example/",)}) as client:
        headers = {"origin": "https://lab.example", "sec-fetch-site": "cross-site"}
        assert client.post("/api/join", json={}, headers=headers).status_code == 201


TOKENS = ["", "nonsense", "a.b", "é", f"{'x' * 16}.{'y' * 24}"]


@pytest.mark.parametrize("token", TOKENS)
def test_nothing_is_told_without_a_token(http: TestClient, token: str) -> None:
    headers = {"authorization": f"Bearer {token}".encode()}
    for method, path in [("POST", "/api/visit"), ("PUT", "/api/ratings"), ("GET", "/api/audio/0/0")]:
        content = None if method == "GET" else b"{}"
        assert http.request(method, path, headers=headers, content=content).status_code == 401
    for path in ("/api/admin/progress", "/api/admin/export/ratings.csv"):
        assert http.get(path, headers=headers).status_code == 401


def test_a_listener_is_no_administrator_and_the_other_way_round(http: TestClient) -> None:
    client = Client(http).join()
    assert client.call("GET", "/api/admin/progress").status_code == 401
    assert Client(http, ADMIN_TOKEN).call("POST", "/api/visit", {}).status_code == 401
    assert Client(http, ADMIN_TOKEN).call("GET", "/api/admin/progress").status_code == 200


@pytest.mark.parametrize(
    ("options", "host", "status"),
    [
        ({}, "localhost", 200),
        ({}, "LOCALHOST:8765", 200),
        ({}, "127.0.0.1:8765", 200),
        ({}, "127.9.9.9", 200),
        ({}, "[::1]:80", 200),
        ({}, "localhost.", 200),
        ({}, "evil.example", 421),
        ({}, "evil.example:8765", 421),
        ({}, "localhost.evil.example", 421),
        ({}, "127.0.0.1.evil.example", 421),
        ({}, "evil.example@localhost", 421),
        ({}, "192.168.1.7", 421),
        ({}, "[::2]", 421),
        ({}, "", 421),
        ({}, "caf\u00e9", 421),
        ({"host": "192.168.1.7"}, "192.168.1.7:1", 200),
        ({"host": "192.168.1.7"}, "192.168.1.8", 421),
        ({"host": "0.0.0.0"}, "192.168.1.7:8765", 200),
        ({"host": "::"}, "[fe80::1]", 200),
        ({"host": "0.0.0.0"}, socket.gethostname(), 200),
        ({"host": "0.0.0.0"}, "evil.example", 421),
        ({"public_url": "https://Lab.example/listen"}, "lab.example", 200),
        ({"public_url": "https://lab.example:444/listen"}, "lab.example:444", 200),
        ({"allowed_origins": ("https://lab.example",)}, "lab.example", 200),
        ({"public_url": "https://lab.example./listen"}, "lab.example", 200),
        ({"public_url": "https://lab.example./listen"}, "lab.example.", 200),
        ({"public_url": "https://Bücher.example"}, "xn--bcher-kva.example", 200),
        ({"public_url": "https://faß.example"}, "xn--fa-hia.example", 200),
        ({"public_url": "http://[fe80:0:0::1]:80"}, "[fe80::1]", 200),
        ({"host": "Lab.example."}, "lab.example:8765", 200),
    ],
)
def test_only_the_own_names_are_answered(tmp_path: Path, options: dict[str, Any], host: str, status: int) -> None:
    (tmp_path / "index.html").write_text("<p>page</p>")
    app = web_app("Test", tmp_path, WebOptions(**options), nothing)
    with TestClient(app) as http:
        for method, path in (("GET", "/"), ("GET", "/static/dom.js"), ("POST", "/api/none")):
            headers = {"host": host.encode("latin-1"), "origin": f"http://{host}".encode("latin-1")}
            answer = http.request(method, path, headers=headers)
            assert (answer.status_code == 421) is (status == 421)
        assert "x-content-type-options" in answer.headers


def test_two_host_headers_are_one_too_many() -> None:
    app = KnownHosts(None)  # type: ignore[arg-type]
    assert app._is_known(["localhost"])
    assert not app._is_known(["localhost", "evil.example"])
    assert not app._is_known([])


@pytest.mark.parametrize(
    "url",
    ["lab.example", "http://[x", "http://", "https://a b", "http://x:99999", "http://x:y", "ftp://x", "*", "null"],
)
def test_a_public_url_and_an_origin_need_a_host(url: str) -> None:
    with pytest.raises(ConfigError, match=rf"public URL '{re.escape(url)}' names no host; write it like https://lab"):
        WebOptions(public_url=url)
    with pytest.raises(ConfigError, match=rf"origin '{re.escape(url)}' names no host; write it like https://lab"):
        WebOptions(allowed_origins=(url,))


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Lab.example:443/listen", "https://lab.example"),
        ("http://lab.example.:8080/", "http://lab.example:8080"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("http://[::0:1]:80", "http://[::1]"),
    ],
)
def test_origins_are_written_as_browsers_send_them(url: str, origin: str) -> None:
    assert plain_origin(url) == origin
    assert plain_origin(origin) == origin


def test_a_foreign_host_is_refused_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "index.html").touch()
    app = web_app("Test", tmp_path, WebOptions(root_path="/studio"), nothing)
    with TestClient(app) as http:
        for path in ("/studio", "/studio/", "/"):
            answer = http.get(path, headers={"host": "evil.example"}, follow_redirects=False)
            assert (answer.status_code, answer.headers["x-content-type-options"]) == (421, "nosniff")
        moved = http.get("/studio", headers={"host": "localhost"}, follow_redirects=False)
        assert (moved.status_code, moved.headers["x-content-type-options"]) == (308, "nosniff")


def test_what_nobody_expected_has_the_headers_too(tmp_path: Path) -> None:
    (tmp_path / "index.html").touch()
    app = web_app("Test", tmp_path, WebOptions(), nothing)

    @app.get("/api/broken")
    def broken() -> None:
        raise RuntimeError("secret")

    with TestClient(app, "http://localhost", raise_server_exceptions=False) as http:
        answer = http.get("/api/broken")
    assert (answer.status_code, answer.json()) == (500, {"detail": "something went wrong in the server; see its log"})
    assert SECURITY_HEADERS.items() <= dict(answer.headers).items()
    assert answer.headers["cache-control"] == "no-store"


def test_middleware_lets_other_protocols_through() -> None:
    import asyncio

    seen: list[str] = []

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        seen.append(scope["type"])

    async def nothing() -> None:
        return None

    for middleware in (SameSiteOnly(app), BodyLimit(app), KnownHosts(app)):
        asyncio.run(middleware({"type": "lifespan"}, nothing, nothing))  # type: ignore[arg-type]
    assert seen == ["lifespan"] * 3
