"""Files that appear whole or not at all: written under another name beside their place, then renamed."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polyres.core.errors import OutputError
from polyres.core.scratch import scratch_path


@contextmanager
def replaced_atomically(target: Path) -> Iterator[Path]:
    """Yield a temporary path in the target's folder that becomes the target if all goes well, and goes away if not.

    The file gets the permissions of any new file, also where the library that writes it is stricter.

    `target`: the file to write or replace; its folder is made if missing.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = scratch_path(target.parent, ".part")
    try:
        temporary.touch(exist_ok=False)
        mode = stat.S_IMODE(temporary.stat().st_mode)
        temporary.unlink()
        yield temporary
        temporary.chmod(mode)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: str | Path, content: str | bytes) -> Path:
    """Write a file whole or not at all; what was there before stays until the new one is complete.

    `path`: the file; its folder is made if missing. `content`: text, written as UTF-8, or bytes. Raises OutputError
    when it cannot be written.
    """
    target = Path(path)
    # Names that are no UTF-8 are written as JSON would escape them.
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    try:
        with replaced_atomically(target) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write '{target}' ({reason}); make room or choose another folder") from error
    return target
