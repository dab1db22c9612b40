"""The calls of a page, one after another and in wrong orders."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from polyres.listen.server.links import MAX_RATINGS_PER_REQUEST, Rate
from polyres.listen.store.database import read_ratings
from tests.listen.served import ADMIN_TOKEN, Client, serving, state_of, write_page, write_study

QUESTIONS = [
    {"name": "age", "question": "How old are you?", "type": "number"},
    {"name": "music", "question": "Do you make music?", "type": "choice", "choices": ["no", "yes"], "required": True},
    {"name": "note", "question": "Anything else?"},
]
TWO = [{"name": "quality", "question": "Quality?"}, {"name": "interference", "question": "Interference?"}]


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("api") / "study"
    training = [write_page(folder, "t0", 3, True, 0.05)]
    changes = {"attributes": TWO, "questionnaire": QUESTIONS, "training": training}
    with serving(write_study(folder, seconds=0.05, changes=changes)) as client:
        client.folder = folder
        yield client


def test_a_listener_goes_all_the_way(http: TestClient) -> None:
    client = Client(http).join()
    visit = client.visit()
    assert [trial["training"] for trial in visit["trials"]] == [True, False, False]
    assert client.call("POST", "/api/finish").status_code == 409
    client.rate_all(visit, 62)
    assert "answers are missing: music" in client.call("POST", "/api/finish").json()["detail"]
    assert client.call("PUT", "/api/answers", {"answers": {"music": "yes", "age": "31"}}).json() == {"saved": 2}
    end = client.call("POST", "/api/finish").json()
    assert len(end["code"]) == 8
    assert client.call("POST", "/api/finish").json() == end
    assert client.visit()["finished"] == end
    assert client.rate(trial=1, slot=0, value=1).status_code == 409
    mine = [one for one in read_ratings(http.folder) if one.listener == client.token.partition(".")[0]]  # type: ignore[attr-defined]
    assert len(mine) == 2 * 3 * 2
    assert {one.value for one in mine} == {62}
    assert {(one.page, one.condition, one.attribute) for one in mine} == {
        (page, condition, attribute["name"])
        for page in ("p0", "p1")
        for condition in ("c0", "c1", "c2")
        for attribute in TWO
    }


def test_ratings_land_on_the_condition_that_was_heard(http: TestClient) -> None:
    """The sound sent at a position is byte for byte that of the condition the rating is kept under."""
    client = Client(http).join()
    visit = client.visit()
    state = state_of(http)
    for trial in visit["trials"]:
        for slot in range(trial["sounds"]):
            heard = client.call("GET", f"/api/audio/{trial['index']}/{slot}").content
            client.rate(trial=trial["index"], slot=slot, value=slot + 10 * trial["index"])
            kept = [
                sent.rating
                for sent in state.store.saved_ratings(client.token.partition(".")[0])
                if sent.trial == trial["index"] and sent.rating.value == slot + 10 * trial["index"]
            ]
            assert len(kept) == 1
            page = state.study.page(kept[0].page)
            assert heard == (http.folder / page.audio[kept[0].condition]).read_bytes()  # type: ignore[attr-defined]


def test_nothing_sent_names_a_condition(http: TestClient) -> None:
    client = Client(http).join()
    texts = [http.get("/api/study").text, client.call("POST", "/api/visit", {}).text]
    client.rate(trial=1, slot=2, value=3)
    texts.append(client.call("POST", "/api/visit", {}).text)
    answers = [client.call("GET", f"/api/audio/1/{slot}") for slot in ("0", "1", "2", "reference")]
    for answer in answers:
        assert answer.status_code == 200
        texts.append(str(answer.headers))
    for text in texts:
        for secret in ("c0", "c1", "c2", "Secret", "p0", "p1", "audio"):
            # As a word of its own: the random letters of a token or tag may spell it.
            assert not re.search(rf"(?<![\w-]){secret}(?![\w-])", text.replace("audio/wav", "")), secret
    sizes = {(answer.headers["content-length"], answer.headers["last-modified"]) for answer in answers}
    assert len(sizes) == 1
    assert len({answer.headers["etag"] for answer in answers}) == 4


@pytest.mark.parametrize("kind", ["abx", "ab"])
def test_pairs_are_answered_by_choice(tmp_path: Path, kind: str) -> None:
    changes = {"design": {"ties": True}}
    folder = write_study(tmp_path / "study", kind, conditions=2, pages=3, seconds=0.05, changes=changes)
    with serving(folder) as http:
        client = Client(http).join()
        visit = client.visit()
        state = state_of(http)
        listener = state.store.all_listeners()[0]
        for trial in visit["trials"]:
            plan = state.planner.trial(listener, trial["index"])
            sounds = {slot: client.call("GET", f"/api/audio/{trial['index']}/{slot}") for slot in ("0", "1", "x")}
            choice = "a"
            if kind == "abx":
                choice = "a" if sounds["x"].content == sounds["0"].content else "b"
                assert len({sound.headers["etag"] for sound in sounds.values()}) == 3
            else:
                assert sounds["x"].status_code == 404
            assert client.rate(trial=trial["index"], choice=choice).status_code == 200
            assert client.rate(trial=trial["index"], slot=0, value=1).status_code == 422
            saved = {sent.trial: sent.rating.answer for sent in state.store.saved_ratings(listener.id)}
            assert saved[trial["index"]] == plan.stimuli["ab".index(choice)]
        assert client.rate(trial=0, choice="tie", revision=2).status_code == (422 if kind == "abx" else 200)
        client.call("PUT", "/api/progress", {"position": 3})
        assert client.call("POST", "/api/finish").status_code == 200
        kept = state.store.ratings()
        assert {one.condition for one in kept} == {"c0+c1"}
        if kind == "abx":
            assert [one.value for one in kept] == [1, 1, 1]  # told X from the bytes, so always right
        else:
            assert sorted({one.answer for one in kept}) in (["c0", "tie"], ["c1", "tie"], ["c0", "c1", "tie"])
        sent_back = {rating["trial"]: rating["choice"] for rating in client.visit()["ratings"]}
        assert set(sent_back) == {0, 1, 2}
        assert sent_back[0] == ("tie" if kind == "ab" else sent_back[0])


@pytest.mark.parametrize("kind", ["acr", "dcr"])
def test_single_sounds_are_rated_in_whole_steps(tmp_path: Path, kind: str) -> None:
    with serving(write_study(tmp_path / "study", kind, conditions=2, pages=1, seconds=0.05)) as http:
        client = Client(http).join()
        visit = client.visit()
        assert [trial["reference"] for trial in visit["trials"]] == [kind == "dcr"] * 2
        assert client.call("GET", "/api/audio/0/reference").status_code == (200 if kind == "dcr" else 404)
        codes = [client.rate(trial=0, slot=0, value=value).status_code for value in (0, 1, 2.5, 5, 6)]
        assert codes == [422, 200, 422, 200, 422]


def bad_ratings() -> list[dict[str, Any]]:
    return [
        {"trial": 99, "slot": 0, "value": 5},
        {"trial": -1, "slot": 0, "value": 5},
        {"trial": 0, "slot": 3, "value": 5},
        {"trial": 0, "slot": 0, "value": 100.5},
        {"trial": 0, "slot": 0, "value": -1},
        {"trial": 0, "slot": 0},
        {"trial": 0, "value": 5},
        {"trial": 0, "choice": "a"},
        {"trial": 0, "slot": 0, "value": 5, "attribute": "taste"},
        {"trial": 0, "slot": 0, "value": 5, "revision": 2**53},
        {"trial": 0, "slot": 0, "value": 5, "condition": "c0"},
        {"trial": 0, "slot": 0, "value": 5, "started_at": "yesterday"},
        {"trial": 0, "slot": True, "value": "NaN"},
    ]


@pytest.mark.parametrize("rating", bad_ratings(), ids=str)
def test_ratings_that_do_not_fit_are_refused_whole(http: TestClient, rating: dict[str, Any]) -> None:
    client = Client(http).join()
    client.visit()
    good = {"trial": 0, "slot": 0, "value": 5, "attribute": "quality", "revision": 1}
    answer = client.call("PUT", "/api/ratings", {"ratings": [good, {"attribute": "quality", "revision": 1, **rating}]})
    assert answer.status_code == 422
    assert answer.json()["detail"]
    assert client.visit()["ratings"] == []


def test_too_many_ratings_at_once_and_bodies_that_are_no_json(http: TestClient) -> None:
    client = Client(http).join()
    one = {"trial": 0, "slot": 0, "value": 5, "attribute": "quality", "revision": 1}
    many = {"ratings": [one] * (MAX_RATINGS_PER_REQUEST + 1)}
    assert client.call("PUT", "/api/ratings", many).status_code == 422
    for content in (b"", b"{", b"[]", b'{"ratings": "\xff"}', b'{"ratings": [{"\\ud800": 1}]}', b"[" * 20_000):
        headers = {"authorization": f"Bearer {client.token}", "content-type": "application/json"}
        assert http.put("/api/ratings", content=content, headers=headers).status_code in (400, 422)


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ({"shoe_size": "42"}, "there is no question 'shoe_size'"),
        ({"music": "maybe"}, "'maybe' is no answer to 'music'; choose no, yes"),
        ({"age": "old"}, "'old' is no number"),
        ({"age": "inf"}, "'inf' is no number"),
        ({"note": "x" * 2001}, "at most 2000 characters"),
    ],
)
def test_answers_that_do_not_fit_are_refused(http: TestClient, answers: dict[str, str], text: str) -> None:
    client = Client(http).join()
    answer = client.call("PUT", "/api/answers", {"answers": answers})
    assert answer.status_code == 422
    assert text in answer.json()["detail"]


def test_texts_lose_what_databases_cannot_hold(http: TestClient) -> None:
    client = Client(http).join()
    client.call("PUT", "/api/answers", {"answers": {"note": "a\x00b\x07\ncé😀"}})
    assert client.visit()["answers"] == {"note": "ab\ncé😀"}


def test_nothing_is_taken_before_consent(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seconds=0.05, pages=1, changes={"consent": "We keep your answers."})
    with serving(folder) as http:
        client = Client(http).join()
        assert client.visit()["consented"] is False
        assert client.rate(trial=0, slot=0, value=5).status_code == 403
        assert client.call("GET", "/api/audio/0/0").status_code == 403
        assert client.call("POST", "/api/consent").status_code == 200
        assert client.rate(trial=0, slot=0, value=5).status_code == 200
        assert client.visit()["consented"] is True


def test_who_withdraws_is_forgotten(http: TestClient) -> None:
    client = Client(http).join()
    client.visit()
    client.rate(trial=1, slot=0, value=5)
    assert client.call("DELETE", "/api/me").status_code == 200
    assert client.call("POST", "/api/visit", {}).status_code == 410
    assert client.rate(trial=1, slot=0, value=5).status_code == 410
    listener_id = client.token.partition(".")[0]
    assert all(rating.listener != listener_id for rating in state_of(http).store.ratings(training=True))


def test_a_link_is_a_listener_before_the_first_visit(http: TestClient) -> None:
    admin = Client(http, ADMIN_TOKEN)
    links = admin.call("POST", "/api/admin/links", {"count": 3}).json()["links"]
    assert len(set(links)) == 3
    client = Client(http, links[0].partition("#")[2])
    assert client.rate(trial=0, slot=0, value=5).status_code == 401
    assert client.visit()["link"] == links[0]
    assert client.rate(trial=0, slot=0, value=5).status_code == 200


def test_strangers_cannot_join_a_closed_study(tmp_path: Path) -> None:
    with serving(write_study(tmp_path / "study", seconds=0.05, pages=1), {"open_enrolment": False}) as http:
        assert http.get("/api/study").json()["open"] is False
        assert http.post("/api/join", json={}).status_code == 403
        assert Client(http, state_of(http).new_token()).visit()["trials"]


def test_calls_beyond_the_rate_wait(tmp_path: Path) -> None:
    limits = {"joins": Rate(2, 0.01), "calls": Rate(5, 0.01)}
    with serving(write_study(tmp_path / "study", seconds=0.05, pages=1), limits) as http:
        codes = [http.post("/api/join", json={}).status_code for _ in range(3)]
        assert codes == [201, 201, 429]
        client = Client(http, state_of(http).new_token())
        answers = [client.call("POST", "/api/visit", {}) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert int(answers[-1].headers["retry-after"]) > 1
        other = Client(http, state_of(http).new_token())
        assert other.call("POST", "/api/visit", {}).status_code == 200
        guesses = [Client(http, f"a.{number}").call("POST", "/api/visit", {}).status_code for number in range(40)]
        assert guesses[0] == 401
        assert guesses[-1] == 429


def test_progress_says_how_far_everybody_is_and_deletes_on_request(http: TestClient) -> None:
    client = Client(http).join()
    client.visit()
    client.rate(trial=1, slot=0, value=5)
    headphones = {"correct": 6, "trials": 6, "attempts": 1, "passed": True}
    assert client.call("PUT", "/api/progress", {"headphones": headphones}).json() == {"saved": ["headphones"]}
    admin = Client(http, ADMIN_TOKEN)
    listener_id = client.token.partition(".")[0]
    row = next(r for r in admin.call("GET", "/api/admin/progress").json()["listeners"] if r["listener"] == listener_id)
    assert (row["ratings"], row["owed"], row["headphones_passed"]) == (1, 12, True)
    assert admin.call("DELETE", f"/api/admin/listeners/{listener_id}").status_code == 200
    assert admin.call("DELETE", "/api/admin/listeners/nobody").status_code == 404
    row = next(r for r in admin.call("GET", "/api/admin/progress").json()["listeners"] if r["listener"] == listener_id)
    assert (row["number"], row["ratings"]) == (None, 0)


def test_tables_come_as_csv_and_json(http: TestClient) -> None:
    answer = http.post("/api/join", json={"external_id": "=cmd()"})
    client = Client(http, answer.json()["token"])
    client.rate(trial=1, slot=0, value=5)
    event = {"at": "2026-01-01T00:00:00.000Z", "trial": 1, "what": "play", "slot": "0", "seconds": 1.5}
    assert client.call("POST", "/api/events", {"batch": "b1", "events": [event]}).json() == {"saved": 1}
    client.call("PUT", "/api/answers", {"answers": {"note": '=1+1, "quoted"\nline'}})
    admin = Client(http, ADMIN_TOKEN)
    for name in ("ratings", "listeners", "answers", "events"):
        rows = admin.call("GET", f"/api/admin/export/{name}.json").json()
        text = admin.call("GET", f"/api/admin/export/{name}.csv").text
        assert len(list(csv.DictReader(io.StringIO(text)))) == len(rows) > 0
    listeners = list(csv.DictReader(io.StringIO(admin.call("GET", "/api/admin/export/listeners.csv").text)))
    assert "'=cmd()" in {row["external_id"] for row in listeners}  # no formula for a spreadsheet
    assert admin.call("GET", "/api/admin/export/secrets.csv").status_code == 404


def test_required_answers_of_a_study_without_gates(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seconds=0.05, pages=1, changes={"gates": {"must_move": False}})
    with serving(folder) as http:
        client = Client(http).join()
        client.visit()
        assert "not all trials" in client.call("POST", "/api/finish").json()["detail"]
        client.call("PUT", "/api/progress", {"position": 1})
        assert client.call("POST", "/api/finish").status_code == 200
