"""Files that appear whole or not at all, under names by which what dead processes left can be removed."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from polyres.core.errors import OutputError

PREFIX = ".polyres-"
_NAME = re.compile(r"\.polyres-(?P<machine>[0-9a-f]{12})-(?P<pid>\d{1,10})-(?P<start>\d+)-[0-9a-f]{16}(\.[a-z0-9]+)?")
_STRANGE_AGE_S = 7 * 86_400.0
"""What another machine, or an older version, left in a shared folder is removed when it has been still for so long."""


def scratch_path(folder: Path, suffix: str = "") -> Path:
    """Name something unfinished; nothing is made.

    What processes that are gone left in the folder is removed, the first time that this process asks for it.
    """
    remove_left_behind(folder)
    machine, pid = _machine(), os.getpid()
    return folder / f"{PREFIX}{machine}-{pid}-{_started(pid)}-{secrets.token_hex(8)}{suffix}"


def make_scratch_folder(folder: Path | None = None) -> Path:
    """Make a folder for what is unfinished.

    `folder`: that holds it; the system's temporary folder if None. Returns the new folder; whoever asks for it removes
    it. After a hard kill another process does. Raises OSError if it cannot be made.
    """
    path = scratch_path(Path(tempfile.gettempdir()) if folder is None else folder)
    path.mkdir(mode=0o700)
    return path


@contextmanager
def scratch_folder(folder: Path | None = None) -> Iterator[Path]:
    """Give a folder as `make_scratch_folder` does, and remove it afterwards."""
    path = make_scratch_folder(folder)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def remove_left_behind(folder: Path) -> None:
    """Remove the unfinished things in a folder that belong to no living process.

    A folder is looked through once in the life of a process. What cannot be judged or removed stays.

    `folder`: its direct children count; may be missing.
    """
    _remove_left_behind(os.path.abspath(folder), os.getpid())


@functools.lru_cache(maxsize=1024)
def _remove_left_behind(folder: str, pid: int) -> None:
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if entry.name.startswith(PREFIX)]
    except OSError:
        return
    for path in found:
        if not is_left_behind(path):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def is_left_behind(path: Path) -> bool:
    """Say whether an unfinished file or folder belongs to no living process."""
    match = _NAME.fullmatch(path.name)
    if match is None and not re.fullmatch(r"\.polyres-([0-9a-f]{16}\.part|[a-z0-9_]{8})", path.name):
        return False
    if match is None or match["machine"] != _machine():
        try:
            return time.time() - path.lstat().st_mtime > _STRANGE_AGE_S
        except OSError:
            return False
    pid = int(match["pid"])
    return not _is_alive(pid) or match["start"] != _started(pid)


@functools.cache
def _machine() -> str:
    """Name what process numbers are unique in: a boot of a machine, or a container of it."""
    facts = [platform.node()]
    for source in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"):
        with suppress(OSError):
            facts.append(Path(source).read_text())
            break
    with suppress(OSError):
        facts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def _started(pid: int) -> str:
    """When a process started, in the system's own ticks; 0 where that is not told, or the process is gone."""
    try:
        # Source: proc(5): field 22, counted behind the name, which may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "0"


def _is_alive(pid: int) -> bool:
    """Say whether there is a process; in doubt there is."""
    if sys.platform == "win32":
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)
        if not handle:
            return False
        code = ctypes.c_ulong()
        ctypes.windll.kernel32.GetExitCodeProcess(handle, ctypes.byref(code))
        ctypes.windll.kernel32.CloseHandle(handle)
        return code.value == 259
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


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
