"""State of a running server: study, sounds whose files do not reveal their condition, database and limits."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

import soundfile

from polyres.audio.opening import open_sound
from polyres.audio.writer import AudioWriter, WriteSpec
from polyres.core.errors import ConfigError, InputError
from polyres.listen.design.files import ListenStudy, Page, load_study
from polyres.listen.server.links import SERVER_FOLDER, Rate, RateLimiter, Signer, read_or_make_secrets
from polyres.listen.server.plan import OPEN_REFERENCE, Planner
from polyres.listen.server.web_options import WebOptions
from polyres.listen.store.database import Store
from polyres.listen.store.tables import default_database_url

MAX_SECONDS = 120.0

_CHUNK_SAMPLES = 1 << 18


class StudyAudio:
    """Find the file of a sound; checks every sound of the study on opening.

    All sounds of a page must have the study's rate, the same length and the same channels. Where they are not WAV files
    of one size, plain 24-bit copies are sent instead, since the size of a download would tell them apart.
    """

    def __init__(self, study: ListenStudy, study_dir: Path, copies_dir: Path) -> None:
        self._paths: dict[tuple[str, str], Path] = {}
        self.length_samples: dict[str, int] = {}
        for page in (*study.training, *study.pages):
            names = dict(page.audio)
            if page.reference is not None:
                names[OPEN_REFERENCE] = page.reference
            paths = {name: _inside(study_dir, file) for name, file in names.items()}
            self.length_samples[page.id] = _check(study, page, paths)
            if not _look_alike(list(paths.values())):
                paths = {name: _copy(path, copies_dir) for name, path in paths.items()}
            self._paths |= {(page.id, name): path for name, path in paths.items()}

    def path(self, page_id: str, name: str) -> Path:
        """Return the file of a condition, or of the open reference, on a page."""
        try:
            return self._paths[page_id, name]
        except KeyError:
            raise InputError(f"page {page_id!r} has no sound {name!r}") from None


def _inside(study_dir: Path, name: str) -> Path:
    path = (study_dir / name).resolve()
    if not path.is_relative_to(study_dir.resolve()):
        raise InputError(f"{study_dir / name} leads out of the study folder; put the file itself there")
    return path


def _check(study: ListenStudy, page: Page, paths: dict[str, Path]) -> int:
    """Compare the sounds of a page; return their length in samples."""
    shapes: dict[tuple[int, int], Path] = {}
    for path in paths.values():
        try:
            with open_sound(path) as info:
                pass
        except (soundfile.SoundFileError, OSError) as error:
            raise InputError(f"{path} cannot be read as audio ({error}); make the study again") from error
        if info.samplerate != study.sample_rate_hz:
            raise InputError(
                f"{path} has {info.samplerate} Hz, but the study {study.sample_rate_hz} Hz; make the study again"
            )
        if not 0 < info.frames <= MAX_SECONDS * info.samplerate:
            raise InputError(f"{path} lasts {info.frames / info.samplerate:.1f} s; allowed are up to {MAX_SECONDS:g} s")
        shapes.setdefault((info.frames, info.channels), path)
    if len(shapes) > 1:
        (one, first), (other, second) = list(shapes.items())[:2]
        raise InputError(
            f"the sounds of page {page.id!r} differ: {first.name} has {one[0]} samples in {one[1]} channels, "
            f"{second.name} has {other[0]} in {other[1]}; make the study again"
        )
    return next(iter(shapes))[0]


def _look_alike(paths: list[Path]) -> bool:
    return all(path.suffix.lower() == ".wav" for path in paths) and len({path.stat().st_size for path in paths}) == 1


def _copy(path: Path, folder: Path) -> Path:
    """Write a sound as 24-bit WAV under the fingerprint of its bytes, unless it is there already."""
    with path.open("rb") as file:
        copy = folder / f"{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}.wav"
    if copy.exists():
        return copy
    with open_sound(path) as source:
        spec = WriteSpec(source.samplerate, source.channels, "wav", 24)
        with AudioWriter(copy, spec) as target:
            for block in source.blocks(_CHUNK_SAMPLES, dtype="float32", always_2d=True):
                target.write(block.T)
    return copy


LISTENER = "listener"
COMPLETION = "completion"
ETAG = "etag"

# A class of students behind one address joins within a minute or two.
JOINS = Rate(burst=60, per_second=0.5)
# One page of twelve sounds, each in a few ranges, and ratings while sliders move.
CALLS = Rate(burst=240, per_second=20)


@dataclass(frozen=True)
class ServerOptions(WebOptions):
    """How a study is served."""

    database_url: str | None = None  # any SQLAlchemy URL; SQLite inside the study's folder by default
    admin_token: str | None = None  # of at least 16 characters; made and kept in the study's folder by default
    open_enrolment: bool = True  # whether anybody may join; otherwise only those with a link
    joins: Rate = JOINS  # how often one address may join
    calls: Rate = CALLS  # how often one listener may call


class ServerState:
    """State shared by all request handlers."""

    def __init__(self, study_dir: Path, options: ServerOptions) -> None:
        self.study: ListenStudy = load_study(study_dir)
        self.options = options
        self.bound_port = options.port
        kept = read_or_make_secrets(study_dir, options.admin_token)
        self.admin_token = kept.admin_token
        self.signer = Signer(kept.signing)
        self.audio = StudyAudio(self.study, study_dir, study_dir / SERVER_FOLDER / "audio")
        self.planner = Planner(self.study)
        self.joins = RateLimiter(options.joins)
        self.calls = RateLimiter(options.calls)
        self.failures = RateLimiter(Rate(burst=30, per_second=0.5))
        self.store = Store(options.database_url or default_database_url(study_dir))
        if not self.store.holds_design(fingerprint(self.study)):
            self.store.close()
            raise ConfigError(
                f"the pages, conditions or design of {study_dir} have changed since its first listener; "
                "restore them, or make a new study in another folder"
            )

    @property
    def base_url(self) -> str:
        """Base URL of links, without a slash at the end."""
        return (self.options.public_url or self.options.url(self.bound_port)).rstrip("/")

    def new_token(self) -> str:
        """Create the token of a new listener."""
        return self.signer.token(LISTENER, secrets.token_urlsafe(12))

    def listener_link(self, token: str) -> str:
        """Return the link of a listener: its token stands after `#`, which browsers keep out of logs."""
        return f"{self.base_url}/#{token}"

    def admin_link(self) -> str:
        """Return the link of the administrator."""
        return f"{self.base_url}/admin#{self.admin_token}"

    def completion_code(self, listener_id: str) -> str:
        """Return the study's code, or one of the listener's own where the study names none."""
        return self.study.completion_code or self.signer.code(COMPLETION, listener_id)


def fingerprint(study: ListenStudy) -> str:
    """Return a text that changes when plans or the meaning of ratings change; wording is left out."""
    values = study.to_dict()
    parts = {name: values[name] for name in ("kind", "conditions", "pages", "training", "design", "sample_rate_hz")}
    parts["attributes"] = [[attribute.name, len(attribute.labels)] for attribute in study.attributes]
    # What came later is left out where it has its default: databases of before stay valid.
    for page in (*parts["pages"], *parts["training"]):
        del page["text"]
        if not page["part"]:
            del page["part"]
    if parts["design"]["order"] == "balanced":
        del parts["design"]["order"]
    if study.parts:
        parts["parts"] = values["parts"]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
