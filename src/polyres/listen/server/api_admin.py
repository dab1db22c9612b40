"""HTTP API of the administrator's page: progress, links and exports."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path
from fastapi.responses import Response

from polyres.listen.server.api import State, require_admin
from polyres.listen.server.messages import LinksIn
from polyres.listen.store.export import COLUMNS, IDENTITY_COLUMNS, stored_tables, to_csv

router = APIRouter(prefix="/api/admin", dependencies=[Depends(require_admin)])


@router.get("/progress")
def progress(state: State) -> dict[str, Any]:
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


@router.post("/links", status_code=201)
def links(given: LinksIn, state: State) -> dict[str, list[str]]:
    """Create links for invited listeners, one each."""
    return {"links": [state.listener_link(state.new_token()) for _ in range(given.count)]}


@router.delete("/listeners/{listener_id}")
def withdraw(listener_id: Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")], state: State) -> dict[str, bool]:
    """Delete all data of a listener on request."""
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
