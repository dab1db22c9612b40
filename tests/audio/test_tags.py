from __future__ import annotations

from pathlib import Path

import mutagen
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutagen import id3

from polyres.audio.tags import TAG_NAMES, clean_tags, read_tags, wav_tag_chunks, write_tags
from polyres.audio.writer import FORMATS, AudioWriter, WriteSpec
from tests.audio.sound_files import sound, write_media

FULL = {
    "title": "Fünf Träume – 日本語 🎵",
    "artist": "Ana & Bo",
    "album": "Everything; and more",
    "albumartist": "Various Artists",
    "composer": "C. O. Mposer",
    "date": "2021-05-04",
    "genre": "Drum & Bass",
    "track": "3/12",
    "disc": "1/2",
    "copyright": "© 2021",
    "comment": "first line\nsecond line = with: signs",
}
LETTERS = st.characters(exclude_categories=["Cs", "Cc", "Cn", "Zl", "Zp", "Zs"], exclude_characters=";/\ufeff")


def written(folder: Path, audio_format: str, tags: dict[str, str]) -> Path:
    path = folder / f"a.{audio_format}"
    with AudioWriter(path, WriteSpec(48000, 2, audio_format, 16, tags)) as writer:
        writer.write(sound(3000, 2, 48000))
    return path


@pytest.mark.parametrize("audio_format", FORMATS)
def test_all_tags_survive_in_every_format(tmp_path: Path, audio_format: str):
    assert tuple(FULL) == TAG_NAMES
    assert read_tags(written(tmp_path, audio_format, FULL)) == FULL


@pytest.mark.parametrize("audio_format", FORMATS)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(LETTERS, min_size=1, max_size=40), st.text(LETTERS, max_size=600))
def test_any_text_survives(tmp_path: Path, audio_format: str, title: str, comment: str):
    wanted = clean_tags({"title": title, "comment": comment})
    assert read_tags(written(tmp_path, audio_format, wanted)) == wanted


@pytest.mark.parametrize("audio_format", FORMATS)
def test_no_tags_leave_no_trace(tmp_path: Path, audio_format: str):
    path = written(tmp_path, audio_format, {})
    assert read_tags(path) == {}
    assert read_tags(written(tmp_path, audio_format, {"replaygain_track_gain": "-3 dB", "title": "  "})) == {}


def test_other_programs_read_them_too(tmp_path: Path):
    for audio_format in ("flac", "ogg", "opus"):
        file = mutagen.File(written(tmp_path, audio_format, FULL))
        assert file["title"] == [FULL["title"]]
        assert file["tracknumber"] == ["3/12"]
    assert mutagen.File(written(tmp_path, "m4a", FULL))["trkn"] == [(3, 12)]
    for audio_format in ("mp3", "wav"):
        frames = mutagen.File(written(tmp_path, audio_format, FULL)).tags
        assert frames["TPE1"].text == ["Ana & Bo"]
        assert frames.version == (2, 4, 0)


def test_wav_has_info_for_old_readers():
    chunks = wav_tag_chunks(FULL)
    assert chunks.startswith(b"LIST")
    assert b"IART\x09\0\0\0Ana & Bo\0\0" in chunks
    assert len(chunks) % 2 == 0
    assert wav_tag_chunks({}) == wav_tag_chunks({"encoder": "x"}) == b""


def test_names_of_other_programs():
    foreign = {
        "ALBUM_ARTIST": "a",
        "TRACKNUMBER": "7",
        "YEAR": "1999",
        "Description": "c\0",
        "encoder": "x",
        "TITLE": "",
    }
    assert clean_tags(foreign) == {"albumartist": "a", "date": "1999", "track": "7", "comment": "c"}


def test_gapless_data_is_no_comment():
    data = " 00000000 00000210 0000086C 0000000000760804 00000000 005592F1 00000000 00000000 00000000 00000000"
    assert clean_tags({"comment": data, "title": "12345678"}) == {"title": "12345678"}


@pytest.mark.parametrize(("name", "codec"), [("a.wma", "wmav2"), ("a.mkv", "aac"), ("a.mp4", "aac"), ("a.avi", "aac")])
def test_tags_of_other_containers(tmp_path: Path, name: str, codec: str):
    path = write_media(tmp_path / name, codec, [sound(5000)], tags={"title": "Lied", "artist": "Künstler", "x": "y"})
    assert read_tags(path) == {"title": "Lied", "artist": "Künstler"}


def test_mp4_numbers_that_are_none_are_left_out(tmp_path: Path):
    assert read_tags(written(tmp_path, "m4a", {"track": "A3", "disc": "2"})) == {"disc": "2"}


def test_old_encodings(tmp_path: Path):
    path = written(tmp_path, "mp3", {})
    frames = id3.ID3()
    frames.add(id3.TIT2(encoding=id3.Encoding.LATIN1, text=["Grün"]))
    frames.add(id3.TDRC(encoding=id3.Encoding.LATIN1, text=["1987"]))
    frames.save(path, v2_version=3)
    assert read_tags(path) == {"title": "Grün", "date": "1987"}


def test_no_audio_has_no_tags(tmp_path: Path):
    (tmp_path / "a.txt").write_text("words")
    assert read_tags(tmp_path / "a.txt") == {}
    assert read_tags(tmp_path / "gone.mp3") == {}
    with pytest.raises(mutagen.MutagenError):
        write_tags(tmp_path / "a.txt", "flac", FULL)
