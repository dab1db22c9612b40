"""Open sound files safely: decide by content, and never follow references to another file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import av
import soundfile

from polyres.audio import headers
from polyres.audio.file_names import shown
from polyres.core.errors import InputError
from polyres.core.process import called_from_c

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

RATES_HZ = (1_000, 6_000_000)
"""Sample rates that are believed: from below the telephone's up to DSD1024 as PCM."""
MAX_CHANNELS = 256

_OPTIONS = {
    "format_whitelist": FORMATS,
    # FFmpeg reads through Python, so it needs no protocol, and has none for what a file names besides itself.
    "protocol_whitelist": "none",
    "enable_drefs": "0",
    # It decodes a cover or the first picture of a film to learn its format; a small file can hold a huge one.
    "max_pixels": str(1 << 24),
}
_LOOK_BYTES = 4096
_ELSEWHERE = {
    b"#extm3u": "an M3U or HLS playlist",
    b"ffconcat": "a concat script",
    b"[playlist]": "a PLS playlist",
    b"[reference]": "an ASX playlist",
    b"v=0": "an SDP session",
    b"rtsptext": "an RTSP address",
    b"rtsp:": "an address",
    b"http:": "an address",
    b"https:": "an address",
    b"file:": "an address",
    b"<mpd": "a DASH manifest",
    b"<smoothstreamingmedia": "a Smooth Streaming manifest",
    b"<smil": "a SMIL playlist",
    b"<asx": "an ASX playlist",
    b"<playlist": "an XSPF playlist",
    b"<assetmap": "an IMF asset map",
    b"<compositionplaylist": "an IMF playlist",
}


@contextmanager
def open_container(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a sound or video file with FFmpeg's libraries, which see this one file and can open no other.

    Yields:
        The container, open for as long as the context lasts.

    Raises:
        InputError: As `check_file`; or what the file holds is not one of `FORMATS`.
        av.FFmpegError: It is damaged.
    """
    head = check_file(path)
    try:
        with _Source(path) as file, _opened(file, path, head) as container:
            yield container
    except OSError as error:
        if isinstance(error, av.FFmpegError):
            raise
        raise InputError(f"{shown(path)} cannot be read on ({error.strerror}); copy it again") from error


def _opened(file: _Source, path: Path, head: bytes) -> av.container.InputContainer:
    # A short MP3 file looks like other things to FFmpeg, so what surely is one is opened as such.
    kind = "mp3" if headers.mp3_states_length(path) else None
    options = {**_OPTIONS, "ignore_length": str(int(headers.is_unsized_rf64(head)))}
    try:
        return av.open(file, "r", format=kind, metadata_errors="replace", options=options)
    except av.ArgumentError as error:
        raise InputError(
            f"{shown(path)} cannot be read as audio (not of a kind that is opened, or broken in its header); "
            "convert it to wav or flac"
        ) from error


class _Source(io.FileIO):
    """A file as FFmpeg sees it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        # The ending helps where the tags before the sound are longer than what FFmpeg looks at.
        self.name = f"sound{path.suffix}"

    @called_from_c
    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to where a header may have sent FFmpeg; where that is no place, answer as C does."""
        try:
            return super().seek(offset, whence)
        except (OSError, OverflowError):
            return -1


def new_container(file: BinaryIO, container: str, options: Mapping[str, str]) -> av.container.OutputContainer:
    """Begin a file with FFmpeg's libraries."""
    return av.open(file, "w", format=container, options=dict(options))


def open_sound(path: Path) -> soundfile.SoundFile:
    """Open a file with libsndfile.

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
    """Return the first bytes of a file, or raise why it is not opened."""
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
            head = file.read(_LOOK_BYTES) if size_bytes else b""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{shown(path)} cannot be opened ({reason}); check its name and permissions") from error
    if not head:
        raise InputError(f"{shown(path)} is empty (0 bytes); give a file with audio")
    kind = _elsewhere(head)
    if kind:
        raise InputError(f"{shown(path)} is {kind}, which points to other files; give the sound itself")
    return head[: headers.HEAD_BYTES]


def check_facts(path: Path, sample_rate_hz: int, channels: int) -> None:
    """Refuse implausible rates and channels: a few bytes at 1 Hz would be hours of sound.

    Args:
        sample_rate_hz: What it says of its rate, in Hz.
        channels: What it says of its channels.

    Raises:
        InputError: One of the two is out of range.
    """
    low_hz, high_hz = RATES_HZ
    if not low_hz <= sample_rate_hz <= high_hz:
        raise InputError(
            f"{shown(path)} states a sample rate of {sample_rate_hz} Hz, {low_hz} to {high_hz} are read; "
            "give it the right rate"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputError(f"{shown(path)} has {channels} channels, at most {MAX_CHANNELS} are read; split it")


def _elsewhere(head: bytes) -> str | None:
    """Name the kind of a text that points to other files; None for everything else."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    is_xml = text.startswith(b"<")
    for mark, kind in _ELSEWHERE.items():
        if text.startswith(mark) or (is_xml and mark.startswith(b"<") and mark in text):
            return kind
    return None
