"""What the administrator's page calls: progress, links, and all that was answered."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path
from fastapi.responses import Response

from polyres.listen.api import State, require_admin
from polyres.listen.api_models import LinksIn
from polyres.listen.server_state import ServerState

router = APIRouter(prefix="/api/admin", dependencies=[Depends(require_admin)])

Row = Mapping[str, Any]


@router.get("/progress")
def progress(state: State) -> dict[str, Any]:
    """Say how far everybody is."""
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


@router.post("/links", status_code=201)
def links(given: LinksIn, state: State) -> dict[str, list[str]]:
    """Make links for invited listeners; each is good for one of them."""
    return {"links": [state.listener_link(state.new_token()) for _ in range(given.count)]}


@router.delete("/listeners/{listener_id}")
def withdraw(listener_id: Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")], state: State) -> dict[str, bool]:
    """Delete all that a listener gave, who asked for it."""
    if state.store.listener(listener_id) is None:
        raise HTTPException(404, f"there is no listener {listener_id!r}")
    state.store.withdraw(listener_id)
    return {"withdrawn": True}


@router.get("/export/{name}.{extension}", response_class=Response)
def export(
    name: Annotated[str, Path(pattern=r"^[a-z]{1,16}$")],
    extension: Annotated[str, Path(pattern=r"^(csv|json)$")],
    state: State,
) -> Response:
    """Send a table: ratings, listeners, answers or events, as CSV or JSON."""
    if name not in EXPORTS:
        raise HTTPException(404, f"there is no table {name!r}; choose {', '.join(EXPORTS)}")
    rows = list(EXPORTS[name](state))
    is_csv = extension == "csv"
    text = to_csv(rows) if is_csv else json.dumps(rows, ensure_ascii=False, indent=1)
    headers = {"content-disposition": f'attachment; filename="{state.study.name}-{name}.{extension}"'}
    return Response(text, media_type="text/csv" if is_csv else "application/json", headers=headers)


def to_csv(rows: Iterable[Row]) -> str:
    """Write rows as CSV; texts that a spreadsheet would run as a formula get a quote in front.

    Args:
        rows: with the same keys, or some of them.

    Returns:
        The table with a header; empty without rows.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    if columns:
        writer.writeheader()
    for row in rows:
        writer.writerow({name: _harmless(value) for name, value in row.items()})
    return file.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _listeners(state: ServerState) -> Iterable[Row]:
    for listener in state.store.all_listeners():
        row: dict[str, Any] = {**vars(listener)}
        yield row | {"checks": json.dumps(listener.checks), "completion_code": state.completion_code(listener.id)}


def _answers(state: ServerState) -> Iterable[Row]:
    for listener, given in state.store.answers().items():
        yield {"listener": listener, **given}


EXPORTS: dict[str, Callable[[ServerState], Iterable[Row]]] = {
    "ratings": lambda state: [rating.to_dict() for rating in state.store.ratings()],
    "listeners": _listeners,
    "answers": _answers,
    "events": lambda state: state.store.events(),
}
