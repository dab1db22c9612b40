"""Typed configs: every default once, YAML files that say only what differs, and errors that name the right key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from polyres.core.catalogue import nearest
from polyres.core.errors import ConfigError
from polyres.core.yaml_files import BASE_KEY, assign, merge, parse_override, read_yaml

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

_PREFIXES = ("Input should be ", "Value error, ", "Assertion failed, ")
_ABSENT = object()
T = TypeVar("T")


class _ConfigMeta(ModelMetaclass):
    """Turns pydantic's report into one line where a config is constructed directly.

    Nested configs are built by pydantic without a call to the class, so the outermost one sees the whole key.
    """

    if not TYPE_CHECKING:  # static checkers keep the constructor that pydantic synthesises

        def __call__(cls, *args: Any, **fields: Any) -> Any:
            try:
                return super().__call__(*args, **fields)
            except ValidationError as error:
                raise ConfigError(_explain(cls, error, fields)) from error


class Config(BaseModel, metaclass=_ConfigMeta):
    """Base of every config: frozen, nested, comparable, and strict about its keys.

    Fields are numbers, strings, booleans, tuples, mappings and other configs. A mapping given for a field whose
    default is a config says only what differs from that default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @classmethod
    def __pydantic_init_subclass__(cls) -> None:  # type: ignore[override]
        """Keep the key that names a parent file free."""
        if BASE_KEY in cls.model_fields:
            raise ConfigError(f"{cls.__name__} cannot have a field {BASE_KEY!r}: it names the parent of a YAML file")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_defaults(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        filled = dict(given)
        for name, field in cls.model_fields.items():
            value = filled.get(name)
            default = field.default
            if isinstance(value, Mapping) and isinstance(default, Config) and type(default) is field.annotation:
                filled[name] = default.complete(value)
        return filled

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a config from plain values; whatever is left out keeps its default.

        `values`: nested mappings as read from YAML or JSON. Raises ConfigError for an unknown, missing or unusable
        value; names the dotted key and what is allowed.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(_explain(cls, error, values)) from error

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Build a config from a YAML file, its chain of `base:` files and overrides.

        `path`: the file; its `base:` is relative to its own folder. `overrides`: `a.b=value` each, the value written as
        YAML; the last one wins. Raises ConfigError if a file cannot be read, bases form a cycle, an override cannot be
        parsed or a value is wrong.
        """
        values = read_yaml(Path(path))
        for override in overrides:
            keys, value = parse_override(override)
            values = assign(values, keys, value)
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    def with_values(self, changes: Mapping[str, Any]) -> Self:
        """Return a checked copy in which some values differ.

        `changes`: dotted keys ("optimiser.lr") with their new values. Raises ConfigError for an unknown key or an
        unusable value.
        """
        values = self.to_dict()
        for key, value in changes.items():
            values = assign(values, key.split("."), value.to_dict() if isinstance(value, Config) else value)
        return type(self).from_dict(values)

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Lay given values over this config's own.

        `given`: nested mappings that say only what differs. Returns plain values for a config of the same class; one
        that has presets may start from the preset instead.
        """
        return merge(self.to_dict(), given)

    def to_dict(self) -> dict[str, Any]:
        """Return all values, defaults included, as JSON would hold them."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return all values, defaults included, as YAML text in the order of the fields."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that equal configs share, whatever the order of their keys."""
        return hashlib.sha256(_canonical(self.to_dict()).encode()).hexdigest()[:16]


@cache
def _schema(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def read_as(kind: type[T], values: Any) -> T:
    """Build a dataclass from plain values as JSON holds them, every field checked by its type.

    `kind`: the dataclass; those inside it are built too. Raises ValueError in one line, for the first value that does
    not fit.
    """
    try:
        schema: Any = kind
        found: T = _schema(schema).validate_python(values)
        return found
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        problem = "is missing" if first["type"] in ("missing", "missing_argument") else _strip_prefix(first["msg"])
        raise ValueError(f"{key!r} {problem}"[:200]) from error


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def diff(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Compare two configs value by value.

    Returns dotted key -> (value in `a`, value in `b`) where they differ; a key that one lacks counts as None there.
    Lists are compared whole. Empty exactly where the fingerprints agree.
    """
    found: dict[str, tuple[Any, Any]] = {}
    _collect_differences("", a.to_dict(), b.to_dict(), found)
    return found


def _collect_differences(prefix: str, a: Any, b: Any, found: dict[str, tuple[Any, Any]]) -> None:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in [*a, *(key for key in b if key not in a)]:
            _collect_differences(f"{prefix}.{key}".lstrip("."), a.get(key, _ABSENT), b.get(key, _ABSENT), found)
    elif _ABSENT in (a, b) or _canonical(a) != _canonical(b):
        found[prefix] = (None if a is _ABSENT else a, None if b is _ABSENT else b)


def _explain(cls: type[Config], error: ValidationError, values: Mapping[str, Any]) -> str:
    """Word the first problem of a validation as one line; a union's alternatives count as one problem."""
    by_key: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        by_key.setdefault(_real_key(details, values), []).append(details)
    key, problems = next(iter(by_key.items()))
    more = f" (and {len(by_key) - 1} more)" if len(by_key) > 1 else ""
    return _word(cls, key, problems) + more


def _word(cls: type[Config], key: tuple[int | str, ...], problems: list[ErrorDetails]) -> str:
    details = problems[0]
    dotted = ".".join(str(part) for part in key)
    if details["type"] == "missing":
        return f"{cls.__name__}: key {dotted!r} is missing; give it a value"
    if details["type"] == "extra_forbidden":
        allowed = _field_names(cls, key[:-1])
        close = nearest(str(key[-1]), allowed)
        right = ".".join(str(part) for part in (*key[:-1], close))
        hint = f"did you mean {right!r}? " if close is not None else ""
        return f"{cls.__name__}: unknown key {dotted!r}; {hint}allowed: {', '.join(allowed) or '(none)'}"
    wanted = list(dict.fromkeys(_strip_prefix(problem["msg"]) for problem in problems))
    value = " ".join(repr(details["input"]).split())
    where = f"{cls.__name__}: {dotted} = {_shorten(value)}" if dotted else cls.__name__
    if details["type"] in ("value_error", "assertion_error"):
        return f"{where}: {'; '.join(wanted)}"
    return f"{where} is not allowed; allowed: {' or '.join(wanted)}"


def _shorten(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _strip_prefix(message: str) -> str:
    for prefix in _PREFIXES:
        message = message.removeprefix(prefix)
    return " ".join(message.split())


def _real_key(details: ErrorDetails, values: Any) -> tuple[int | str, ...]:
    """Drop what pydantic adds to the path for unions, keeping only what the user wrote."""
    key: list[int | str] = []
    for position, part in enumerate(details["loc"]):
        last = position == len(details["loc"]) - 1
        if isinstance(values, Mapping) and part in values:
            values = values[part]
        elif isinstance(values, Sequence) and not isinstance(values, str) and isinstance(part, int):
            values = values[part] if part < len(values) else None
        elif isinstance(values, Config) and isinstance(part, str) and part in type(values).model_fields:
            values = getattr(values, part)
        elif not (last and details["type"] == "missing"):
            continue
        key.append(part)
    return tuple(key)


def _field_names(cls: type[Config], key: Sequence[int | str]) -> list[str]:
    """Return the field names allowed at a key; those of all alternatives where the type is a union."""
    annotations: list[Any] = [cls]
    for part in key:
        annotations = [inner for annotation in annotations for inner in _inside(annotation, part)]
    configs = [config for annotation in annotations for config in _configs_in(annotation)]
    return list(dict.fromkeys(name for config in configs for name in config.model_fields))


def _inside(annotation: Any, part: int | str) -> list[Any]:
    """Return the types that one step of a key leads to."""
    if _is_config(annotation):
        return [annotation.model_fields[part].annotation] if part in annotation.model_fields else []
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return [arguments[1]]
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return list(arguments)
    return [inner for argument in arguments for inner in _inside(argument, part)]


def _configs_in(annotation: Any) -> list[type[Config]]:
    if _is_config(annotation):
        return [annotation]
    return [config for argument in get_args(annotation) for config in _configs_in(argument)]


def _is_config(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Config)
