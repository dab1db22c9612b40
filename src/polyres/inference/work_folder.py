"""A hidden folder in which results are made before they are shown."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from polyres.core.scratch import make_scratch_folder


@contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """Give a hidden folder beside another; afterwards it is gone, and so are parents made for it that stay empty.

    Args:
        folder: where the results will be; may be missing, as may its parents.
    """
    made = [one for one in (folder.parent, *folder.parent.parents) if not one.exists()]
    work: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = make_scratch_folder(folder.parent)
        work.chmod(0o755)
        yield work
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
        for one in made:
            with suppress(OSError):  # not empty: something was written, or another process works there
                one.rmdir()


def publish_folder(work: Path, folder: Path) -> None:
    """Put a finished folder in its place; what was there before goes only then.

    Args:
        work: of `work_folder`, with everything in it.
        folder: its place.

    Raises:
        OSError: when it cannot be moved; what was there before is then there still.
    """
    if not folder.exists():
        work.rename(folder)
        return
    old = make_scratch_folder(folder.parent)
    try:
        folder.rename(old / "old")
    except OSError:
        old.rmdir()
        raise
    try:
        work.rename(folder)
    except OSError:
        (old / "old").rename(folder)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)
