"""Whether a run is going on: a lock on a file of its folder, which ends with the process that holds it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lightning_fabric.utilities.rank_zero import rank_zero_only

from polyres.core.errors import OutputError, TrainingError

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
    """Say whether some process on this machine is training in a run folder.

    Args:
        folder: of the run; may be missing.
    """
    try:
        with (folder / LOCK_FILE).open("rb") as file:
            return not _lock(file)
    except OSError:
        return False


def refuse_if_held(folder: Path) -> None:
    """Refuse to train where somebody does already.

    Args:
        folder: of the run; may be missing.

    Raises:
        TrainingError: if some process is training there.
    """
    if is_held(folder):
        raise TrainingError(f"a run is going on in {folder}; wait for it, stop it, or choose another --out")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder; of the processes of one distributed run the first one does.

    Args:
        folder: of the run; it exists.

    Raises:
        TrainingError: if some other process is training there.
        OutputError: if the file cannot be written.
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
