"""Rate limits, signed links and the server's secrets."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from polyres.core.errors import ConfigError, OutputError

MAX_BODY_BYTES = 128 * 1024
MAX_RATINGS_PER_REQUEST = 64
MAX_EVENTS_PER_REQUEST = 200
MAX_TEXT_CHARACTERS = 2000
MAX_EVENTS_PER_LISTENER = 50_000


@dataclass(frozen=True)
class Rate:
    """So many calls at once, and so many per second in the long run."""

    burst: float
    per_second: float


class RateLimiter:
    """Token buckets by key, in bounded memory."""

    def __init__(self, rate: Rate, max_keys: int = 20_000, clock: Callable[[], float] = time.monotonic) -> None:
        if rate.burst < 1 or rate.per_second <= 0:
            raise ConfigError(
                f"a rate of {rate.burst} calls, {rate.per_second} per second, lets nobody in; give >= 1, > 0"
            )
        self._rate = rate
        self._max_keys = max_keys
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, key: str) -> float:
        """Count one call of a key and return the wait."""
        with self._lock:
            now = self._clock()
            tokens, then = self._buckets.pop(key, (self._rate.burst, now))
            tokens = min(self._rate.burst, tokens + (now - then) * self._rate.per_second)
            allowed = tokens >= 1
            self._buckets[key] = (tokens - 1 if allowed else tokens, now)
            if len(self._buckets) > self._max_keys:
                self._buckets.popitem(last=False)
            return 0.0 if allowed else (1 - tokens) / self._rate.per_second

    def __len__(self) -> int:
        """Return the number of keys remembered."""
        return len(self._buckets)


SECRET_BYTES = 32
MIN_ADMIN_TOKEN_CHARACTERS = 16
# Where the secrets of a served study lie, inside its folder.
SERVER_FOLDER = "server"

_SIGNATURE_BYTES = 18
_SUBJECT = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Left out: letters and digits that are easily taken for each other.
_CODE_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


class Signer:
    """Sign and verify the tokens of links. `secret`: at least 32 random bytes that never leave the server."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < SECRET_BYTES:
            raise ConfigError(f"the secret has {len(secret)} bytes; give at least {SECRET_BYTES}")
        self._secret = secret

    def token(self, purpose: str, subject: str) -> str:
        """Sign a subject for one purpose. `subject`: up to 64 letters, digits, `_` and `-`."""
        if not _SUBJECT.fullmatch(subject):
            raise ConfigError(f"cannot sign {subject!r}; allowed are 1 to 64 letters, digits, '_' and '-'")
        return f"{subject}.{self.digest(purpose, subject)}"

    def subject(self, purpose: str, token: str) -> str | None:
        """Read a token. Returns the subject, or None if the token was not made here for this purpose."""
        subject, _, signature = token.partition(".")
        if not _SUBJECT.fullmatch(subject) or not signature.isascii():
            return None
        return subject if hmac.compare_digest(signature, self.digest(purpose, subject)) else None

    def digest(self, purpose: str, subject: str) -> str:
        """Return the signature of a subject, as 24 characters fit for a URL."""
        mac = hmac.new(self._secret, f"{purpose}\0{subject}".encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(mac[:_SIGNATURE_BYTES]).decode()

    def code(self, purpose: str, subject: str, length: int = 8) -> str:
        """Return a short code that people can read aloud. `length`: its characters, at most 32."""
        mac = hmac.new(self._secret, f"{purpose}\0{subject}".encode(), hashlib.sha256).digest()
        return "".join(_CODE_ALPHABET[byte % len(_CODE_ALPHABET)] for byte in mac[:length])


@dataclass(frozen=True)
class ServerSecrets:
    """The secrets of one served study: the key of its links and the token of its administrator."""

    signing: bytes
    admin_token: str


def read_or_make_secrets(study_dir: Path, admin_token: str | None = None) -> ServerSecrets:
    """Read the secrets of a study, creating them on first use."""
    if admin_token is not None and len(admin_token) < MIN_ADMIN_TOKEN_CHARACTERS:
        raise ConfigError(
            f"the admin token has {len(admin_token)} characters; give at least {MIN_ADMIN_TOKEN_CHARACTERS}, "
            "or leave it out to have one made"
        )
    folder = study_dir / SERVER_FOLDER
    text = _read_or_make(folder / "signing_key", base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).decode())
    try:
        signing = base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f"{folder / 'signing_key'} is damaged; delete it to make all links anew") from error
    Signer(signing)
    token = admin_token or _read_or_make(folder / "admin_token", secrets.token_urlsafe(24))
    return ServerSecrets(signing, token)


def _read_or_make(path: Path, value: str) -> str:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_text(encoding="utf-8").strip()
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(value + "\n")
    except OSError as error:
        raise OutputError(f"cannot keep the secrets of the study in {path}: {error.strerror}") from error
    return value
