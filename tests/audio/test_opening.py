from __future__ import annotations

import contextlib
import os
import socket
import struct
import tracemalloc
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from mutagen.id3 import APIC, ID3

from polyres.audio import opening
from polyres.audio.files import AudioReader, probe, read_audio
from polyres.audio.opening import open_container, open_sound
from polyres.audio.tags import read_tags
from polyres.cli.main import main
from polyres.core.errors import InputError
from polyres.datasets.collections import StemStreamReader
from tests.audio.sound_files import sound, write_media

LIST = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{url}\n"
ELSEWHERE = {
    "live": (LIST, "an M3U or HLS playlist"),
    "ended": (LIST + "#EXT-X-ENDLIST\n", "an M3U or HLS playlist"),
    "marked": ("\ufeff\r\n" + LIST, "an M3U or HLS playlist"),
    "concat": ("ffconcat version 1.0\nfile {url}\n", "a concat script"),
    "pls": ("[playlist]\nFile1={url}\n", "a PLS playlist"),
    "asx": ("<ASX version='3.0'><Entry><Ref href='{url}'/></Entry></ASX>", "an ASX playlist"),
    "dash": (
        "<?xml version='1.0'?>\n<MPD xmlns='urn:mpeg:dash:schema:mpd:2011' profiles='urn:mpeg:dash:profile:isoff-on-"
        "demand:2011'><Period><AdaptationSet><Representation><BaseURL>{url}</BaseURL></Representation>"
        "</AdaptationSet></Period></MPD>",
        "a DASH manifest",
    ),
    "smil": ("<smil><body><audio src='{url}'/></body></smil>", "a SMIL playlist"),
    "sdp": (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "an SDP session",
    ),
    "rtsp": ("RTSPtext\nrtsp://127.0.0.1/a\n", "an RTSP address"),
    "address": ("{url}", "an address"),
}


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_media(tmp_path_factory.mktemp("home") / "secret.mp3", "libmp3lame", [sound(44100)])


@pytest.mark.parametrize("kind", ELSEWHERE)
@pytest.mark.parametrize("ending", ["m3u8", "wav", "mp3", "txt", "stem.mp4"])
def test_what_points_to_other_files_is_refused_whatever_its_name(
    tmp_path: Path, secret: Path, kind: str, ending: str
) -> None:
    text, named = ELSEWHERE[kind]
    path = tmp_path / f"a.{ending}"
    path.write_text(text.format(url=secret.as_uri()), encoding="utf-8")
    message = rf"a\.{ending} is {named}, which points to other files; give the sound itself"
    for call in (probe, read_audio, AudioReader, open_sound, lambda one: StemStreamReader(one, 0)):
        with pytest.raises(InputError, match=message):
            call(path)
    assert read_tags(path) == {}


@pytest.mark.parametrize("kind", ["live", "ended", "concat"])
def test_ffmpeg_itself_has_no_way_out_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    # What the wording above does not know must fail as well: FFmpeg alone, with every demuxer, reaches no one.
    monkeypatch.setattr(opening, "_ELSEWHERE", {})
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        path = tmp_path / "a.m3u8"
        path.write_text(ELSEWHERE[kind][0].format(url=f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"))
        with pytest.raises(InputError, match="not of a kind that is opened"), open_container(path):
            pass
        monkeypatch.delitem(opening._OPTIONS, "format_whitelist")
        with pytest.raises((InputError, av.FFmpegError)), open_container(path):
            pass
        with pytest.raises(TimeoutError):
            server.accept()


def film_with_sound_elsewhere(path: Path, secret: Path) -> Path:
    """A QuickTime film whose data reference is an alias of another file."""
    content = write_media(path, "pcm_s16le", [sound(9000)]).read_bytes()
    name = os.fsencode(secret)
    alias = bytes(10) + b"\x04home" + bytes(23 + 4) + b"\x0asecret.mp3" + bytes(53) + bytes(4 + 2 + 2 + 10 + 6)
    alias = struct.pack(">4xHH", 150 + 4 + len(name) + len(name) % 2, 2) + bytes(150 - 8)
    alias += struct.pack(">HH", 2, len(name)) + name + bytes(len(name) % 2) + struct.pack(">HH", 0xFFFF, 0)
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    at = content.index(b"dref") - 4
    size = struct.unpack(">I", content[at : at + 4])[0]
    new = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    changed = bytearray(content[:at] + new + content[at + size :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        place = changed.index(box, changed.index(b"moov")) - 4
        if box == b"minf":  # the media's own, behind which the references lie
            place = changed.rindex(box, 0, at) - 4
        old = struct.unpack(">I", changed[place : place + 4])[0]
        changed[place : place + 4] = struct.pack(">I", old + len(new) - size)
    path.write_bytes(changed)
    return path


def test_a_film_whose_sound_lies_in_another_file_gives_none_of_it(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film_with_sound_elsewhere(tmp_path / "a.mov", secret)
    with av.open(str(path), options={"enable_drefs": "1", "use_absolute_path": "1"}) as container:
        assert sum(packet.size for packet in container.demux(audio=0)) > 10_000  # the alias does lead there
    # Either of the two walls would do.
    for change in ({}, {"protocol_whitelist": "file"}, {"enable_drefs": "1", "use_absolute_path": "1"}):
        monkeypatch.setattr(opening, "_OPTIONS", opening._OPTIONS | change)
        with pytest.raises(InputError, match=r"a\.mov cannot be read as audio"):
            read_audio(path)
        monkeypatch.undo()


def test_open_container_takes_names_that_look_like_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_media(tmp_path / "x.mp3", "libmp3lame", [sound(3000)]).rename(tmp_path / "http:x.mp3")
    monkeypatch.chdir(tmp_path)
    with open_container(Path("http:x.mp3")) as container:
        assert container.format.name == "mp3"


def test_every_format_that_is_opened_is_one_of_ffmpegs() -> None:
    names = opening.FORMATS.split(",")
    assert len(set(names)) == len(names)
    assert not set(names) & {
        "concat",
        "dash",
        "hls",
        "image2",
        "imf",
        "lavfi",
        "rtp",
        "rtsp",
        "sap",
        "sdp",
        "tedcaptions",
        "vobsub",
    }
    assert {"wav", "mp3", "mov", "matroska", "ogg", "mpegts", "wv"} < set(names) & av.formats_available


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
@pytest.mark.parametrize("call", [probe, open_sound, lambda one: StemStreamReader(one, 0), open_container])
def test_special_files_are_refused_and_never_waited_for(tmp_path: Path, call) -> None:
    os.mkfifo(tmp_path / "a.wav")
    (tmp_path / "link.wav").symlink_to(tmp_path / "a.wav")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.wav"))
        for path in (
            tmp_path / "a.wav",
            tmp_path / "link.wav",
            tmp_path / "s.wav",
            Path("/dev/zero"),
            Path("/dev/tty"),
        ):
            with pytest.raises(InputError, match=r"is no ordinary file|does not exist"), entered(call(path)):
                pass
    with pytest.raises(InputError, match="is a folder"), entered(call(tmp_path)):
        pass
    if Path("/proc/kmsg").exists():  # ordinary and 0 bytes long, it says
        with pytest.raises(InputError, match=r"is empty|cannot be opened"), entered(call(Path("/proc/kmsg"))):
            pass


def entered(opened):
    return opened if hasattr(opened, "__enter__") else contextlib.nullcontext()


def test_no_resource_fork_is_looked_for(tmp_path: Path) -> None:
    # Beside a.sd2 libsndfile opens ._a.sd2, which says how to read it.
    soundfile.write(tmp_path / "a.sd2", np.zeros((100, 2)), 44100, format="SD2", subtype="PCM_16")
    assert (tmp_path / "._a.sd2").exists()
    assert soundfile.info(str(tmp_path / "a.sd2")).samplerate == 44100
    for call in (open_sound, probe):
        with pytest.raises(InputError, match=r"a\.sd2 cannot be read as audio"):
            call(tmp_path / "a.sd2")


def wav(rate_hz: int, channels: int, content: bytes = bytes(4096), stated: int | None = None) -> bytes:
    """A 16-bit WAV file with whatever its header says."""
    align = 2 * channels
    head = struct.pack("<IHHIIHH", 16, 1, channels, rate_hz, rate_hz * align & 0xFFFFFFFF, align & 0xFFFF, 16)
    size = len(content) if stated is None else stated
    return (
        b"RIFF"
        + struct.pack("<I", min(36 + size, 2**32 - 1))
        + b"WAVEfmt "
        + head
        + b"data"
        + (struct.pack("<I", size) + content)
    )


def caf(rate_hz: float, stated: int) -> bytes:
    head = b"caff\0\1\0\0desc" + struct.pack(">Qd4sIIIII", 32, rate_hz, b"lpcm", 2, 4, 1, 2, 16)
    return head + b"data" + struct.pack(">qI", stated, 0) + bytes(4000)


BOLD = {
    "1e9 Hz": (wav(10**9, 2), "states a sample rate of 1000000000 Hz, 1000 to 6000000 are read"),
    "1 Hz": (wav(1, 1), "states a sample rate of 1 Hz"),
    "1e300 Hz": (caf(1e300, 4004), "states a sample rate of"),
    "1024 channels": (wav(44100, 1024), "has 1024 channels, at most 256 are read"),
    "32000 channels": (wav(44100, 32000), "cannot be read as audio"),
    "2^62 bytes": (caf(44100.0, 2**62), 1000),
    "4 GB": (wav(44100, 2, stated=0xFFFFFFF0), 1024),
}


@pytest.mark.parametrize("kind", BOLD)
def test_what_a_header_claims_takes_no_memory(tmp_path: Path, kind: str) -> None:
    content, outcome = BOLD[kind]
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        if isinstance(outcome, int):
            assert read_audio(path)[0].shape == (2, outcome)
        else:
            with pytest.raises(InputError, match=outcome):
                read_audio(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20  # numpy's arrays count
    finally:
        tracemalloc.stop()


def test_a_cover_of_gigantic_size_is_not_unpacked(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp3", "libmp3lame", [sound(3000)])
    for side, unpacked in ((64, True), (5000, False)):
        size = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        parts = [(b"IHDR", size), (b"IDAT", zlib.compress(bytes((1 + side) * side), 1)), (b"IEND", b"")]
        chunks = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts]
        tags = ID3()
        tags.add(APIC(mime="image/png", data=b"\x89PNG\r\n\x1a\n" + b"".join(chunks)))
        tags.save(path)
        with open_container(path) as container:
            assert (container.streams.video[0].format is not None) == unpacked
        assert read_audio(path)[0].shape == (2, 3000)


def test_a_disk_that_fails_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_media(tmp_path / "a.mka", "aac", [sound(60_000)])

    def read(self: opening._Source, size: int = -1, /) -> bytes:
        raise OSError(5, "Input/output error")

    with open_container(path):
        monkeypatch.setattr(opening._Source, "read", read)
    with pytest.raises(InputError, match=r"a\.mka cannot be read on \(Input/output error\)"):
        read_audio(path)


@pytest.mark.parametrize(
    "command",
    [
        ["separate", "SONG", "--out", "OUT"],
        ["encode", "SONG", "--out", "OUT"],
        ["reconstruct", "SONG", "--out", "OUT"],
        ["evaluate", "--data", "SET", "--estimates", "SET"],
        ["data", "check", "SET"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_gives_the_same_answer(
    tmp_path: Path, secret: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "set" / "one").mkdir(parents=True)
    path = tmp_path / "set" / "one" / "drums.wav"
    path.write_text(LIST.format(url=secret.as_uri()))
    places = {"SONG": path, "SET": tmp_path / "set", "OUT": tmp_path / "out"}
    assert main([str(places.get(word, word)) for word in command]) == (1 if command[0] == "data" else 2)
    told = "".join(capsys.readouterr())
    assert told.count(f"{path} is an M3U or HLS playlist, which points to other files; give the sound itself\n") == 1
    assert not (tmp_path / "out").exists()
