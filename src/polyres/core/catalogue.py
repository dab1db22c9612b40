"""Named choices: things that are registered under a name and built by it, by this package or by plugins."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from importlib import import_module, invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from polyres.core.errors import ConfigError, PolyresError, UnknownNameError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


PLUGINS_VARIABLE = "POLYRES_PLUGINS"
"""Environment variable with plugin files, separated as in PATH."""

ENTRY_POINTS = "polyres"
"""Group of the entry points of installed packages; each names a module."""


class _Loader:
    """Imports every plugin once."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.busy = False
        self.found: list[EntryPoint] | None = None
        self.done: set[str] = set()

    def load(self, named: str) -> None:
        """Import what has not been imported yet of files, separated as in PATH, and of what is installed."""
        with self.lock:
            if self.busy:  # a plugin looks something up while it is imported
                return
            self.busy = True
            try:
                self._load(named)
            finally:
                self.busy = False

    def _load(self, named: str) -> None:
        for text in filter(None, named.split(os.pathsep)):
            if text not in self.done:
                _import_file(Path(text).resolve())
                self.done.add(text)
        if self.found is None:
            from importlib.metadata import entry_points  # slow to load, and not needed for a page of help

            self.found = list(entry_points(group=ENTRY_POINTS))
        while self.found:
            _import_installed(self.found[0])
            self.found.pop(0)


_LOADER = _Loader()


def load_plugins() -> None:
    """Import all plugins that are named or installed and have not been imported yet."""
    _LOADER.load(os.environ.get(PLUGINS_VARIABLE, ""))


def use_plugin(path: str | Path) -> None:
    """Import a plugin file, in this process and in all that it starts from now on.

    `path`: a Python file that registers something. Raises ConfigError if it cannot be imported; says why.
    """
    named = os.environ.get(PLUGINS_VARIABLE, "")
    text = str(Path(path).resolve())
    if text not in named.split(os.pathsep):
        named = os.pathsep.join(filter(None, (named, text)))
    _LOADER.load(named)
    os.environ[PLUGINS_VARIABLE] = named


def _import_file(path: Path) -> None:
    """Import a file under its own name; files beside it are within its reach."""
    name = path.stem
    if path.suffix != ".py" or not path.is_file() or not name.isidentifier():
        raise ConfigError(f"plugin '{path}' is no Python file; name one such as my_fusion.py")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    invalidate_caches()
    spec = find_spec(name)
    if spec is None or spec.origin is None or Path(spec.origin).resolve() != path:
        raise ConfigError(f"plugin '{path}' has the name of the module {name!r}; rename the file")
    try:
        import_module(name)
    except Exception as error:
        raise _unusable(f"'{path}'", error) from error


def _import_installed(point: EntryPoint) -> None:
    try:
        point.load()
    except Exception as error:
        package = point.dist.name if point.dist is not None else point.value
        raise _unusable(f"{point.name!r} of the package {package}", error) from error


def _unusable(what: str, error: Exception) -> ConfigError:
    reason = str(error) if isinstance(error, PolyresError) else f"{type(error).__name__}: {error}"
    return ConfigError(f"plugin {what} cannot be loaded ({reason}); mend it, or do without it")


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
        if name not in self._factories:
            load_plugins()
        return name in self._factories

    def __len__(self) -> int:
        return len(self.names())
