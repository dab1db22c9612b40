from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.errors import ConfigError
from polyres.core.yaml_files import assign, merge, parse_override, read_yaml, yaml_value

keys = st.text("abc", min_size=1, max_size=2)
scalars = st.integers() | st.text(max_size=3) | st.none() | st.lists(st.integers(), max_size=2)
mappings = st.dictionaries(
    keys, st.recursive(scalars, lambda inner: st.dictionaries(keys, inner, max_size=3)), max_size=4
)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_without_base_is_read_as_it_is(tmp_path: Path) -> None:
    assert read_yaml(write(tmp_path, "a.yaml", "lr: 0.1\nname: Köln")) == {"lr": 0.1, "name": "Köln"}


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert read_yaml(write(tmp_path, "a.yaml", "# all defaults\n")) == {}


def test_bases_chain_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "a: 1\nb: 1\nc: 1\nnested: {x: 1, y: 1}\nlist: [1, 2, 3]")
    write(tmp_path, "sub/middle.yaml", "base: ../base.yaml\nb: 2\nc: 2\nnested: {y: 2}")
    top = write(tmp_path, "sub/deep/top.yaml", "base: ../middle.yaml\nc: 3\nlist: [9]")
    assert read_yaml(top) == {"a": 1, "b": 2, "c": 3, "nested": {"x": 1, "y": 2}, "list": [9]}


def test_two_children_may_share_a_base(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "a: 1")
    write(tmp_path, "one.yaml", "base: base.yaml")
    assert read_yaml(write(tmp_path, "two.yaml", "base: one.yaml\nb: 2")) == {"a": 1, "b": 2}


def test_a_cycle_of_bases_is_refused_with_its_way(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "base: b.yaml")
    write(tmp_path, "b.yaml", "base: c.yaml")
    write(tmp_path, "c.yaml", "base: ./b.yaml")
    with pytest.raises(ConfigError, match=r"form a cycle \(b\.yaml -> c\.yaml -> b\.yaml\); remove one of them"):
        read_yaml(path)


def test_a_file_that_is_its_own_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"form a cycle \(a\.yaml -> a\.yaml\)"):
        read_yaml(write(tmp_path, "a.yaml", "base: a.yaml"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such config file; check the path$"):
        read_yaml(tmp_path / "none.yaml")


def test_a_missing_base_is_named_with_the_file_that_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such config file \(named as 'base' in .*a\.yaml\)"):
        read_yaml(write(tmp_path, "a.yaml", "base: gone.yaml"))


@pytest.mark.parametrize("base", ["3", "[a.yaml]", "''", "null"])
def test_a_base_that_is_no_file_name_is_refused(tmp_path: Path, base: str) -> None:
    with pytest.raises(ConfigError, match=r"'base' is .*; write the name of one YAML file"):
        read_yaml(write(tmp_path, "a.yaml", f"base: {base}"))


@pytest.mark.parametrize(("text", "what"), [("- 1", "list"), ("hello", "str"), ("1: 2", "dict")])
def test_a_file_that_is_no_mapping_of_names_is_refused(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=f"holds {what}, but a config is a mapping of names to values"):
        read_yaml(write(tmp_path, "a.yaml", text))


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "a: !!python/object/apply:os.getcwd []", "day: 2024-99-99"])
def test_bad_yaml_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"a\.yaml: not valid YAML \(.*\)$") as caught:
        read_yaml(write(tmp_path, "a.yaml", text))
    assert "\n" not in str(caught.value)


def test_a_key_written_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"key 'lr' twice, line 3"):
        read_yaml(write(tmp_path, "a.yaml", "o:\n  lr: 1\n  lr: 2\n"))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(b"RIFF\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match=r"song\.wav: not UTF-8 text; give a YAML file"):
        read_yaml(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        read_yaml(tmp_path)


@given(mappings)
def test_merging_with_nothing_or_itself_changes_nothing(values: dict[str, Any]) -> None:
    assert merge(values, {}) == values
    assert merge({}, values) == values
    assert merge(values, values) == values


@given(mappings, mappings)
def test_merging_keeps_both_inputs(a: dict[str, Any], b: dict[str, Any]) -> None:
    before = repr((a, b))
    merge(a, b)
    assert repr((a, b)) == before


def test_merging_replaces_a_mapping_by_a_scalar_and_the_other_way_round() -> None:
    assert merge({"a": {"x": 1}}, {"a": 2}) == {"a": 2}
    assert merge({"a": 2}, {"a": {"x": 1}}) == {"a": {"x": 1}}


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("a=1", ["a"], 1),
        ("a.b.c=true", ["a", "b", "c"], True),
        ("a=[1, 2]", ["a"], [1, 2]),
        ("a={x: y}", ["a"], {"x": "y"}),
        ("a=b=c", ["a"], "b=c"),
        ("a=", ["a"], None),
        ("a='1'", ["a"], "1"),
        (" a . b = 1 ", ["a", "b"], 1),
    ],
)
def test_overrides_are_read_as_yaml(text: str, key: list[str], value: object) -> None:
    assert parse_override(text) == (key, value)


@pytest.mark.parametrize("text", ["lr", "", "=1", ".lr=1", "a..b=1", "a.=1"])
def test_an_override_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read; write KEY=VALUE, like optimiser\.lr=3e-4"):
        parse_override(text)


def test_an_override_with_bad_yaml_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"override 'a=\[1': the value is not valid YAML"):
        parse_override("a=[1")


def test_assigning_sets_one_value_in_a_copy() -> None:
    values = {"a": {"b": 1, "c": 2}}
    assert assign(values, ["a", "b"], 9) == {"a": {"b": 9, "c": 2}}
    assert values == {"a": {"b": 1, "c": 2}}


def test_assigning_makes_the_way() -> None:
    assert assign({"a": None}, ["a", "b", "c"], 1) == {"a": {"b": {"c": 1}}}


@pytest.mark.parametrize("below", [[1, 2], 0, "text"])
def test_assigning_through_something_else_than_a_mapping_is_refused(below: object) -> None:
    with pytest.raises(ConfigError, match=r"cannot set 'a\.0': 'a' is .*; give a=… as a whole"):
        assign({"a": below}, ["a", "0"], 1)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
REFUSED = {
    "billion laughs": (BOMB, "more than 20000 values"),
    "merge keys": (
        BOMB.replace("[x, x, x, x, x, x, x, x, x]", "{x: 1}").replace("[*", "{<<: [*").replace("]\n", "]}\n"),
        "more than",
    ),
    "chain of aliases": (
        "".join(f"a{n}: &a{n} [*a{n - 1}]\n" if n else "a0: &a0 []\n" for n in range(99)),
        "64 levels",
    ),
    "holds itself": ("a: &a {b: *a}", "a value holds itself, line 1"),
    "merges itself": ("&a {<<: *a}", "a value holds itself"),
    "deep": ("[" * 100_000, "nested deeper than 64"),
    "deep block": ("\n".join(" " * n + "a:" for n in range(99)), "nested deeper than 64"),
    "many": ("[1" + ", 1" * 50_000 + "]", "more than 20000 values"),
    "long": ("a: " + "x" * 2**20, "longer than 1048576"),
    "tag of another type": ("a: !!bool x", "a tag that does not fit its value"),
    "empty number": ('a: !!int ""', "a tag that does not fit its value"),
    "mapping as key": ("? {a: b}\n: c", "unhashable key"),
    "digits": ("a: " + "1" * 301, "a number of 301 digits"),
    "base 60": ("a: " + "1:" * 2000 + "1", "a number of 4001 digits"),
    "control character": ("a: \0", "control characters are not allowed"),
    "half a character": (r'a: "\ud800"', "invalid Unicode character"),
    "Python object": ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED)
def test_hostile_documents_are_refused_in_one_line(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason) as found:
        read_yaml(write(tmp_path, "a.yaml", text))
    assert "\n" not in str(found.value)


def test_aliases_and_merge_keys_serve_as_ever() -> None:
    assert yaml_value("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1}}


def test_long_chains_of_bases_and_names_that_are_none_are_refused(tmp_path: Path) -> None:
    for number in range(40):
        write(tmp_path, f"{number}.yaml", f"base: {number + 1}.yaml")
    with pytest.raises(ConfigError, match="more than 32 'base:' files one above the other"):
        read_yaml(tmp_path / "0.yaml")
    with pytest.raises(ConfigError, match="'base' is '\\\\x00'; write the name of one YAML file"):
        read_yaml(write(tmp_path, "nul.yaml", 'base: "\\0"'))
