"""What strangers and other sites can do: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from polyres.listen.limits import MAX_BODY_BYTES
from polyres.listen.security import BodyLimit, SameSiteOnly
from tests.listen.served import ADMIN_TOKEN, Client, serving, write_study


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
    {"origin": "http://testserver"},
    {"origin": "https://testserver"},
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


def test_middleware_lets_other_protocols_through() -> None:
    import asyncio

    seen: list[str] = []

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        seen.append(scope["type"])

    async def nothing() -> None:
        return None

    for middleware in (SameSiteOnly(app), BodyLimit(app)):
        asyncio.run(middleware({"type": "lifespan"}, nothing, nothing))  # type: ignore[arg-type]
    assert seen == ["lifespan"] * 2
