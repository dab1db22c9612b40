"""Named choices: things that are registered under a name and built by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

from polyres.core.errors import ConfigError, UnknownNameError
from polyres.core.plugins import load_plugins

T = TypeVar("T")
Factory = TypeVar("Factory", bound=Callable[..., Any])


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that a mistyped one most likely meant.

    `name`: what was written; upper and lower case do not matter. `known`: the names that would have been right. Returns
    the closest name, or None when nothing is close.
    """
    by_lower = {right.lower(): right for right in known}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def unknown_name_message(kind: str, name: str, known: Iterable[str]) -> str:
    """Word the error for an unknown name.

    `kind`: what the name stands for, such as "fusion"; `known`: the names that would have been right. Returns one line
    with the name, the nearest right one if any, and all that are known.
    """
    names = list(known)
    close = nearest(name, names)
    hint = f"did you mean {close!r}? " if close is not None else ""
    shown = name if len(name) <= 80 else name[:79] + "…"
    return f"unknown {kind} {shown!r}; {hint}known: {', '.join(names) or '(none)'}"


class Catalogue(Generic[T]):
    """Factories of one kind of thing, each under its own name, in the order they were registered.

    Plugins are imported when a name is missing, or when all are listed.
    """

    def __init__(self, kind: str) -> None:
        """Start an empty catalogue.

        `kind`: what the entries are, in the singular, for error messages ("fusion", "dataset").
        """
        self.kind = kind
        self._factories: dict[str, Callable[..., T]] = {}
        self._summaries: dict[str, str] = {}

    def register(self, name: str, summary: str = "") -> Callable[[Factory], Factory]:
        """Return a decorator that puts a class or function into the catalogue and hands it back unchanged.

        `name`: the name users write; not empty, and free so far. `summary`: one line for help texts and tables. Raises
        ConfigError if the name is empty or already taken.
        """
        if not name:
            raise ConfigError(f"a {self.kind} needs a name that is not empty")

        def add(factory: Factory) -> Factory:
            if name in self._factories:
                raise ConfigError(f"{self.kind} {name!r} is already registered; choose another name")
            self._factories[name] = factory
            self._summaries[name] = summary
            return factory

        return add

    def get(self, name: str) -> Callable[..., T]:
        """Return what was registered under a name.

        Raises UnknownNameError if there is no such entry; the message suggests the nearest name.
        """
        if name not in self:
            raise UnknownNameError(unknown_name_message(self.kind, name, self._factories))
        return self._factories[name]

    def build(self, name: str, *args: Any) -> T:
        """Call the factory registered under a name with these arguments.

        Raises UnknownNameError if there is no such entry; the message suggests the nearest name.
        """
        return self.get(name)(*args)

    def names(self) -> list[str]:
        """Return all names in the order they were registered."""
        load_plugins()
        return list(self._factories)

    def summary(self, name: str) -> str:
        """Return the one-line description of an entry.

        Raises UnknownNameError if there is no such entry; the message suggests the nearest name.
        """
        self.get(name)
        return self._summaries[name]

    def __contains__(self, name: object) -> bool:
        """Say whether a name is registered."""
        if name not in self._factories:
            load_plugins()
        return name in self._factories

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.names())
