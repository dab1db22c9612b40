from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyres.core import catalogue
from polyres.core.catalogue import PLUGINS_VARIABLE, Catalogue, load_plugins, nearest, unknown_name_message, use_plugin
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


SHELF: Catalogue[str] = Catalogue("shelf")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No plugin is loaded before a test, and none stays."""
    monkeypatch.setattr(catalogue, "_LOADER", catalogue._Loader())
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(PLUGINS_VARIABLE, "")
    monkeypatch.setitem(sys.modules, "shelf_of_tests", sys.modules[__name__])
    before = {*sys.modules}
    yield
    for name in {*sys.modules} - before:
        if name.startswith("plugin_"):
            del sys.modules[name]


def plugin(folder: Path, name: str, *lines: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text("\n".join(["from shelf_of_tests import SHELF", *lines]))
    return path


def test_a_file_is_imported_once_and_tells_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plugin(tmp_path, "plugin_once", "SHELF.register('once', 'one of a kind')(str)")
    monkeypatch.chdir(tmp_path)
    use_plugin("plugin_once.py")
    use_plugin(path)  # would be refused as a duplicate if it were imported again
    assert SHELF.summary("once") == "one of a kind"
    assert os.environ[PLUGINS_VARIABLE] == str(path)


def test_a_missing_name_is_looked_for_in_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [plugin(tmp_path, f"plugin_{word}", f"SHELF.register('{word}')(str)") for word in ("left", "right")]
    with pytest.raises(UnknownNameError, match="unknown shelf 'left'"):
        SHELF.get("left")
    monkeypatch.setenv(PLUGINS_VARIABLE, os.pathsep.join(map(str, files)))
    assert SHELF.get("left") is str
    assert "right" in SHELF


@pytest.mark.parametrize("look", [lambda: "of-all" in SHELF.names(), lambda: len(SHELF) > 0, lambda: "of-all" in SHELF])
def test_plugins_are_there_whichever_way_one_looks(
    look: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf: Catalogue[str] = Catalogue("shelf")
    monkeypatch.setattr(sys.modules[__name__], "SHELF", shelf)
    monkeypatch.setenv(PLUGINS_VARIABLE, str(plugin(tmp_path, "plugin_all", "SHELF.register('of-all')(str)")))
    assert callable(look)
    assert look()


def test_a_name_that_is_there_loads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf: Catalogue[str] = Catalogue("shelf")
    shelf.register("own")(str)
    monkeypatch.setenv(PLUGINS_VARIABLE, str(plugin(tmp_path, "plugin_unseen", "raise OSError")))
    assert "own" in shelf
    assert shelf.get("own") is str


def test_files_beside_a_plugin_are_within_its_reach(tmp_path: Path) -> None:
    plugin(tmp_path, "plugin_helper", "NAME = 'helped'")
    use_plugin(plugin(tmp_path, "plugin_helped", "import plugin_helper", "SHELF.register(plugin_helper.NAME)(str)"))
    assert "helped" in SHELF


def test_a_plugin_may_look_things_up_while_it_is_imported(tmp_path: Path) -> None:
    use_plugin(plugin(tmp_path, "plugin_curious", "if 'curious' not in SHELF:", "    SHELF.register('curious')(str)"))
    assert "curious" in SHELF


def test_an_installed_package_names_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(tmp_path, "plugin_installed", "SHELF.register('installed')(str)")
    monkeypatch.syspath_prepend(tmp_path)
    points = {"polyres": [EntryPoint("mine", "plugin_installed", "polyres")]}
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points[group])
    assert "installed" in SHELF


def test_a_package_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [EntryPoint("mine", "plugin_absent", group)])
    for _ in range(2):  # it is not forgotten after the first time
        with pytest.raises(ConfigError, match=r"plugin 'mine' of the package plugin_absent cannot be loaded \(Module"):
            load_plugins()


@pytest.mark.parametrize("name", ["absent.py", "notes.txt", "my-fusion.py"])
def test_what_is_no_python_file_is_refused(name: str, tmp_path: Path) -> None:
    for present in ("notes.txt", "my-fusion.py"):
        (tmp_path / present).touch()
    with pytest.raises(ConfigError, match=rf"plugin '.*{name}' is no Python file; name one such as my_fusion.py"):
        use_plugin(tmp_path / name)


def test_a_file_that_would_hide_a_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "json.py").touch()
    with pytest.raises(ConfigError, match=r"json.py' has the name of the module 'json'; rename the file"):
        use_plugin(tmp_path / "json.py")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1 / 0", r"\(ZeroDivisionError: division by zero\); mend it"),
        ("def", r"\(SyntaxError: invalid syntax"),
        ("SHELF.register('')", r"\(a shelf needs a name that is not empty\)"),
    ],
)
def test_a_file_that_fails_is_named_with_the_reason(line: str, reason: str, tmp_path: Path) -> None:
    path = plugin(tmp_path, "plugin_broken", line)
    with pytest.raises(ConfigError, match=rf"plugin '{path}' cannot be loaded {reason}"):
        use_plugin(path)
    assert os.environ[PLUGINS_VARIABLE] == ""


def test_other_processes_find_what_the_command_was_given(tmp_path: Path) -> None:
    """A child of `polyres --plugin` knows the names, however it was started."""
    path = tmp_path / "plugin_metric.py"
    path.write_text("from polyres.core.catalogue import Catalogue\nprint('imported')\n")
    child = "from polyres.core.catalogue import Catalogue; Catalogue(str()).names()"
    code = (
        "import subprocess, sys; from polyres.core.catalogue import use_plugin; use_plugin(sys.argv[1]);"
        f"subprocess.run([sys.executable, '-c', '{child}'], check=True)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=True, text=True)
    assert run.stdout == "imported\n" * 2
