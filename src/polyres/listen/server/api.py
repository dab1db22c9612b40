"""HTTP API of the listener's and the administrator's pages; a change is acknowledged only after it is committed."""

from __future__ import annotations

import hmac
import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Request
from fastapi.responses import FileResponse, Response

from polyres.core.errors import InputError
from polyres.listen.design.files import Question
from polyres.listen.server.links import RateLimiter
from polyres.listen.server.messages import AnswersIn, EventsIn, JoinIn, LinksIn, ProgressIn, RatingsIn
from polyres.listen.server.state import ETAG, LISTENER, ServerState
from polyres.listen.store.database import Listener
from polyres.listen.store.export import COLUMNS, IDENTITY_COLUMNS, stored_tables, to_csv

router = APIRouter(prefix="/api")

# A fixed date: the times of the files could tell the conditions apart.
_LAST_MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"
_MAX_NUMBER_CHARACTERS = 32


def server_state(request: Request) -> ServerState:
    """Return the server's state."""
    state: ServerState = request.app.state.polyres
    return state


State = Annotated[ServerState, Depends(server_state)]


def address(request: Request) -> str:
    """Return whence a request comes."""
    return request.client.host if request.client is not None else "unknown"


def slow_down(limiter: RateLimiter, key: str) -> None:
    """Refuse a call beyond the rate of its key."""
    wait_s = limiter.wait_s(key)
    if wait_s > 0:
        headers = {"retry-after": str(int(wait_s) + 1)}
        raise HTTPException(429, f"too many calls; try again in {int(wait_s) + 1} s", headers)


def bearer(request: Request) -> str:
    """Return the bearer token of a request; other sites cannot make a browser send it."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def token_subject(request: Request, state: State) -> str:
    """Return the listener id of a request's token, rate-limiting guesses."""
    listener_id = state.signer.subject(LISTENER, bearer(request))
    if listener_id is None:
        slow_down(state.failures, address(request))
        raise HTTPException(401, "this link is not valid; open the one you were given", {"www-authenticate": "Bearer"})
    slow_down(state.calls, listener_id)
    return listener_id


def known_listener(listener_id: Annotated[str, Depends(token_subject)], state: State) -> Listener:
    """Return the calling listener; a first visit is required."""
    listener = state.store.listener(listener_id)
    if listener is None:
        raise HTTPException(401, "this listener is not known; open the link again", {"www-authenticate": "Bearer"})
    if listener.withdrawn_at:
        raise HTTPException(410, "this listener has withdrawn; nothing more is kept")
    return listener


def consenting_listener(listener: Annotated[Listener, Depends(known_listener)], state: State) -> Listener:
    """Return the calling listener; consent is required if the study asks for it."""
    if state.study.consent and not listener.consented_at:
        raise HTTPException(403, "the listener has not agreed to take part yet")
    return listener


Caller = Annotated[Listener, Depends(known_listener)]
Consenting = Annotated[Listener, Depends(consenting_listener)]


def require_admin(request: Request, state: State) -> None:
    """Let only the administrator pass."""
    given = bearer(request).encode("utf-8", "replace")
    if not hmac.compare_digest(given, state.admin_token.encode()):
        slow_down(state.failures, address(request))
        raise HTTPException(401, "the admin token is not right", {"www-authenticate": "Bearer"})


@router.get("/health")
def health() -> dict[str, str]:
    """Report that the server is up."""
    return {"status": "ok"}


@router.get("/study")
def study(state: State) -> dict[str, Any]:
    """Describe the study to anybody."""
    return {**state.planner.describe_study(), "open": state.options.open_enrolment}


@router.post("/join", status_code=201)
def join(given: JoinIn, request: Request, state: State) -> dict[str, str]:
    """Register a new listener."""
    if not state.options.open_enrolment:
        raise HTTPException(403, "this study takes invited listeners only; open the link you were given")
    slow_down(state.joins, address(request))
    token = state.new_token()
    listener_id = token.partition(".")[0]
    state.store.welcome(listener_id, given.external_id, given.language)
    return {"token": token, "link": state.listener_link(token)}


@router.post("/visit")
def visit(given: JoinIn, listener_id: Annotated[str, Depends(token_subject)], state: State) -> dict[str, Any]:
    """Begin or resume: return all that the page needs, with saved answers."""
    listener = state.store.welcome(listener_id, given.external_id, given.language)
    if listener.withdrawn_at:
        raise HTTPException(410, "this listener has withdrawn; nothing more is kept")
    saved = state.store.saved_ratings(listener_id)
    return {
        "study": state.planner.describe_study(),
        "trials": state.planner.describe_trials(listener),
        "ratings": [state.planner.send_back(listener, sent) for sent in saved],
        "answers": state.store.answers_of(listener_id),
        "checks": listener.checks,
        "consented": bool(listener.consented_at),
        "finished": _completion(state, listener) if listener.finished_at else None,
        "link": state.listener_link(bearer_of(state, listener_id)),
    }


def bearer_of(state: ServerState, listener_id: str) -> str:
    """Return the token of a listener."""
    return state.signer.token(LISTENER, listener_id)


@router.post("/consent")
def consent(listener: Caller, state: State) -> dict[str, bool]:
    """Note that the listener agrees."""
    state.store.consent(listener.id)
    return {"consented": True}


@router.put("/progress")
def progress(given: ProgressIn, listener: Consenting, state: State) -> dict[str, Any]:
    """Note how far the listener is."""
    checks = given.model_dump(exclude_none=True)
    state.store.save_checks(listener.id, checks)
    return {"saved": sorted(checks)}


@router.put("/ratings")
def ratings(given: RatingsIn, listener: Consenting, state: State) -> dict[str, int]:
    """Save ratings, all or none."""
    sent = [state.planner.receive(listener, rating) for rating in given.ratings]
    state.store.save_ratings(listener.id, sent)
    return {"saved": len(sent)}


@router.post("/events")
def events(given: EventsIn, listener: Consenting, state: State) -> dict[str, int]:
    """Save the listener's events."""
    state.store.save_events(listener.id, given.batch, [event.model_dump(exclude_none=True) for event in given.events])
    return {"saved": len(given.events)}


@router.put("/answers")
def answers(given: AnswersIn, listener: Consenting, state: State) -> dict[str, int]:
    """Save answers of the questionnaire."""
    questions = {question.name: question for question in state.study.questionnaire}
    for name, value in given.answers.items():
        _check_answer(questions.get(name), name, value)
    state.store.save_answers(listener.id, given.answers)
    return {"saved": len(given.answers)}


@router.post("/finish")
def finish(listener: Consenting, state: State) -> dict[str, Any]:
    """Finish the test if nothing is missing."""
    if not listener.finished_at:
        missing = _missing(state, listener)
        if missing:
            raise HTTPException(409, f"the test is not complete: {missing}")
        state.store.finish(listener.id)
    return _completion(state, listener)


@router.delete("/me")
def withdraw(listener: Caller, state: State) -> dict[str, bool]:
    """Delete all that the listener gave."""
    state.store.withdraw(listener.id)
    return {"withdrawn": True}


@router.get("/audio/{trial}/{slot}", response_class=FileResponse)
def audio(
    trial: Annotated[int, Path(ge=0, le=100_000)],
    slot: Annotated[str, Path(pattern=r"^([0-9]{1,3}|x|reference)$")],
    listener: Consenting,
    state: State,
) -> FileResponse:
    """Send the sound at a position; neither name, time nor tag tell which condition it is."""
    try:
        page, name = state.planner.sound(listener, trial, slot)
    except InputError as error:
        raise HTTPException(404, str(error)) from error
    tag = state.signer.digest(ETAG, f"{listener.id}-{trial}-{slot}")
    headers = {"etag": f'"{tag}"', "last-modified": _LAST_MODIFIED, "cache-control": "private, no-store"}
    return FileResponse(state.audio.path(page, name), media_type="audio/wav", headers=headers)


def _completion(state: ServerState, listener: Listener) -> dict[str, Any]:
    return {"code": state.completion_code(listener.id), "url": state.study.completion_url}


def _missing(state: ServerState, listener: Listener) -> str:
    """Describe what is still missing; empty if complete."""
    given = {
        (sent.trial, sent.rating.condition, sent.rating.attribute) for sent in state.store.saved_ratings(listener.id)
    }
    owed = state.planner.required(listener) - given
    if owed:
        return f"{len(owed)} ratings are missing, the first on trial {min(owed)[0]}"
    if listener.checks.get("position", 0) < len(state.planner.trials(listener)):
        return "not all trials have been seen"
    answered = state.store.answers_of(listener.id)
    required = [question.name for question in state.study.questionnaire if question.required]
    unanswered = [name for name in required if not answered.get(name, "").strip()]
    return f"answers are missing: {', '.join(unanswered)}" if unanswered else ""


def _check_answer(question: Question | None, name: str, value: str) -> None:
    """Refuse an answer that does not fit its question."""
    if question is None:
        raise InputError(f"there is no question {name!r}")
    if question.type == "choice" and value and value not in question.choices:
        raise InputError(f"{value[:40]!r} is no answer to {name!r}; choose {', '.join(question.choices)}")
    if question.type == "number" and value:
        try:
            is_number = len(value) <= _MAX_NUMBER_CHARACTERS and abs(float(value)) < float("inf")
        except ValueError:
            is_number = False
        if not is_number:
            raise InputError(f"{value[:40]!r} is no number, which {name!r} asks for")


admin_router = APIRouter(prefix="/api/admin", dependencies=[Depends(require_admin)])


@admin_router.get("/progress")
def all_progress(state: State) -> dict[str, Any]:
    """Return the progress of every listener."""
    counts = state.store.rating_counts()
    rows = []
    for listener in state.store.all_listeners():
        withdrawn = bool(listener.withdrawn_at)
        rows.append(
            {
                "listener": listener.id,
                "number": listener.number,
                "external_id": listener.external_id,
                "created_at": listener.created_at,
                "seen_at": listener.seen_at,
                "finished_at": listener.finished_at,
                "withdrawn_at": listener.withdrawn_at,
                "headphones_passed": listener.checks.get("headphones", {}).get("passed"),
                "ratings": counts.get(listener.id, 0),
                "owed": 0 if withdrawn else len(state.planner.required(listener)),
            }
        )
    study = state.planner.describe_study()
    return {"title": study["title"], "kind": study["kind"], "join_link": f"{state.base_url}/", "listeners": rows}


@admin_router.post("/links", status_code=201)
def links(given: LinksIn, state: State) -> dict[str, list[str]]:
    """Create links for invited listeners, one each."""
    return {"links": [state.listener_link(state.new_token()) for _ in range(given.count)]}


@admin_router.delete("/listeners/{listener_id}")
def withdraw_listener(
    listener_id: Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")], state: State
) -> dict[str, bool]:
    """Delete all data of a listener on request."""
    if state.store.listener(listener_id) is None:
        raise HTTPException(404, f"there is no listener {listener_id!r}")
    state.store.withdraw(listener_id)
    return {"withdrawn": True}


@admin_router.get("/export/{name}.{extension}", response_class=Response)
def export(
    name: Annotated[str, Path(pattern=r"^[a-z]{1,16}$")],
    extension: Annotated[str, Path(pattern=r"^(csv|json)$")],
    state: State,
) -> Response:
    """Send a table: ratings, listeners (with what names them), answers or events, as CSV or JSON."""
    if name not in COLUMNS:
        raise HTTPException(404, f"there is no table {name!r}; choose {', '.join(COLUMNS)}")
    rows = stored_tables(state.study, state.store, training=True)[name]
    columns = [*COLUMNS[name], *(IDENTITY_COLUMNS if name == "listeners" else ())]
    if name == "listeners":
        external = {listener.id: listener.external_id for listener in state.store.all_listeners()}
        for row in rows:
            known = row["listener"]
            row |= {"external_id": external[known], "completion_code": state.completion_code(known)}
    is_csv = extension == "csv"
    text = to_csv(rows, columns) if is_csv else json.dumps(rows, ensure_ascii=False, indent=1)
    headers = {"content-disposition": f'attachment; filename="{state.study.name}-{name}.{extension}"'}
    return Response(text, media_type="text/csv" if is_csv else "application/json", headers=headers)
