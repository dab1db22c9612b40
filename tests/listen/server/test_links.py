"""Links are good for whom and what they were made for, and for nothing else."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.errors import ConfigError, OutputError
from polyres.listen.server.links import Signer, read_or_make_secrets

SIGNER = Signer(b"s" * 32)


@given(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True))
def test_a_token_gives_back_its_subject_for_its_purpose_alone(subject: str) -> None:
    token = SIGNER.token("listener", subject)
    assert SIGNER.subject("listener", token) == subject
    assert SIGNER.subject("admin", token) is None
    assert Signer(b"t" * 32).subject("listener", token) is None


@given(st.text(max_size=80))
def test_a_made_up_token_is_refused(token: str) -> None:
    assert SIGNER.subject("listener", token) is None
    assert SIGNER.subject("listener", f"abc.{token}") is None


@given(st.integers(0, 40), st.sampled_from("abcXYZ019_-"))
def test_a_changed_token_is_refused(place: int, letter: str) -> None:
    token = SIGNER.token("listener", "someone")
    place %= len(token)
    changed = token[:place] + letter + token[place + 1 :]
    assert (SIGNER.subject("listener", changed) == "someone") == (changed == token)


def test_codes_differ_between_listeners_and_can_be_read_aloud() -> None:
    codes = {SIGNER.code("completion", f"listener{n}") for n in range(500)}
    assert len(codes) == 500
    assert all(len(code) == 8 and not set(code) & set("IO01") and code == code.upper() for code in codes)


def test_short_secrets_and_odd_subjects_are_refused() -> None:
    with pytest.raises(ConfigError, match="the secret has 3 bytes; give at least 32"):
        Signer(b"abc")
    for subject in ("", "a.b", "x" * 65, "ü"):
        with pytest.raises(ConfigError, match="cannot sign"):
            SIGNER.token("listener", subject)


def test_secrets_are_made_once_and_kept_from_others(tmp_path: Path) -> None:
    first = read_or_make_secrets(tmp_path)
    assert read_or_make_secrets(tmp_path) == first
    assert read_or_make_secrets(tmp_path / "other") != first
    for name in ("signing_key", "admin_token"):
        assert stat.S_IMODE((tmp_path / "server" / name).stat().st_mode) == 0o600
    given_token = read_or_make_secrets(tmp_path, "a-token-of-my-own-choice")
    assert (given_token.signing, given_token.admin_token) == (first.signing, "a-token-of-my-own-choice")
    assert read_or_make_secrets(tmp_path) == first


def test_unusable_secrets_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the admin token has 6 characters; give at least 16"):
        read_or_make_secrets(tmp_path, "secret")
    read_or_make_secrets(tmp_path)
    (tmp_path / "server" / "signing_key").write_text("!!!")
    with pytest.raises(ConfigError, match="signing_key is damaged"):
        read_or_make_secrets(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot keep the secrets"):
        read_or_make_secrets(tmp_path / "file")
