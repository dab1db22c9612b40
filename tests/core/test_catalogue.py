from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.catalogue import Catalogue, nearest, unknown_name_message
from polyres.core.errors import ConfigError, UnknownNameError


def fusions() -> Catalogue[str]:
    catalogue: Catalogue[str] = Catalogue("fusion")

    @catalogue.register("weights", "one weight per resolution")
    def weights(count: int) -> str:
        return f"weights of {count}"

    @catalogue.register("mean")
    def mean(count: int) -> str:
        return f"mean of {count}"

    return catalogue


def test_build_calls_the_factory_with_its_arguments() -> None:
    assert fusions().build("weights", 3) == "weights of 3"


def test_register_hands_the_factory_back_unchanged() -> None:
    catalogue: Catalogue[list[int]] = Catalogue("list")
    assert catalogue.register("plain")(list) is list
    assert catalogue.get("plain") is list


def test_names_keep_the_order_of_registration() -> None:
    assert fusions().names() == ["weights", "mean"]


def test_names_cannot_be_used_to_change_the_catalogue() -> None:
    catalogue = fusions()
    catalogue.names().clear()
    assert len(catalogue) == 2


def test_summaries_are_kept_and_empty_by_default() -> None:
    assert fusions().summary("weights") == "one weight per resolution"
    assert fusions().summary("mean") == ""


def test_membership() -> None:
    assert "mean" in fusions()
    assert "sum" not in fusions()


def test_catalogues_do_not_share_entries() -> None:
    assert "mean" not in Catalogue[str]("fusion")
    assert "mean" in fusions()


def test_a_duplicate_name_is_refused_and_changes_nothing() -> None:
    catalogue = fusions()
    with pytest.raises(ConfigError, match=r"fusion 'mean' is already registered; choose another name"):
        catalogue.register("mean", "another")(str)
    assert catalogue.build("mean", 2) == "mean of 2"
    assert catalogue.summary("mean") == ""


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="a fusion needs a name that is not empty"):
        fusions().register("")


@pytest.mark.parametrize("method", ["get", "build", "summary"])
def test_an_unknown_name_suggests_the_nearest_and_lists_all(method: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        getattr(fusions(), method)("wieghts")
    assert str(caught.value) == "unknown fusion 'wieghts'; did you mean 'weights'? known: weights, mean"


def test_an_unknown_name_with_nothing_near_only_lists_all() -> None:
    assert unknown_name_message("fusion", "xyz", ["mean"]) == "unknown fusion 'xyz'; known: mean"


def test_an_empty_catalogue_says_so() -> None:
    assert unknown_name_message("fusion", "mean", []) == "unknown fusion 'mean'; known: (none)"


def test_an_error_inside_a_factory_is_not_taken_for_an_unknown_name() -> None:
    catalogue: Catalogue[str] = Catalogue("fusion")

    @catalogue.register("broken")
    def broken() -> str:
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        catalogue.build("broken")


def test_nearest_ignores_case_and_returns_the_right_spelling() -> None:
    assert nearest("HTDEMUCS", ["htdemucs", "htdemucs_ft"]) == "htdemucs"
    assert nearest("vocal", ["Drums", "Vocals"]) == "Vocals"


def test_nearest_of_nothing_close_is_none() -> None:
    assert nearest("piano", ["drums", "bass"]) is None
    assert nearest("piano", []) is None


@given(st.lists(st.text(min_size=1), min_size=1, unique_by=str.lower), st.data())
def test_a_known_name_is_its_own_nearest(names: list[str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(names))
    assert nearest(name, names) == name
