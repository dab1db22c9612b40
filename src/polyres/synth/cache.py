"""Cache of synthesised songs that a recipe asks for, keyed by a fingerprint of their config."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from filelock import FileLock, Timeout
from pydantic import Field, model_validator

from polyres.core.config import Config
from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.core.process import usable_processors
from polyres.core.yaml_files import yaml_value
from polyres.synth.composed import FORMAT, make_miniature
from polyres.synth.jobs import Made, run_jobs
from polyres.synth.requests import SUMMARY_FILE, Instruments, Order, plan_order, write_summary
from polyres.synth.songs import Report

PREFIX = "make:"
FOLDERS = ("midi", "singer", "loops", "modules")
_WAIT_S = 4 * 3600.0


class MadeConfig(Config):
    """Config of synthesised songs that replace a folder of tracks in a recipe.

    `kind` is what is made: `miniature` and `composed` need nothing, `midi` needs a folder of scores, `vocals` one of
    sung notes (`singer`), `loops` one of loops, `modules` one of tracker modules. There are `hours` of them, or
    `tracks` (of `midi` and `modules`: `takes` of each).
    Folders and banks are relative to the recipe's data folder. Instruments are electronic unless said otherwise, so
    that a recipe makes the same songs everywhere.
    """

    kind: Literal["miniature", "composed", "midi", "vocals", "loops", "modules"]
    seed: int = Field(0, ge=0)
    tracks: int = Field(4, ge=1)
    takes: int = Field(1, ge=1)
    hours: float | None = Field(None, gt=0)
    length_s: float | None = Field(None, ge=2)
    instruments: Instruments = "electronic"
    styles: tuple[str, ...] = ()
    banks: tuple[str, ...] = ()
    midi: str | None = None
    singer: str | None = None
    loops: str | None = None
    modules: str | None = None

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> MadeConfig:
        """Refuse kinds without their folder, and folders that the kind does not use."""
        needed = {"midi": "midi", "vocals": "singer", "loops": "loops", "modules": "modules"}.get(self.kind)
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(f"kind {self.kind} needs a folder; name it with {needed}")
        usable = {needed, "singer"} if self.kind in ("composed", "midi") else {needed}
        useless = next((key for key in FOLDERS if getattr(self, key) is not None and key not in usable), None)
        if useless is not None:
            raise ValueError(f"kind {self.kind} does not use {useless}; leave it out")
        if self.kind == "miniature" and self.hours is not None:
            raise ValueError("kind miniature goes by tracks; use kind composed for hours")
        return self

    @classmethod
    def from_root(cls, root: str) -> Self:
        """Read what stands in a root after `make:`.

        Args:
            root: such as `make: {kind: miniature, seed: 1}`.

        Raises:
            ConfigError: if it is no mapping, or one with unknown or unusable values.
        """
        try:
            values = yaml_value(root.removeprefix(PREFIX))
        except ValueError:
            values = None
        if not isinstance(values, Mapping):
            raise ConfigError(f"root {root!r} says not what to make; write it as make: {{kind: miniature}}")
        return cls.from_dict(values)

    def to_root(self) -> str:
        """Return the root that `from_root` reads; the same for equal configs."""
        plain = type(self).model_fields
        given = {key: value for key, value in self.to_dict().items() if value != _plain(plain[key].default)}
        return f"{PREFIX} {yaml.safe_dump(given, default_flow_style=True, sort_keys=False, width=10**6).strip()}"

    def identity(self) -> str:
        """Return a fingerprint of the songs; folders and banks count by their names."""
        named = {key: Path(getattr(self, key)).name for key in FOLDERS if getattr(self, key) is not None}
        banks = [Path(bank).name for bank in self.banks]
        return self.with_values({**named, "banks": banks}).fingerprint() + f"_v{FORMAT}"


def _plain(value: Any) -> Any:
    """Return a default as JSON holds it."""
    return list(value) if isinstance(value, tuple) else value


def is_made(root: str) -> bool:
    """Return whether a root of a recipe has to be synthesised."""
    return root.startswith(PREFIX)


def root_of(given: Any) -> Any:
    """Turn `{make: {...}}` as it stands in a recipe into a root; leave everything else as it is.

    Args:
        given: a root as read from YAML.

    Returns:
        A string for a mapping with the single key `make`, else what was given.

    Raises:
        ConfigError: if it cannot be made like that.
    """
    if isinstance(given, Mapping) and set(given) == {"make"}:
        made = given["make"]
        if not isinstance(made, Mapping | MadeConfig):
            raise ConfigError(f"make: {made!r} says not what to make; write it as make: {{kind: miniature}}")
        return (made if isinstance(made, MadeConfig) else MadeConfig.from_dict(made)).to_root()
    return MadeConfig.from_root(given).to_root() if isinstance(given, str) and is_made(given) else given


def cache_folder() -> Path:
    """Folder of synthesised data: below `POLYRES_CACHE` where set, else below the platform's cache folder."""
    chosen = os.environ.get("POLYRES_CACHE")
    if chosen:
        return Path(chosen).expanduser() / "made"
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "polyres" / "made"


def make_root(spec: MadeConfig, data_dir: str | None = None, cache: Path | None = None, report: Report = print) -> Path:
    """Synthesise the songs that a recipe asks for, unless they are cached.

    Several processes may ask at once: one makes them, the others wait.

    Args:
        data_dir: what its folders are relative to; the working directory if None.
        cache: where to keep them; the user's cache folder if None.
        report: receives a line before and lines while they are made.

    Returns:
        Folder of tracks in the `stems` layout.

    Raises:
        InputError: if a folder, bank or program that they need is missing or unusable.
        OutputError: if the cache cannot be written.
    """
    out = (cache or cache_folder()) / f"{spec.kind}_{spec.identity()}"
    if (out / SUMMARY_FILE).is_file():
        return out
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(out.with_name(f".{out.name}.lock"), timeout=_WAIT_S):
            if not (out / SUMMARY_FILE).is_file():
                report(f"making data: {spec.to_root().removeprefix(PREFIX).strip()} in {out}")
                write_summary(out, spec, _make(spec, data_dir, out, report))
    except Timeout as error:
        raise OutputError(f"another process has been making '{out}' for hours; end it, or remove the folder") from error
    except OSError as error:
        raise OutputError(
            f"cannot write '{out}' ({error.strerror}); make room, or set POLYRES_CACHE to another folder"
        ) from error
    return out


def _make(spec: MadeConfig, data_dir: str | None, out: Path, report: Report) -> list[Made]:
    """Synthesise all songs."""
    if spec.kind == "miniature":
        return make_miniature(out, spec.seed, spec.tracks, 6.0 if spec.length_s is None else spec.length_s)
    base = Path(data_dir or ".")
    folders = {key: base / Path(getattr(spec, key)).expanduser() for key in FOLDERS if getattr(spec, key) is not None}
    for key, folder in folders.items():
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder} to make songs from ({key}); set its parent with --data")
    values: dict[str, Any] = {key: str(folder) for key, folder in folders.items()}
    values |= {key: getattr(spec, key) for key in ("seed", "hours", "tracks", "takes", "styles", "instruments")}
    values["banks"] = [str(base / Path(bank).expanduser()) for bank in spec.banks]
    values["compose"] = spec.kind == "composed"
    if spec.length_s is not None:
        values["length_s"] = spec.length_s
    jobs = plan_order(Order.from_dict(values), out, report)
    told = made_s = 0.0

    def tell(made: Made) -> None:
        nonlocal told, made_s
        made_s += made.length_s
        if made_s >= told + 1800.0:
            told = made_s
            report(f"{made_s / 3600.0:.1f} h made")

    return run_jobs(jobs, usable_processors(), tell)
