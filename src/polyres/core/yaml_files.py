"""YAML text as nested mappings: files with a chain of `base:` parents, and `a.b=value` overrides."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from polyres.core.errors import ConfigError
from polyres.core.json_text import MOST_DEPTH, MOST_DIGITS, bounded_bytes

BASE_KEY = "base"
MOST_BYTES, MOST_VALUES = 2**20, 20_000
"""Largest documents that are read; a recipe has some thousand bytes, the metadata of a track some ten thousand."""
MOST_BASES = 32


_SafeLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C it is ten times as fast


class _UniqueKeyLoader(_SafeLoader):  # type: ignore[misc, valid-type]
    """Safe loader that refuses a key written twice, where YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            if key_node.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key_node.value!r} twice", problem_mark=key_node.start_mark)
            seen.add(key_node.value)
        values: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return values


def yaml_value(text: str) -> Any:
    """Read one YAML document within limits of length, depth and, aliases written out, number of values.

    Raises ValueError in one line, when it is no YAML, breaks a limit, names a key twice, or a value holds itself.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"longer than {MOST_BYTES} bytes")
    _check_events(text)
    try:
        loader = _UniqueKeyLoader(text)
    except yaml.YAMLError as error:
        raise ValueError(_first_problem(error)) from error
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(_first_problem(error)) from error
    except RecursionError:
        raise ValueError(f"nested deeper than {MOST_DEPTH}") from None
    except (LookupError, AttributeError, TypeError) as error:  # of tags on text that does not fit: !!bool x, !!int ""
        raise ValueError(f"a tag that does not fit its value ({' '.join(str(error).split())[:80]})") from error
    finally:
        loader.dispose()


def _check_events(text: str) -> None:
    """Refuse text that is nested too deep before anything is composed of it, which ends the process in C."""
    depth = count = 0
    try:
        for event in yaml.parse(text, _SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            count += 1
            if depth > MOST_DEPTH:
                raise ValueError(f"nested deeper than {MOST_DEPTH}")
            if count > 2 * MOST_VALUES:
                raise ValueError(f"more than {MOST_VALUES} values")
    except yaml.YAMLError:
        return  # the loader finds and words it


def _check_size(root: yaml.Node) -> None:
    """Refuse documents that aliases blow up or close to a circle."""
    known: dict[int, tuple[int, int]] = {}
    open_nodes: set[int] = set()

    def measure(node: yaml.Node) -> tuple[int, int]:
        """Return number of values and depth."""
        if isinstance(node, yaml.ScalarNode):
            if node.tag.endswith((":int", ":float")) and len(node.value) > MOST_DIGITS:
                raise ValueError(f"a number of {len(node.value)} digits, line {node.start_mark.line + 1}")
            return 1, 0
        if id(node) in open_nodes:
            raise ValueError(f"a value holds itself, line {node.start_mark.line + 1}")
        if id(node) not in known:
            open_nodes.add(id(node))
            inner = (one for item in node.value for one in (item if isinstance(item, tuple) else (item,)))
            found = [measure(one) for one in inner]
            open_nodes.remove(id(node))
            known[id(node)] = 1 + sum(n for n, _ in found), 1 + max((depth for _, depth in found), default=0)
        return known[id(node)]

    count, depth = measure(root)
    if count > MOST_VALUES or depth > MOST_DEPTH:
        raise ValueError(f"more than {MOST_VALUES} values, or {MOST_DEPTH} levels, once its aliases are written out")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping and merge it over its chain of `base:` files.

    `path`: the file; a relative `base:` is looked up from the folder of the file that names it. Returns nested plain
    values without the `base` key. Raises ConfigError if a file is missing, unreadable or not a mapping, or the bases
    form a cycle.
    """
    return _read_chain(path, [])


def _read_chain(path: Path, children: list[Path]) -> dict[str, Any]:
    resolved = path.resolve()
    if resolved in children:
        chain = " -> ".join(child.name for child in [*children[children.index(resolved) :], resolved])
        raise ConfigError(f"{path}: '{BASE_KEY}:' files form a cycle ({chain}); remove one of them")
    if len(children) > MOST_BASES:
        raise ConfigError(f"{path}: more than {MOST_BASES} '{BASE_KEY}:' files one above the other; join some of them")
    values = _read_one(path, children[-1] if children else None)
    if BASE_KEY not in values:
        return values
    base = values.pop(BASE_KEY)
    if not isinstance(base, str) or not base or "\0" in base:
        raise ConfigError(f"{path}: '{BASE_KEY}' is {base!r}; write the name of one YAML file")
    return merge(_read_chain(path.parent / base, [*children, resolved]), values)


def _read_one(path: Path, child: Path | None) -> dict[str, Any]:
    asked = f" (named as '{BASE_KEY}' in {child})" if child is not None else ""
    try:
        text = bounded_bytes(path).decode()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such config file{asked}; check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text{asked}; give a YAML file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}){asked}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}{asked}; give a YAML file") from error
    try:
        values = yaml_value(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not valid YAML ({error})") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path}: holds {type(values).__name__}, but a config is a mapping of names to values")
    return values


def _first_problem(error: yaml.YAMLError) -> str:
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

    `text`: dotted key, an equals sign, and a value written as YAML; no value means null. Returns the parts of the key,
    and the value. Raises ConfigError if there is no equals sign, a part of the key is empty, or the value is not YAML.
    """
    dotted, equals, value = text.partition("=")
    keys = [part.strip() for part in dotted.split(".")]
    if not equals or not all(keys):
        raise ConfigError(f"override {text!r} cannot be read; write KEY=VALUE, like optimiser.lr=3e-4")
    try:
        return keys, yaml_value(value)
    except ValueError as error:
        raise ConfigError(f"override {text!r}: the value is not valid YAML ({error})") from error


def assign(values: Mapping[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a copy of nested mappings with one value set; mappings on the way are made where there are none.

    `keys`: the way to the value, outermost first, at least one. `value`: the new value; a mapping replaces what is
    there. Raises ConfigError if the way leads through something that is not a mapping.
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
