"""The page of claims: verdicts at a glance, then the evidence of each."""

from __future__ import annotations

import json
from collections.abc import Sequence

from polyres.core.tables import MISSING, Table, number
from polyres.study.claims.base import VERDICTS, Evidence, Judged

HOW = (
    "A claim holds where every row of its evidence says so, fails where one says the contrary, and is undecided "
    "otherwise: with fewer than 6 tracks, or where an interval includes the bound. Differences are means over tracks, "
    "stems and seeds, positive is better; their intervals (95 %) are of tracks drawn anew, widened by Welch's interval "
    "of the seeds' means. Counts such as multiply-accumulates and arithmetic need no tracks. A claim is not testable "
    "where the studies have nothing that speaks to it; what it needs is said there. Claims are worded as the notes and "
    "the draft have them, also where these contradict each other."
)


def claims_markdown(judged: Sequence[Judged], studies: Sequence[str]) -> str:
    """Write the page of claims."""
    counts = ", ".join(f"{sum(one.verdict == verdict for one in judged)} {verdict}" for verdict in VERDICTS)
    table = Table("", ("claim", "said in", "verdict", "rows"), text_columns=3)
    for one in judged:
        link = f"[{one.claim.statement}](#{one.claim.key.replace('_', '-')})"
        table.rows.append((link, one.claim.place, one.verdict, str(len(one.evidence))))
    parts = ["# Claims of the notes", "", f"{len(judged)} claims: {counts}.", "", HOW, ""]
    parts += ["Studies:", "", *(f"- {line}" for line in studies), "", table.markdown()]
    for one in judged:
        parts += [f"## {one.claim.key.replace('_', ' ')}", "", one.claim.statement, ""]
        parts += [f"Said in: {one.claim.place}. **{one.verdict}**", ""]
        if one.evidence:
            parts.append(evidence_table(one.evidence).markdown())
        else:
            parts += [f"Needs: {one.claim.needs}.", ""]
    return "\n".join(parts)


def evidence_table(evidence: Sequence[Evidence]) -> Table:
    """Write the evidence of a claim as a table."""
    header = ("evidence", "verdict", "run", "notes", "value", "95 %", "tracks", "seeds")
    table = Table("", header, text_columns=4)
    for row in evidence:
        runs = MISSING if row.study is None else f"{row.study}: {', '.join(row.runs)}"
        value = MISSING if row.value is None else f"{_figure(row.value, row.unit)} {_shown(row.unit)}".strip()
        interval = MISSING
        if row.low is not None and row.high is not None:
            interval = f"{_figure(row.low, row.unit)} to {_figure(row.high, row.unit)}"
        counts = tuple(MISSING if count is None else str(count) for count in (row.tracks, row.seeds))
        table.rows.append((row.what, row.verdict, runs, row.notes or MISSING, value, interval, *counts))
    return table


def _shown(unit: str) -> str:
    return "" if unit == "1" else unit


def _figure(value: float, unit: str) -> str:
    if unit in ("dB", ""):
        return number(value, 2 if unit else 3, signed=True)
    return number(value, 5 if unit == "bit" else 0 if unit == "1" else 2)


def claims_json(judged: Sequence[Judged]) -> str:
    """Return the claims as JSON."""
    return json.dumps({"format": 1, "claims": [one.to_dict() for one in judged]}, indent=2, ensure_ascii=False) + "\n"
