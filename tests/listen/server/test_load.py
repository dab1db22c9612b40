"""Many listeners at once, a server killed in the middle, and calls made of noise."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode

from polyres.listen.server.app import create_app
from polyres.listen.server.links import Signer, read_or_make_secrets
from polyres.listen.server.state import LISTENER, ServerOptions
from polyres.listen.store.database import read_ratings
from tests.listen.served import ADMIN_TOKEN, ServerProcess, serving, state_of, write_study

Key = tuple[str, int, int, int]


class Line:
    """One listener's connection."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._connection = HTTPConnection(parts.hostname or "", parts.port, timeout=240)
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}

    def call(self, method: str, path: str, body: Any) -> int:
        self._connection.request(method, path, json.dumps(body), self._headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def close(self) -> None:
        self._connection.close()


def tokens(folder: Path, count: int) -> list[str]:
    signer = Signer(read_or_make_secrets(folder).signing)
    return [signer.token(LISTENER, f"listener-{number:04d}") for number in range(count)]


def rate(url: str, token: str, trials: int, sounds: int, acknowledged: dict[Key, int], rounds: int = 1) -> None:
    """Rate everything, `rounds` times over, noting each value only once it is acknowledged."""
    line = Line(url, token)
    subject = token.partition(".")[0]
    generator = random.Random(subject)
    try:
        assert line.call("POST", "/api/visit", {}) == 200
        for revision in range(1, rounds + 1):
            for trial in range(trials):
                values = [generator.randrange(101) for _ in range(sounds)]
                ratings = [
                    {"trial": trial, "slot": slot, "value": value, "attribute": "quality", "revision": revision}
                    for slot, value in enumerate(values)
                ]
                assert line.call("PUT", "/api/ratings", {"ratings": ratings}) == 200
                for slot, value in enumerate(values):
                    acknowledged[subject, trial, slot, revision] = value
    except (OSError, HTTPException):
        pass  # the server was killed; what was acknowledged before counts
    finally:
        line.close()


def all_at_once(jobs: list[Callable[[], None]]) -> list[threading.Thread]:
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    return threads


def stored(folder: Path) -> dict[tuple[str, int, int], float]:
    """(listener, trial, slot) -> value, read through the plans."""
    found: dict[tuple[str, int, int], float] = {}
    with serving(folder) as http:
        state = state_of(http)
        for listener in state.store.all_listeners():
            for sent in state.store.saved_ratings(listener.id):
                given = state.planner.send_back(listener, sent)
                found[listener.id, given["trial"], given["slot"]] = given["value"]
    return found


def latest(acknowledged: dict[Key, int]) -> dict[tuple[str, int, int], int]:
    return {key[:3]: value for key, value in sorted(acknowledged.items(), key=lambda item: item[0][3])}


def crowd(folder: Path, listeners: int, pages: int) -> float:
    """Let listeners rate at the same time; return the seconds it took."""
    server = ServerProcess(folder)
    acknowledged: dict[Key, int] = {}
    try:
        begun = time.perf_counter()
        jobs = [
            lambda token=token: rate(server.url, token, pages, 3, acknowledged) for token in tokens(folder, listeners)
        ]
        for thread in all_at_once(jobs):
            thread.join()
        took_s = time.perf_counter() - begun
    finally:
        assert server.stop() == 0
    assert len(acknowledged) == listeners * pages * 3
    assert stored(folder) == latest(acknowledged)
    assert len(read_ratings(folder)) == listeners * pages * 3
    return took_s


@pytest.mark.slow
def test_two_hundred_listeners_at_once_lose_no_rating(tmp_path: Path) -> None:
    crowd(write_study(tmp_path / "study", seconds=0.02, pages=1), listeners=200, pages=1)


@pytest.mark.slow
def test_two_hundred_listeners_through_a_whole_test_lose_no_rating(tmp_path: Path) -> None:
    took_s = crowd(write_study(tmp_path / "study", seconds=0.02, pages=12), listeners=200, pages=12)
    print(f"\n200 listeners at once, {200 * 12} calls, {200 * 36} ratings acknowledged, all kept, in {took_s:.1f} s")


def killed_in_the_middle(folder: Path, listeners: int, after: int) -> None:
    server = ServerProcess(folder)
    acknowledged: dict[Key, int] = {}
    jobs = [
        lambda token=token: rate(server.url, token, 2, 3, acknowledged, rounds=10_000)
        for token in tokens(folder, listeners)
    ]
    threads = all_at_once(jobs)
    deadline = time.monotonic() + 240
    while len(acknowledged) < after and time.monotonic() < deadline:
        time.sleep(0.005)
    server.kill()
    for thread in threads:
        thread.join()
    assert len(acknowledged) >= after
    kept = stored(folder)
    for key, value in latest(acknowledged).items():
        # The one after it may have been committed without its answer reaching us.
        assert key in kept
        subject, trial, slot = key
        newest = max(revision for (*where, revision) in acknowledged if tuple(where) == key)
        assert kept[key] in {value, value_of(subject, trial, slot, newest + 1)}
    print(f"\nkilled after {len(acknowledged)} acknowledged ratings of {listeners} listeners at once: all kept")


def value_of(subject: str, trial: int, slot: int, revision: int) -> int:
    """The value that `rate` sends at that revision."""
    generator = random.Random(subject)
    values = [generator.randrange(101) for _ in range(revision * 6)]
    return values[(revision - 1) * 6 + trial * 3 + slot]


@pytest.mark.slow
def test_a_kill_in_the_middle_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    killed_in_the_middle(write_study(tmp_path / "study", seconds=0.02), listeners=8, after=300)


@pytest.mark.slow
@pytest.mark.parametrize("after", [100, 700, 1500, 3000])
def test_kills_at_any_time_lose_nothing_that_was_acknowledged(tmp_path: Path, after: int) -> None:
    killed_in_the_middle(write_study(tmp_path / "study", seconds=0.02), listeners=40, after=after)


# -- noise ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = write_study(
        tmp_path_factory.mktemp("fuzz") / "study",
        seconds=0.02,
        pages=1,
        changes={"questionnaire": [{"name": "age", "question": "Age?", "type": "number"}]},
    )
    # The calls are addressed to "testserver".
    app = create_app(folder, ServerOptions(admin_token=ADMIN_TOKEN, public_url="http://testserver"))
    state = app.state.polyres
    no_limit = lambda _key: 0.0  # noqa: E731
    state.joins.wait_s = state.calls.wait_s = state.failures.wait_s = no_limit
    token = state.new_token()
    state.store.welcome(token.partition(".")[0])
    yield app, token
    state.store.close()


def fuzz(app: Any, token: str, examples: int) -> int:
    """Send every operation calls that fit and calls that do not; none may make the server fail. Returns the calls."""
    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.app = app
    statuses: list[int] = []
    for result in schema.get_all_operations():
        operation = result.ok()
        bearer = ADMIN_TOKEN if "/admin/" in operation.path else token
        # Whoever withdraws would end the test for the other calls.
        withdraws = operation.method.upper() == "DELETE" and operation.path == "/api/me"
        headers = {} if withdraws else {"authorization": f"Bearer {bearer}"}
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            # An operation without parameters has no calls that do not fit.
            with contextlib.suppress(Unsatisfiable):
                never_fails(operation.as_strategy(mode), headers, examples, statuses)()
    assert {200, 422} <= set(statuses)
    counts = ", ".join(f"{statuses.count(status)} times {status}" for status in sorted(set(statuses)))
    print(f"\n{len(statuses)} calls made of noise were answered by {counts}")
    return len(statuses)


def never_fails(
    cases: SearchStrategy[schemathesis.Case], headers: dict[str, str], examples: int, statuses: list[int]
) -> Callable[[], None]:
    @settings(max_examples=examples, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def call(case: schemathesis.Case) -> None:
        response = case.call(headers=headers)
        statuses.append(response.status_code)
        assert response.status_code < 500, f"{case.method} {case.path}: {response.status_code} {response.text}"

    return call


@pytest.mark.slow
def test_noise_never_makes_the_server_fail(fuzzed: tuple[Any, str]) -> None:
    assert fuzz(*fuzzed, examples=4) > 80


@pytest.mark.slow
@pytest.mark.timeout(1800)  # it is the noise that takes long to make
def test_much_noise_never_makes_the_server_fail(fuzzed: tuple[Any, str]) -> None:
    assert fuzz(*fuzzed, examples=100) > 1500
