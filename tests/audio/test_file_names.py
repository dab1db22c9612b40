from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyres.audio.file_names import safe_name, shorten_name, shown


@given(st.text(max_size=400))
def test_any_text_gives_a_name_that_can_be_made(text: str):
    name = safe_name(text)
    assert 0 < len(name.encode()) <= 255
    assert not set(name) & set('<>:"/\\|?*\0\n')
    assert name[-1] not in ". " or name == "_"
    assert safe_name(name) == name


def test_the_system_takes_the_longest_name(tmp_path: Path):
    for text in ("a" * 999, "日本語の長い名前" * 40, "🎵" * 200, "e\u0301" * 300):
        path = tmp_path / safe_name(text)
        path.write_text("x")
        assert path.exists()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Song", "Song"),
        ("AC/DC: Live?", "AC_DC_ Live_"),
        ("..", "_"),
        ("", "_"),
        ("trailing. . ", "trailing"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("console", "console"),
        ("Ünïcödé 日本 🎵", "Ünïcödé 日本 🎵"),
        ("bad\udce9byte", "bad_byte"),
        (".hidden", ".hidden"),
    ],
)
def test_known_names(text: str, name: str):
    assert safe_name(text) == name


def test_long_names_keep_their_extension_and_stay_apart():
    one, other = safe_name("x" * 300 + "1.flac"), safe_name("x" * 300 + "2.flac")
    assert one != other
    assert one.endswith(".flac")
    assert one.startswith("x" * 230)
    assert safe_name("y" * 300 + ".stem.mp4").endswith(".stem.mp4")
    assert "~" in safe_name("no extension. " + "z " * 200)


@given(st.text(alphabet="aé日🎵\u0301", min_size=10, max_size=300), st.integers(32, 80))
def test_characters_stay_whole(text: str, max_bytes: int):
    short = shorten_name(text, max_bytes)
    assert len(short.encode()) <= max_bytes
    if short != text:
        head, _, _ = short.rpartition("~")
        assert text.startswith(head)
        following = text[len(head)]
        assert not unicodedata.combining(following) or not head


def test_shown_is_one_line():
    assert shown("a\nb\tc\x1b[1m") == "a?b?c?[1m"
    assert shown(Path("söng 日本.wav")) == "söng 日本.wav"
