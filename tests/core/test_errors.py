from __future__ import annotations

import pytest

from polyres.core import errors

FAMILY = [thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, Exception)]


def test_the_family_has_its_members() -> None:
    assert {error.__name__ for error in FAMILY} == {
        "PolyresError",
        "InputError",
        "OutputError",
        "AnalysisError",
        "ConfigError",
        "UnknownNameError",
        "WeightsError",
        "NoSoundError",
        "OfflineError",
        "TrainingError",
    }


@pytest.mark.parametrize("error", FAMILY)
def test_one_except_clause_catches_each_and_the_status_is_2(error: type[errors.PolyresError]) -> None:
    with pytest.raises(errors.PolyresError, match="what went wrong") as caught:
        raise error("what went wrong")
    assert caught.value.exit_code == 2


def test_narrow_errors_are_caught_with_their_wide_one() -> None:
    assert issubclass(errors.UnknownNameError, errors.ConfigError)
    assert issubclass(errors.OfflineError, errors.WeightsError)
