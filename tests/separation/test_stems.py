"""Only what the wanted stems need is computed, and sums are right."""

from __future__ import annotations

import numpy as np
import pytest

from polyres.audio.sources import Block
from polyres.core.errors import ConfigError, UnknownNameError
from polyres.separation.options import SeparateOptions, plan_stems

SOURCES = ("drums", "bass", "other", "vocals")


def estimates(count: int) -> Block:
    return np.random.default_rng(count).standard_normal((count, 2, 50), np.float32)


def test_all_stems_by_default() -> None:
    plan = plan_stems(SOURCES, SeparateOptions())
    given = estimates(4)
    assert plan.names == SOURCES
    assert np.array_equal(plan.apply(given, None), given)
    assert not plan.needs_mix


def test_only_the_wanted_ones_in_the_order_asked_for() -> None:
    plan = plan_stems(SOURCES, SeparateOptions(stems=("vocals", "drums", "vocals")))
    given = estimates(2)
    assert plan.names == ("vocals", "drums")
    assert plan.computed == (0, 3)
    assert np.array_equal(plan.apply(given, None), given[::-1])


def test_two_stems_sum_to_what_the_model_says() -> None:
    plan = plan_stems(SOURCES, SeparateOptions(two_stems="bass"))
    given = estimates(4)
    out = plan.apply(given, None)
    assert plan.names == ("bass", "no_bass")
    assert np.array_equal(out[0], given[1])
    np.testing.assert_allclose(out.sum(axis=0), given.sum(axis=0), rtol=0, atol=1e-5)


def test_two_consistent_stems_need_only_the_first() -> None:
    plan = plan_stems(SOURCES, SeparateOptions(two_stems="vocals", mixture_consistent=True))
    given, mix = estimates(1), estimates(2)[0]
    out = plan.apply(given, mix)
    assert plan.computed == (3,)
    assert np.array_equal(out[0], given[0])
    assert np.array_equal(out[1], mix - given[0])


def test_consistent_stems_sum_to_the_mixture_even_where_only_some_are_kept() -> None:
    given, mix = estimates(4), estimates(2)[0]
    everything = plan_stems(SOURCES, SeparateOptions(mixture_consistent=True)).apply(given, mix)
    some = plan_stems(SOURCES, SeparateOptions(stems=("other", "bass"), mixture_consistent=True))
    np.testing.assert_allclose(everything.sum(axis=0), mix, rtol=0, atol=1e-6)
    assert some.computed == (0, 1, 2, 3)
    assert np.array_equal(some.apply(given, mix), everything[[2, 1]])


@pytest.mark.parametrize("options", [SeparateOptions(stems=("vocal",)), SeparateOptions(two_stems="vocal")])
def test_an_unknown_stem_suggests_the_nearest(options: SeparateOptions) -> None:
    with pytest.raises(UnknownNameError, match="unknown stem 'vocal'; did you mean 'vocals'"):
        plan_stems(SOURCES, options)


def test_one_source_has_no_rest_to_sum() -> None:
    with pytest.raises(ConfigError, match="two_stems 'vocals': the model has no other stem to sum"):
        plan_stems(("vocals",), SeparateOptions(two_stems="vocals"))
    plan = plan_stems(("vocals",), SeparateOptions(two_stems="vocals", mixture_consistent=True))
    assert plan.names == ("vocals", "no_vocals")
