"""The page of claims: verdicts at a glance, then the evidence of each."""

from __future__ import annotations

import json
from collections.abc import Sequence

from polyres.core.tables import MISSING, Table, number
from polyres.study.claims.base import LACKS, NOT_RUN, VERDICTS, Evidence, Judged

HOW = (
    "A claim holds where every row of its evidence says so, fails where one says the contrary, and is undecided "
    "otherwise, each at the size tested. Differences are means over tracks, stems and seeds, positive is better; "
    "their intervals (95 %) are of tracks and seeds drawn anew. They decide something between arms with 3 seeds and 6 "
    "tracks or more, each surely above silence and above an equal share of the mixture, and trained for 1000 steps or "
    "for 100 and until their validation score was flat; else the claim is undecided, and the notes say why. That "
    "there is no difference takes two one-sided tests at the claim's own margin. Counts and arithmetic need none of "
    "this. A claim without evidence is not run, with the command that makes it, or needs data or people that we lack. "
    "Claims are worded as the notes, the draft and the reports have them, also where these contradict each other."
)


def claims_markdown(judged: Sequence[Judged], studies: Sequence[str]) -> str:
    """Write the page of claims."""
    counts = ", ".join(f"{sum(one.verdict == verdict for one in judged)} {verdict}" for verdict in VERDICTS)
    table = Table("", ("claim", "said in", "verdict", "size tested", "rows"), text_columns=4)
    for one in judged:
        link = f"[{one.claim.statement}](#{one.claim.key.replace('_', '-')})"
        table.rows.append((link, one.claim.place, one.verdict, one.sizes() or MISSING, str(len(one.evidence))))
    parts = ["# Claims of the notes", "", f"{len(judged)} claims: {counts}.", "", HOW, ""]
    parts += ["Studies:", "", *(f"- {line}" for line in studies), "", table.markdown()]
    for one in judged:
        parts += [f"## {one.claim.key.replace('_', ' ')}", "", one.claim.statement, ""]
        parts += [f"Said in: {one.claim.place}. {_verdict(one)}", ""]
        if one.evidence:
            parts.append(evidence_table(one.evidence).markdown())
    return "\n".join(parts)


def _verdict(one: Judged) -> str:
    """Word a verdict with the size at which it was tested, or with what is missing."""
    if one.verdict == LACKS:
        return f"**{LACKS}**: {one.claim.needs}."
    if one.verdict == NOT_RUN:
        return f"**{NOT_RUN}**: `{one.claim.command()}` makes what it needs: {one.claim.needs}."
    return f"**{one.verdict}**" + (f" ({one.sizes()})" if one.sizes() else "")


def evidence_table(evidence: Sequence[Evidence]) -> Table:
    """Write the evidence of a claim as a table."""
    header = ("evidence", "verdict", "run", "size", "notes", "value", "95 %", "tracks", "seeds")
    table = Table("", header, text_columns=5)
    for row in evidence:
        runs = MISSING if row.study is None else f"{row.study}: {', '.join(row.runs)}"
        value = MISSING if row.value is None else f"{_figure(row.value, row.unit)} {_shown(row.unit)}".strip()
        interval = MISSING
        if row.low is not None and row.high is not None:
            interval = f"{_figure(row.low, row.unit)} to {_figure(row.high, row.unit)}"
        counts = tuple(MISSING if count is None else str(count) for count in (row.tracks, row.seeds))
        table.rows.append((row.what, row.verdict, runs, row.size, row.notes or MISSING, value, interval, *counts))
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
