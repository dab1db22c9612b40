"""YAML text as nested mappings: files with a chain of `base:` parents, and `a.b=value` overrides."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from polyres.core.errors import ConfigError

BASE_KEY = "base"


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe loader that refuses a key written twice, where YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen and isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem=f"key {key_node.value!r} twice", problem_mark=key_node.start_mark)
            if isinstance(key_node, yaml.ScalarNode):
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping and merge it over its chain of `base:` files.

    Args:
        path: the file; a relative `base:` is looked up from the folder of the file that names it.

    Returns:
        Nested plain values without the `base` key.

    Raises:
        ConfigError: if a file is missing, unreadable or not a mapping, or the bases form a cycle.
    """
    return _read_chain(path, [])


def _read_chain(path: Path, children: list[Path]) -> dict[str, Any]:
    resolved = path.resolve()
    if resolved in children:
        chain = " -> ".join(child.name for child in [*children[children.index(resolved) :], resolved])
        raise ConfigError(f"{path}: '{BASE_KEY}:' files form a cycle ({chain}); remove one of them")
    values = _read_one(path, children[-1] if children else None)
    if BASE_KEY not in values:
        return values
    base = values.pop(BASE_KEY)
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{path}: '{BASE_KEY}' is {base!r}; write the name of one YAML file")
    return merge(_read_chain(path.parent / base, [*children, resolved]), values)


def _read_one(path: Path, child: Path | None) -> dict[str, Any]:
    asked = f" (named as '{BASE_KEY}' in {child})" if child is not None else ""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such config file{asked}; check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text{asked}; give a YAML file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}){asked}") from error
    try:
        values = yaml.load(text, _UniqueKeyLoader)  # a subclass of SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: not valid YAML ({_first_problem(error)})") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path}: holds {type(values).__name__}, but a config is a mapping of names to values")
    return values


def _first_problem(error: yaml.YAMLError | ValueError) -> str:
    problem = getattr(error, "problem", None) or str(error)
    mark = getattr(error, "problem_mark", None)
    where = f", line {mark.line + 1}" if mark is not None else ""
    return " ".join(problem.split()) + where


def merge(base: Mapping[str, Any], delta: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a delta over a base: mappings are merged key by key, everything else is replaced whole."""
    merged = dict(base)
    for key, value in delta.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def parse_override(text: str) -> tuple[list[str], Any]:
    """Split an override such as `optimiser.lr=3e-4`.

    Args:
        text: dotted key, an equals sign, and a value written as YAML; no value means null.

    Returns:
        The parts of the key, and the value.

    Raises:
        ConfigError: if there is no equals sign, a part of the key is empty, or the value is not YAML.
    """
    dotted, equals, value = text.partition("=")
    keys = [part.strip() for part in dotted.split(".")]
    if not equals or not all(keys):
        raise ConfigError(f"override {text!r} cannot be read; write KEY=VALUE, like optimiser.lr=3e-4")
    try:
        return keys, yaml.load(value, _UniqueKeyLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"override {text!r}: the value is not valid YAML ({_first_problem(error)})") from error


def assign(values: Mapping[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a copy of nested mappings with one value set; mappings on the way are made where there are none.

    Args:
        values: nested mappings.
        keys: the way to the value, outermost first, at least one.
        value: the new value; a mapping replaces what is there.

    Raises:
        ConfigError: if the way leads through something that is not a mapping.
    """
    changed = dict(values)
    first, rest = keys[0], keys[1:]
    if not rest:
        changed[first] = value
        return changed
    below = changed.get(first)
    if below is not None and not isinstance(below, Mapping):
        raise ConfigError(f"cannot set {'.'.join(keys)!r}: {first!r} is {below!r}; give {first}=… as a whole")
    changed[first] = assign(below or {}, rest, value)
    return changed
