"""Parts of users' own: files named by `--plugin` or POLYRES_PLUGINS, and installed packages with an entry point.

A part registers itself in its catalogue when its module is imported. The variable reaches the processes that a command
starts, so that a name is known there too.
"""

from __future__ import annotations

import os
import sys
import threading
from importlib import import_module, invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from polyres.core.errors import ConfigError, PolyresError

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
