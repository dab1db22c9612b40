"""Tags such as title and artist: read from any input, written to every output format."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import av
from mutagen import id3
from mutagen.flac import FLAC
from mutagen.mp4 import MP4
from mutagen.oggopus import OggOpus
from mutagen.oggvorbis import OggVorbis

from polyres.audio.opening import open_container
from polyres.core.errors import InputError

# Only what describes the music: loudness and encoder facts of a mixture would be wrong on its stems.
_ID3_FRAMES = {
    "title": id3.TIT2,
    "artist": id3.TPE1,
    "album": id3.TALB,
    "albumartist": id3.TPE2,
    "composer": id3.TCOM,
    "date": id3.TDRC,
    "genre": id3.TCON,
    "track": id3.TRCK,
    "disc": id3.TPOS,
    "copyright": id3.TCOP,
    "comment": id3.COMM,
}
_MP4_ATOMS = {
    "title": "\xa9nam",
    "artist": "\xa9ART",
    "album": "\xa9alb",
    "albumartist": "aART",
    "composer": "\xa9wrt",
    "date": "\xa9day",
    "genre": "\xa9gen",
    "track": "trkn",
    "disc": "disk",
    "copyright": "cprt",
    "comment": "\xa9cmt",
}
_INFO_CHUNKS = {
    "title": b"INAM",
    "artist": b"IART",
    "album": b"IPRD",
    "date": b"ICRD",
    "genre": b"IGNR",
    "track": b"ITRK",
    "copyright": b"ICOP",
    "comment": b"ICMT",
}
_VORBIS_NAMES = {"track": "tracknumber", "disc": "discnumber"}
_ALIASES = {
    "album_artist": "albumartist",
    "tracknumber": "track",
    "discnumber": "disc",
    "year": "date",
    "description": "comment",
}

# iTunes puts volume and gapless data into comments, which players would take for those of the stem.
_ITUNES_DATA = re.compile(r"([0-9A-Fa-f]{8,16}\s*){8,}")

TAG_NAMES = tuple(_ID3_FRAMES)


def read_tags(path: Path) -> dict[str, str]:
    """Read the tags of an audio or video file."""
    try:
        with open_container(path) as container:
            found = dict(container.metadata)
            for stream in container.streams.audio[:1]:
                found = {**stream.metadata, **found}  # Ogg keeps its tags with the stream
    except (av.FFmpegError, InputError, OSError, ValueError, RuntimeError):
        return {}
    return clean_tags(found)


def clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Bring tag names to those of `TAG_NAMES`, in their order; drop the unknown and the empty."""
    known: dict[str, str] = {}
    for name, value in tags.items():
        plain = name.lower()
        plain = _ALIASES.get(plain, plain)
        text = value.strip(" \0\t\r\n")
        if plain in _ID3_FRAMES and text and not _ITUNES_DATA.fullmatch(text):
            known.setdefault(plain, text)
    return {name: known[name] for name in TAG_NAMES if name in known}


def write_tags(path: Path, audio_format: str, tags: Mapping[str, str]) -> None:
    """Write tags into a finished file."""
    known = clean_tags(tags)
    if not known:
        return
    if audio_format == "mp3":
        _id3(known).save(path)
    elif audio_format == "m4a":
        _write_mp4(path, known)
    else:
        kinds: dict[str, type[FLAC] | type[OggVorbis] | type[OggOpus]] = {
            "flac": FLAC,
            "ogg": OggVorbis,
            "opus": OggOpus,
        }
        file = kinds[audio_format](path)
        for name, value in known.items():
            file[_VORBIS_NAMES.get(name, name)] = [value]
        file.save()


def wav_tag_chunks(tags: Mapping[str, str]) -> bytes:
    """Return the chunks that carry tags at the end of a WAV file: `LIST` for old readers, `id3 ` with everything."""
    known = clean_tags(tags)
    if not known:
        return b""
    info = b"INFO"
    for name, chunk in _INFO_CHUNKS.items():
        if name in known:
            info += _chunk(chunk, known[name].encode("utf-8", "replace") + b"\0")
    buffer = BytesIO()
    _id3(known).save(buffer, padding=lambda _: 0)
    return _chunk(b"LIST", info) + _chunk(b"id3 ", buffer.getvalue())


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _id3(tags: Mapping[str, str]) -> id3.ID3:
    """Build ID3v2.4 tags."""
    frames = id3.ID3()
    for name, value in tags.items():
        if name == "comment":
            frames.add(id3.COMM(encoding=id3.Encoding.UTF8, lang="eng", desc="", text=[value]))
        else:
            frames.add(_ID3_FRAMES[name](encoding=id3.Encoding.UTF8, text=[value]))
    return frames


def _write_mp4(path: Path, tags: Mapping[str, str]) -> None:
    """Write the atoms of iTunes; track and disc hold numbers there, so other texts are left out."""
    file = MP4(path)
    for name, value in tags.items():
        if name in ("track", "disc"):
            numbers = re.match(r"(\d{1,4})(?:\s*/\s*(\d{1,4}))?", value)
            if numbers:
                file[_MP4_ATOMS[name]] = [(int(numbers[1]), int(numbers[2] or 0))]
        else:
            file[_MP4_ATOMS[name]] = [value]
    file.save()
