"""A hidden folder in which results are made before they are shown."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
        work = Path(tempfile.mkdtemp(prefix=".polyres-", dir=folder.parent))
        work.chmod(0o755)
        yield work
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
        for one in made:
            with suppress(OSError):  # not empty: something was written, or another process works there
                one.rmdir()
