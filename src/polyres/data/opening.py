"""The one door for sound files: what may be opened is decided here, by content, and nothing leads to another file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import av
import soundfile

from polyres.core.errors import InputError
from polyres.data import headers
from polyres.data.names import shown

FORMATS = (
    "aac,ac3,ac4,aiff,amr,amrnb,amrwb,ape,apac,asf,au,av1,avi,bonk,caf,dts,dtshd,dv,eac3,evc,flac,flv,gxf,h264,hevc,"
    "iamf,iff,ilbc,ircam,ivf,laf,latm,lc3,loas,matroska,mlp,mov,mp3,mpc,mpc8,mpeg,mpegts,mpegvideo,mxf,nistsphere,nsv,"
    "nut,obu,ogg,oma,osq,paf,pvf,qcp,qoa,rka,rm,s337m,sbc,sds,shn,siff,smjpeg,sox,spdif,swf,tak,truehd,tta,ty,usm,"
    "vivo,voc,vqf,w64,wav,wavarc,webm,wsd,wtv,wv,xwma,"
    "aa,aax,act,aea,codec2,dsf,dss,g729,gsm,hcom,sln,wve,"
    "ace,adp,ads,adx,afc,aix,ast,avr,bfstm,bink,binka,boa,brstm,dcstr,fsb,fwse,genh,hca,kvag,mca,mmf,msf,mtaf,musx,"
    "nsp,rsd,rso,sdns,sdr2,smk,svag,svs,thp,txd,vag,vpk,wady,xa,xvag"
)
"""FFmpeg's demuxers that are used, for music and film, for speech, and from games: each holds its sound itself. Left
out are playlists, scripts, devices, network sessions, subtitles, pictures, and raw data."""

_NO_PROTOCOL = "none"


@contextmanager
def open_container(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a sound or video file with FFmpeg's libraries, which see this one file and can open no other.

    Args:
        path: The file.

    Yields:
        The container, open for as long as the context lasts.

    Raises:
        InputError: As `check_file`; or what the file holds is not one of `FORMATS`.
        av.FFmpegError: It is damaged.
    """
    check_file(path)
    with io.FileIO(path) as file:
        # FFmpeg reads through Python, so it needs no protocol and gets none. Of the name it sees the ending, which
        # helps where the tags before the sound are longer than what it looks at.
        file.name = f"sound{path.suffix}"
        try:
            container = av.open(
                file,
                # A short MP3 file looks like other things to FFmpeg, so what surely is one is opened as such.
                format="mp3" if headers.mp3_states_length(path) else None,
                metadata_errors="replace",
                options={"protocol_whitelist": _NO_PROTOCOL, "format_whitelist": FORMATS},
            )
        except av.ArgumentError as error:
            raise InputError(
                f"{shown(path)} cannot be read as audio (not of a kind that is opened, or broken in its header); "
                "convert it to wav or flac"
            ) from error
        with container:
            yield cast(av.container.InputContainer, container)


def new_container(file: BinaryIO, container: str, options: Mapping[str, str]) -> av.container.OutputContainer:
    """Begin a file with FFmpeg's libraries.

    Args:
        file: Where its bytes go.
        container: FFmpeg's name of the format.
        options: FFmpeg's options.
    """
    return av.open(file, "w", format=container, options=dict(options))


def open_sound(path: Path) -> soundfile.SoundFile:
    """Open a file with libsndfile.

    Args:
        path: The file.

    Raises:
        InputError: As `check_file`; or it does not begin as WAV, W64, AIFF, AU, CAF, FLAC, Ogg or MP3 do.
        soundfile.SoundFileError: It is damaged.
    """
    head = check_file(path)
    is_mp3 = head[:3] == b"ID3" or (head[0] == 0xFF and head[1:2] >= b"\xe0")
    # Beside a file of no kind that it knows, libsndfile would look for a resource fork, which is another file.
    if not (headers.sniff(head) or head[:4] == b"OggS" or is_mp3):
        raise InputError(
            f"{shown(path)} cannot be read as audio (not wav, flac, aiff, ogg or mp3); convert it to wav or flac"
        )
    return soundfile.SoundFile(str(path) if os.name == "nt" else os.fsencode(path))


def check_file(path: Path) -> bytes:
    """Return the first bytes of a file, or say why it is not opened.

    Args:
        path: The file.

    Returns:
        Its first `headers.HEAD_BYTES` bytes.

    Raises:
        InputError: Missing, a folder, no ordinary file, empty, or not readable.
    """
    try:
        if path.is_dir():
            raise InputError(f"{shown(path)} is a folder; give an audio file in it")
        if not path.exists():
            raise InputError(f"{shown(path)} does not exist; check the path")
        if not path.is_file():
            raise InputError(f"{shown(path)} is no ordinary file; give an audio file")
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            # Files that the system makes up are said to be empty, and reading one may wait for ever.
            head = file.read(headers.HEAD_BYTES) if size_bytes else b""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{shown(path)} cannot be opened ({reason}); check its name and permissions") from error
    if not head:
        raise InputError(f"{shown(path)} is empty (0 bytes); give a file with audio")
    return head
