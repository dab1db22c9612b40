"""Screen listeners after the test by the rules of BS.1534, and measure how consistent each one was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from polyres.listen.analysis.ratings import Rating
from polyres.listen.design.files import Attribute, ListenStudy, Role

LIMIT_SCORE = 90.0
LIMIT_SHARE = 0.15
"""A listener is left out for a rule broken on more than this share of the items."""
LENIENT_SHARE = 0.25
"""An item whose anchor more than this share of the listeners rates above 90 says nothing against them."""

Trial = tuple[str, int]


@dataclass(frozen=True)
class Screening:
    """Screening result of one listener in one attribute."""

    listener: str  # who
    attribute: str  # in which respect
    trials: int  # pages rated, repeats counted
    reference_low: int  # how many times the hidden reference was rated below 90
    anchor_high: int  # how many times a mid anchor was rated above 90, on items that count
    anchor_trials: int  # trials with an anchor that count
    inversions: float  # share of trials that do not go reference >= mid anchor >= low anchor; NaN without anchors
    # mean absolute difference between first and repeated ratings of the same sound; NaN without
    repeat_difference: float
    excluded_by: str  # "" or which rule says to leave the listener out


def screen(study: ListenStudy, ratings: Sequence[Rating]) -> list[Screening]:
    """Apply the post-screening rules to every listener and attribute.

    A listener is left out who rates the hidden reference below 90 on more than 15 % of the items, or a mid anchor above
    90 on more than 15 % of them. An item whose mid anchor more than a quarter of the listeners rate above 90 was not
    degraded enough for the second rule and is left out of it. Rules whose condition the study lacks do not apply.
    Returns one line per listener and attribute, in the order in which they first appear. Kinds other than mushra have
    no hidden reference to screen by; there nobody is left out.

    Source: ITU-R BS.1534-3, section 4.1.2.
    """
    pages = {page.id for page in study.pages}
    lines = []
    for attribute in study.attributes:
        rows = [row for row in ratings if row.attribute == attribute.name and row.page in pages]
        lenient = _lenient_pages(study, attribute, rows)
        for listener in dict.fromkeys(row.listener for row in rows):
            lines.append(_screen_one(study, attribute, [row for row in rows if row.listener == listener], lenient))
    return lines


def excluded(lines: Sequence[Screening], attribute: str) -> set[str]:
    """Return the listeners whom screening leaves out in an attribute."""
    return {line.listener for line in lines if line.attribute == attribute and line.excluded_by}


def _ids(study: ListenStudy, role: Role) -> set[str]:
    return {condition.id for condition in study.conditions if condition.role == role}


def _screening_anchors(study: ListenStudy, attribute: Attribute) -> set[str]:
    """Anchors of the second rule: all that the attribute names but the low one, which nobody takes for good."""
    roles = [role for role in attribute.anchors if role not in ("low_anchor", "system", "reference")]
    return {name for role in roles for name in _ids(study, role)}


def _lenient_pages(study: ListenStudy, attribute: Attribute, rows: Sequence[Rating]) -> set[str]:
    anchors = _screening_anchors(study, attribute)
    high: dict[str, dict[str, bool]] = {}
    for row in rows:
        if row.condition in anchors:
            by_listener = high.setdefault(row.page, {})
            by_listener[row.listener] = by_listener.get(row.listener, False) or row.value > LIMIT_SCORE
    return {page for page, votes in high.items() if np.mean(list(votes.values())) > LENIENT_SHARE}


def _screen_one(study: ListenStudy, attribute: Attribute, rows: Sequence[Rating], lenient: set[str]) -> Screening:
    references, anchors = _ids(study, "reference"), _screening_anchors(study, attribute)
    trials = {(row.page, row.repeat) for row in rows}
    with_reference = {(row.page, row.repeat) for row in rows if row.condition in references}
    low = {(row.page, row.repeat) for row in rows if row.condition in references and row.value < LIMIT_SCORE}
    judged = [row for row in rows if row.condition in anchors and row.page not in lenient]
    with_anchor = {(row.page, row.repeat) for row in judged}
    high = {(row.page, row.repeat) for row in judged if row.value > LIMIT_SCORE}
    rules = []
    if study.kind == "mushra" and len(low) > LIMIT_SHARE * len(with_reference):
        rules.append(f"hidden reference below 90 on {len(low)} of {len(with_reference)}")
    if study.kind == "mushra" and len(high) > LIMIT_SHARE * len(with_anchor):
        rules.append(f"mid anchor above 90 on {len(high)} of {len(with_anchor)}")
    return Screening(
        rows[0].listener,
        attribute.name,
        len(trials),
        len(low),
        len(high),
        len(with_anchor),
        _inversions(study, attribute, rows),
        _repeat_difference(rows),
        "; ".join(rules),
    )


def _inversions(study: ListenStudy, attribute: Attribute, rows: Sequence[Rating]) -> float:
    order: list[set[str]] = [_ids(study, "reference")]
    order += [_ids(study, role) for role in ("mid_anchor", "low_anchor") if role in attribute.anchors]
    trials: dict[Trial, dict[str, float]] = {}
    for row in rows:
        trials.setdefault((row.page, row.repeat), {})[row.condition] = row.value
    broken = []
    for values in trials.values():
        steps = [[values[name] for name in names if name in values] for names in order]
        steps = [step for step in steps if step]
        if len(steps) > 1:
            broken.append(any(min(upper) < max(lower) for upper, lower in pairwise(steps)))
    return float(np.mean(broken)) if broken else float("nan")


def _repeat_difference(rows: Sequence[Rating]) -> float:
    first = {(row.page, row.condition): row.value for row in rows if row.repeat == 0}
    again = [row for row in rows if row.repeat > 0 and (row.page, row.condition) in first]
    differences = [abs(row.value - first[row.page, row.condition]) for row in again]
    return float(np.mean(differences)) if differences else float("nan")
