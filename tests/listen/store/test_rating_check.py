"""Ratings outside of a study or its scale are refused on every way in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from polyres.core.errors import InputError
from polyres.listen.analysis.analyse import analyse
from polyres.listen.design.files import Design, Kind
from polyres.listen.store.rating_check import RatingCheck
from tests.listen.studies import a_study, some_ratings


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("mushra", {"value": 5000.0}, "value 5000 is out of range; give from 0 to 100"),
        ("mushra", {"value": -0.5}, "value -0.5 is out of range; give from 0 to 100"),
        ("acr", {"value": 0.0}, "value 0 is out of range; give a whole number from 1 to 5"),
        ("acr", {"value": 3.5}, "value 3.5 is out of range; give a whole number from 1 to 5"),
        ("abx", {"value": 0.5}, "value 0.5 is out of range; give 0 or 1"),
        ("ab", {"value": 0.5}, "value 0.5 is out of range; give 0 or 1"),
        ("mushra", {"attribute": "beauty"}, "attribute 'beauty' is not asked for; allowed: quality"),
        ("mushra", {"condition": "c9"}, "is not of study 'test'; give the ratings of this study"),
        ("mushra", {"page": "p99"}, "page 'p99', condition 'c."),
        ("mushra", {"kind": "acr"}, "a rating .kind acr, page"),
    ],
)
def test_what_does_not_fit_is_refused(kind: Kind, change: dict[str, Any], message: str) -> None:
    study = a_study(kind)
    ratings = some_ratings(study, 2)
    for rating in ratings:
        RatingCheck(study).check(rating)
    bad = replace(ratings[3], **change)
    with pytest.raises(InputError, match=message):
        RatingCheck(study).check(bad)
    with pytest.raises(InputError, match=message):
        analyse(study, [*ratings, bad])


def test_ties_count_where_the_study_allows_them() -> None:
    study = a_study("ab", design=Design(ties=True))
    rating = replace(some_ratings(study, 1)[0], value=0.5)
    RatingCheck(study).check(rating)
    with pytest.raises(InputError, match=r"give 0 or 0.5 or 1"):
        RatingCheck(study).check(replace(rating, value=0.6))
