"""Official weights by name: what they consist of, where they come from, and the folder they are kept in."""

from __future__ import annotations

import functools
import hashlib
import http.client
import logging
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polyres.audio.track_files import SOURCES
from polyres.core.errors import OfflineError, OutputError, WeightsError
from polyres.core.whole_files import replaced_atomically
from polyres.weights.files import one_line
from polyres.weights.places import cache_folder

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


LEGACY_URL = "https://dl.fbaipublicfiles.com/demucs/hybrid_transformer/"
TIMEOUT_S = 10
CHUNK_BYTES = 1 << 20
LICENCE = "not MIT; for scientific purposes only"
LICENCE_REMARK = (
    "The official Demucs weights are not covered by the MIT licence; their authors provide them for scientific "
    "purposes only (https://github.com/facebookresearch/demucs/issues/327)."
)
OFFLINE_REASON = "downloads are switched off by HF_HUB_OFFLINE"
_CHECKED_NAME = re.compile(r"([0-9a-f]{8})-([0-9a-f]{8})")

logger = logging.getLogger("polyres")


@dataclass(frozen=True)
class OfficialModel:
    """A released model.

    `files`: one per model of the bag: signature, dash, first 8 hex digits of the SHA-256 of its `.th` file.
    """

    name: str
    files: tuple[str, ...]
    sources: tuple[str, ...]
    parameters: int  # number of parameters over all files
    repository: str
    weights: tuple[tuple[float, ...], ...] | None = None  # weight per file and source; None counts all the same


OFFICIAL: dict[str, OfficialModel] = {
    model.name: model
    for model in (
        OfficialModel("htdemucs", ("955717e8-8726e21a",), SOURCES, 41_984_456, "adefossez/HTDemucs"),
        OfficialModel(
            "htdemucs_ft",
            ("f7e0c4bc-ba3fe64a", "d12395a8-e57c48e6", "92cfc3b6-ef3bcb9c", "04573f0d-f3cf25b2"),
            SOURCES,
            4 * 41_984_456,
            "adefossez/HTDemucs-ft",
            tuple(tuple(float(row == column) for column in range(4)) for row in range(4)),
        ),
        OfficialModel(
            "htdemucs_6s",
            ("5c90dfd2-34c22ccb",),
            (*SOURCES, "guitar", "piano"),
            27_414_996,
            "adefossez/HTDemucs-6s",
        ),
    )
}

_HYBRID = "Hybrid Demucs, which has recurrent layers and no transformer"
_MIXED = "a bag with models of Hybrid Demucs or of Demucs on the waveform, which have recurrent layers"
REFUSED: dict[str, str] = {
    "hdemucs_mmi": _HYBRID,
    "mdx": _MIXED,
    "mdx_extra": _MIXED,
    "mdx_q": f"{_MIXED}, quantised",
    "mdx_extra_q": f"{_MIXED}, quantised",
    "repro_mdx_a": _MIXED,
    "repro_mdx_a_hybrid_only": _HYBRID,
    "repro_mdx_a_time_only": "Demucs on the waveform, which has recurrent layers",
}


def model_folder(model: OfficialModel) -> Path:
    """Folder in which the files of a model are kept."""
    return cache_folder() / model.name


def find_file(folder: Path, name: str) -> Path | None:
    """Find a weight file by signature or full name, whichever of the two layouts it has.

    `name`: such as "955717e8" or "955717e8-8726e21a". Returns the file, or None.
    """
    signature = name.partition("-")[0]
    exact = [folder / f"{stem}{suffix}" for stem in (name, signature) for suffix in (".safetensors", ".th")]
    return next((path for path in [*exact, *sorted(folder.glob(f"{signature}-*.th"))] if path.is_file()), None)


def present_files(model: OfficialModel, folder: Path) -> list[Path] | None:
    """The files of a model in a folder, in order, or None when one is missing."""
    found = [find_file(folder, name) for name in model.files]
    complete = [path for path in found if path is not None]
    return complete if len(complete) == len(found) else None


def fetch(model: OfficialModel) -> list[Path]:
    """Return the files of an official model, downloading what neither polyres nor another program has kept.

    `model`: one of `OFFICIAL`. Returns one file per model of the bag, in order. Raises OfflineError when a file can be
    had from nowhere; says where to put it by hand; WeightsError when a download is not the file it should be;
    OutputError when the cache folder cannot be written.
    """
    return [kept_file(model, name) or _fetch_file(model, name, model_folder(model)) for name in model.files]


def kept_file(model: OfficialModel, name: str) -> Path | None:
    """Find a file of a model where polyres, the Hugging Face Hub's client or torch keep what they downloaded.

    `model`: one of `OFFICIAL`. Returns the file, or None.
    """
    own = find_file(model_folder(model), name)
    return own or from_hub_cache(model.repository, _hub_name(name)) or find_file(torch_checkpoints(), name)


def _hub_name(name: str) -> str:
    return f"{name.partition('-')[0]}.safetensors"


def hub_url(repository: str, file: str) -> str:
    """Address of a file on the Hugging Face Hub, or on the mirror that the environment names."""
    import huggingface_hub.constants

    return f"{huggingface_hub.constants.ENDPOINT}/{repository}/resolve/main/{file}"


def _fetch_file(model: OfficialModel, name: str, folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}; set POLYRES_CACHE to another") from error
    hub, url = hub_url(model.repository, _hub_name(name)), f"{LEGACY_URL}{name}.th"
    reason = OFFLINE_REASON if offline_wanted() else "no server answers"
    there = set() if offline_wanted() else answering([hub, url])
    if hub in there:
        try:
            return _from_hub(model.repository, _hub_name(name), folder)
        except Exception as error:  # of whichever network library the hub's client uses; the other source is still left
            reason = one_line(error) or type(error).__name__
            logger.debug("no %s from the Hugging Face Hub: %s", name, reason)
    if url in there:
        try:
            return download(url, folder / f"{name}.th")
        except (OSError, http.client.HTTPException) as error:
            reason = one_line(error) or type(error).__name__
    raise OfflineError(f"cannot download {model.name} ({reason}); put {url} into the folder {folder} by hand")


def _from_hub(repository: str, file: str, folder: Path) -> Path:
    import huggingface_hub

    return Path(huggingface_hub.hf_hub_download(repository, file, local_dir=folder))


def offline_wanted() -> bool:
    """Whether the environment switches downloads off (`HF_HUB_OFFLINE`)."""
    import huggingface_hub.constants

    return huggingface_hub.constants.HF_HUB_OFFLINE


def download(url: str, target: Path) -> Path:
    """Download a file with a progress bar; it appears under its name only when complete and right.

    `target`: to where; a name such as "955717e8-8726e21a.th" also says how its SHA-256 begins. Raises OSError when the
    server cannot be reached or stops in the middle, or the target cannot be written; WeightsError when the content does
    not have the SHA-256 of its name.
    """
    from huggingface_hub.utils import tqdm

    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        length = int(answer.headers.get("Content-Length") or 0)
        with replaced_atomically(target) as temporary:
            with (
                open(temporary, "wb") as file,
                tqdm(total=length or None, unit="B", unit_scale=True, desc=target.name) as bar,
            ):
                while chunk := answer.read(CHUNK_BYTES):
                    file.write(chunk)
                    bar.update(len(chunk))
            size = temporary.stat().st_size
            if length and size != length:
                raise ConnectionError(f"{url} ended after {size} of {length} bytes")
            check_name(temporary, target.name)
    return target


def check_name(path: Path, name: str | None = None) -> None:
    """Compare the SHA-256 of a file with the one in its name, where the name has one.

    `name`: the name it should have; its own if None. Raises WeightsError when they differ.
    """
    named = _CHECKED_NAME.fullmatch(Path(name or path.name).stem)
    if named is None or not path.is_file():
        return
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()[:8]
    if found != named[2]:
        raise WeightsError(
            f"{name or path} is damaged: its SHA-256 begins with {found} instead of {named[2]}; get the file again"
        )


def signature_of(path: Path) -> str | None:
    """The signature in a file name ("955717e8" or "955717e8-8726e21a"), if it is that of an official model."""
    signature = path.stem.partition("-")[0]
    known = {file.partition("-")[0] for model in OFFICIAL.values() for file in model.files}
    return signature if signature in known else None


@functools.cache
def remark_licence() -> None:
    """Log the licence remark on the official weights, once per process."""
    logger.warning(LICENCE_REMARK)
