"""State of a running server: study, sounds, database and limits."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from polyres.core.errors import ConfigError
from polyres.listen.design.files import ListenStudy, load_study
from polyres.listen.server.audio import StudyAudio
from polyres.listen.server.links import SERVER_FOLDER, Rate, RateLimiter, Signer, read_or_make_secrets
from polyres.listen.server.plan import Planner
from polyres.listen.server.web_options import WebOptions
from polyres.listen.store.database import Store
from polyres.listen.store.tables import default_database_url

LISTENER = "listener"
COMPLETION = "completion"
ETAG = "etag"

# A class of students behind one address joins within a minute or two.
JOINS = Rate(burst=60, per_second=0.5)
# One page of twelve sounds, each in a few ranges, and ratings while sliders move.
CALLS = Rate(burst=240, per_second=20)


@dataclass(frozen=True)
class ServerOptions(WebOptions):
    """How a study is served.

    Attributes:
        database_url: any SQLAlchemy URL; SQLite inside the study's folder by default.
        admin_token: of at least 16 characters; made and kept in the study's folder by default.
        open_enrolment: whether anybody may join; otherwise only those with a link.
        joins: how often one address may join.
        calls: how often one listener may call.
    """

    database_url: str | None = None
    admin_token: str | None = None
    open_enrolment: bool = True
    joins: Rate = JOINS
    calls: Rate = CALLS


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
