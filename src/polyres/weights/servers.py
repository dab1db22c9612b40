"""Whether servers answer, told in seconds, and the caches of other programs that may hold a file already."""

from __future__ import annotations

import http.client
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

ANSWER_S = 3.0
_FIRST_BYTE = {"Range": "bytes=0-0"}


def answering(urls: Sequence[str], within_s: float = ANSWER_S) -> set[str]:
    """Ask servers at the same time whether they are there.

    A name that does not resolve, an address that takes no connection and a server that takes one and says nothing are
    all told after the same short time, which the clients of libraries spend minutes on. So is one that answers and
    then sends nothing.

    `urls`: asked for their first byte; any answer counts, also a refusal. `within_s`: seconds after which no answer
    counts as none.
    """
    answers: queue.Queue[tuple[str, bool]] = queue.Queue()
    for url in urls:
        # Names are looked up without a time limit of their own, so that a thread may have to be left behind.
        threading.Thread(target=lambda url=url: answers.put((url, _answers(url, within_s))), daemon=True).start()
    found: set[str] = set()
    end = time.monotonic() + within_s
    for _ in urls:
        try:
            url, answered = answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        if answered:
            found.add(url)
    return found


def _answers(url: str, within_s: float) -> bool:
    try:
        # Proxies may answer for the head of a file that they never deliver.
        with urllib.request.urlopen(urllib.request.Request(url, headers=_FIRST_BYTE), timeout=within_s) as answer:
            return bool(answer.read(1))
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError, http.client.HTTPException):
        return False


def torch_checkpoints() -> Path:
    """Folder in which `torch.hub` keeps weights, as demucs has it do.

    Source: torch.hub documentation, "Where are my downloaded models saved?".
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = os.environ.get("TORCH_HOME") or Path(cache) / "torch"
    return Path(home).expanduser() / "hub" / "checkpoints"


def from_hub_cache(repository: str, file: str) -> Path | None:
    """Find a file that any program has had from the Hugging Face Hub, or None."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None
