"""The folder of a run: what was asked for, with what it ran, what it measured, and its weights."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from lightning_fabric.utilities.rank_zero import rank_zero_only

from polyres.core.config import Config, diff
from polyres.core.errors import OutputError, TrainingError
from polyres.core.json_text import json_value
from polyres.core.whole_files import write_whole

CONFIG_FILE = "config.yaml"
FACTS_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
CHECKPOINT_FILE = "checkpoint.safetensors"
BEST_FILE = "best.safetensors"

MAY_CHANGE = frozenset(
    {
        "checkpoint_every_s",
        "data_dir",
        "device",
        "devices",
        "distil.teacher",
        "epochs",
        "gradient_norms_every",
        "init",
        "log_every_s",
        "num_workers",
        "strategy",
        "tensorboard",
        "threads",
        "time_budget_s",
        "valid.batch_size",
    }
)
"""Settings that a resumed run may have different from the start.

They say how long and on what machine to go on, and where files lie.
"""


def is_run(path: Path) -> bool:
    """Say whether a folder is that of a run."""
    return (path / CONFIG_FILE).is_file() and (path / FACTS_FILE).is_file()


def versions() -> dict[str, str]:
    """Return the versions a result depends on, by package."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("polyres", "torch", "lightning-fabric", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_commit() -> str | None:
    """Return the commit of the sources that this code runs from, with a `+` if they were edited; None outside git."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(here.parent), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A virtual environment may lie inside someone else's repository: only a tracked file speaks for its commit.
    if git("ls-files", "--error-unmatch", here.name) is None:
        return None
    commit = git("rev-parse", "HEAD")
    return f"{commit}+" if commit and git("status", "--porcelain", "--untracked-files=no", "--", "..") else commit


class RunFolder:
    """Files of one run. `create` starts a new one, `reopen` goes on with an old one."""

    def __init__(self, path: Path, fingerprint: str, seed: int, commit: str | None) -> None:
        """Refer to a folder; use `create` or `reopen` instead."""
        self.path = path
        self.identity = {"fingerprint": fingerprint, "commit": commit, "seed": seed}

    @property
    def checkpoint(self) -> Path:
        """The state to resume from."""
        return self.path / CHECKPOINT_FILE

    @property
    def best(self) -> Path:
        """The best weights so far, ready to use."""
        return self.path / BEST_FILE

    @classmethod
    def create(cls, path: Path, config: Config, seed: int) -> RunFolder:
        """Start a run in a folder that holds none yet.

        `path`: the folder; made if need be. Raises TrainingError if the folder already holds a run; OutputError if it
        cannot be written.
        """
        if (path / CONFIG_FILE).exists():
            raise TrainingError(f"{path} already holds a run; add --resume to go on with it, or choose another --out")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {path}: {error.strerror}; choose another --out") from error
        run = cls(path, config.fingerprint(), seed, git_commit())
        run._describe(config)
        return run

    @classmethod
    def reopen(cls, path: Path, config: Config, seed: int) -> RunFolder:
        """Go on with a run.

        `config`: the resolved config; what shapes the weights must be as it was. Raises TrainingError if the folder
        holds no run that can go on, or the config is not that of the run.
        """
        if not (path / CONFIG_FILE).exists():
            raise TrainingError(f"{path} holds no run to resume; leave out --resume to start one there")
        before = type(config).from_yaml(path / CONFIG_FILE)
        changed = {key: values for key, values in diff(before, config).items() if key not in MAY_CHANGE}
        if changed:
            key, (old, new) = next(iter(changed.items()))
            raise TrainingError(
                f"cannot resume {path}: {key} was {old!r} and is now {new!r}; leave it as it was or start a new run"
            )
        run = cls(path, config.fingerprint(), seed, git_commit())
        run._describe(config)
        return run

    def _describe(self, config: Config) -> None:
        """Write config and facts."""
        write_whole(self.path / CONFIG_FILE, config.to_yaml())
        write_whole(self.path / FACTS_FILE, json.dumps({**self.identity, "versions": versions()}, indent=2) + "\n")

    def append_row(self, row: Mapping[str, Any]) -> None:
        """Add one epoch to the metrics; every row says which run, code and seed it comes from."""
        line = json.dumps({**row, **self.identity})
        try:
            with (self.path / METRICS_FILE).open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {self.path / METRICS_FILE}: {error.strerror}; make room") from error

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows of the metrics, oldest first; a line cut by a crash is left out."""
        path = self.path / METRICS_FILE
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                rows.append(json_value(line, special=True))
            except ValueError:
                continue
        return rows

    def forget_after(self, step: int) -> None:
        """Drop rows of steps that a resumed run will do again."""
        kept = [row for row in self.rows() if row["step"] <= step]
        write_whole(self.path / METRICS_FILE, "".join(json.dumps(row) + "\n" for row in kept))


LOCK_FILE = ".lock"

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> bool:
        """Try to lock; say whether nobody else had."""
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(file: IO[bytes]) -> bool:
        """Try to lock; say whether nobody else had. Where a file system has no locks, nobody ever has."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True


def is_held(folder: Path) -> bool:
    """Say whether some process on this machine is training in a run folder. `folder`: of the run; may be missing."""
    try:
        with (folder / LOCK_FILE).open("rb") as file:
            return not _lock(file)
    except OSError:
        return False


def refuse_if_held(folder: Path) -> None:
    """Refuse to train where somebody does already.

    `folder`: of the run; may be missing. Raises TrainingError if some process is training there.
    """
    if is_held(folder):
        raise TrainingError(f"a run is going on in {folder}; wait for it, stop it, or choose another --out")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder; of the processes of one distributed run the first one does.

    Raises TrainingError if some other process is training there; OutputError if the file cannot be written.
    """
    # Fabric notes the rank where it starts processes itself, a launcher leaves it in the environment.
    ranks = [getattr(rank_zero_only, "rank", 0), *(os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK"))]
    if any(int(rank) for rank in ranks):
        yield
        return
    path = folder / LOCK_FILE
    try:
        file = path.open("wb")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    with file:
        if not _lock(file):
            refuse_if_held(folder)
            _lock(file)  # somebody was only asking
        try:
            yield
        finally:
            if sys.platform != "win32":  # there an open file cannot be removed; an unlocked one does no harm
                path.unlink(missing_ok=True)
