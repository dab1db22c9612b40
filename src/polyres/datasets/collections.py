"""Public data sets: MUSDB18 (folders and `.stem.mp4`), Slakh2100 and MoisesDB, with their splits."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import numpy.typing as npt

from polyres.audio.decode import frame_to_wave
from polyres.audio.file_names import shown
from polyres.audio.opening import check_facts, open_container
from polyres.audio.resample import rechunk, skip_samples
from polyres.audio.track_files import (
    Layout,
    Part,
    TrackFiles,
    first_file,
    folders_under,
    missing_file,
    mixture_of,
    read_json,
    stem_paths,
)
from polyres.core.errors import InputError
from polyres.core.json_text import bounded_bytes
from polyres.core.yaml_files import yaml_value

Wave = npt.NDArray[np.float32]

VALIDATION_TRACKS = frozenset(
    {
        "Actions - One Minute Smile",
        "Alexander Ross - Goodbye Bolero",
        "ANiMAL - Rockshow",
        "Clara Berry And Wooldog - Waltz For My Victims",
        "Fergessen - Nos Palpitants",
        "James May - On The Line",
        "Johnny Lokke - Promises & Lies",
        "Leaf - Summerghost",
        "Meaxic - Take A Step",
        "Patrick Talbot - A Reason To Leave",
        "Skelpolu - Human Mistakes",
        "Traffic Experiment - Sirens",
        "Triviul - Angelsaint",
        "Young Griffo - Pennies",
    }
)
"""The 14 of the 100 tracks in `train` that the authors of MUSDB18 name for validation."""

STREAMS = {"mixture": 0, "drums": 1, "bass": 2, "other": 3, "vocals": 4}
STEM_SUFFIX = ".stem.mp4"

# The first frame after a jump lacks the half that overlaps from the one before; some more for codings with a memory.
_PREROLL_SAMPLES = 8192
_TOLERANCE_S = 0.1
_LIBAV_ERRORS = (av.FFmpegError, ValueError, RuntimeError)


class StemStreamReader:
    """Read one audio stream of a stem file as FFmpeg's command decodes it to 16-bit integers.

    The encoder's delay is cut off where the file has an edit list, and nothing at the end.

    `stream`: Which of its audio streams, from 0. `length_samples`: Length that the file states, in samples; 0 if it
    states none.
    """

    def __init__(self, path: Path, stream: int) -> None:
        self.path = path
        self.stream = stream
        self.warnings: list[str] = []
        try:
            with open_container(path) as container:
                opened = self._stream(container)
                first = next(container.decode(opened), None)
                if first is None:
                    raise InputError(f"{shown(path)} holds no samples in stream {stream}; copy it again")
                self.sample_rate_hz = int(first.sample_rate)
                self.channels = int(first.layout.nb_channels)
                check_facts(path, self.sample_rate_hz, self.channels)
                stated_s = float(opened.duration * opened.time_base) if opened.duration and opened.time_base else 0.0
                self.length_samples = round(stated_s * self.sample_rate_hz)
        except _LIBAV_ERRORS as error:
            raise self._unreadable(error) from error

    def blocks(self, block_samples: int) -> Generator[Wave, None, None]:
        """Pass over the stream once.

        Yields `[C, n]` float32, multiples of 1/32768; n is `block_samples` in all blocks but the last.
        """
        self.warnings.clear()
        got = 0
        with closing(self._pieces(0)) as pieces:
            for block in rechunk(pieces, block_samples):
                got += block.shape[1]
                yield block
        if got + _TOLERANCE_S * self.sample_rate_hz < self.length_samples:
            stated_s = self.length_samples / self.sample_rate_hz
            got_s = got / self.sample_rate_hz
            self.warnings.append(f"{shown(self.path)} ends early: {got_s:.2f} s of {stated_s:.2f} s could be read")

    def read(self, start_samples: int, length_samples: int) -> Wave:
        """Read a part after a jump to shortly before it.

        Samples equal those of a whole pass, but for bands that the encoder replaced by a description of noise: an AAC
        decoder draws those anew from wherever it began.

        Returns `[C, n]` float32, n below `length_samples` where the stream ends earlier.
        """
        parts = [np.zeros((self.channels, 0), np.float32)]
        missing = length_samples
        with closing(self._pieces(start_samples)) as pieces:
            for piece in pieces:
                parts.append(piece[:, :missing])
                missing -= parts[-1].shape[1]
                if not missing:
                    break
        return np.concatenate(parts, axis=1)

    def _pieces(self, start_samples: int) -> Generator[Wave, None, None]:
        """Yield the signal from `start_samples` on."""
        try:
            with open_container(self.path) as container:
                stream = self._stream(container)
                if start_samples > 0 and stream.time_base:
                    jump_s = (start_samples - _PREROLL_SAMPLES) / self.sample_rate_hz
                    container.seek(round(jump_s / stream.time_base), stream=stream)
                frames = (frame for frame in container.decode(stream) if frame.samples)
                first = next(frames, None)
                if first is None:
                    return
                skip = start_samples - (self._position(first, stream) if start_samples > 0 else 0)
                yield from skip_samples(map(_sixteen_bits, chain([first], frames)), max(skip, 0))
        except _LIBAV_ERRORS as error:
            raise self._unreadable(error) from error

    def _position(self, frame: av.AudioFrame, stream: av.AudioStream) -> int:
        """Return the sample at which a frame begins."""
        if frame.pts is None or frame.time_base is None:
            raise InputError(f"{shown(self.path)} has no time stamps, which partial reads need; use wav files")
        ticks = frame.pts - (stream.start_time or 0)
        return round(ticks * frame.time_base * self.sample_rate_hz)

    def _stream(self, container: av.container.InputContainer) -> av.AudioStream:
        streams = container.streams.audio
        if self.stream >= len(streams):
            raise InputError(
                f"{shown(self.path)} has {len(streams)} audio streams; a stem file has {len(STREAMS)}: "
                + ", ".join(STREAMS)
            )
        return streams[self.stream]

    def _unreadable(self, error: Exception) -> InputError:
        reason = "not a stem file, or damaged" if isinstance(error, av.FFmpegError) else str(error)
        return InputError(f"{shown(self.path)} cannot be decoded ({reason}); copy it again")


def _sixteen_bits(frame: av.AudioFrame) -> Wave:
    """Convert a decoded frame to `[C, n]`, rounded half to even and held inside 16 bits as FFmpeg does."""
    scaled = np.rint(frame_to_wave(frame) * np.float32(2**15))
    return np.asarray(np.clip(scaled, -(2**15), 2**15 - 1) / np.float32(2**15), np.float32)


class _Musdb(Layout):
    """Tracks in `ROOT/train` and `ROOT/test`; 14 of those in `train` are for validation."""

    splits = ("all", "train", "valid", "test")
    is_complete = True

    def find(self, root: Path, sources: Sequence[str], split: str = "all") -> list[TrackFiles]:
        """List the tracks of a split: train 86, valid 14, test 50 where the data set is whole."""
        folders = {"all": ("train", "test"), "test": ("test",)}.get(split, ("train",))
        tracks = [track for folder in folders if (root / folder).is_dir() for track in self._in(root / folder, sources)]
        if split in ("train", "valid"):
            tracks = [track for track in tracks if (track.name in VALIDATION_TRACKS) == (split == "valid")]
        return tracks

    def _in(self, folder: Path, sources: Sequence[str]) -> list[TrackFiles]:
        """List the tracks in one folder."""
        return []


class Musdb18HqLayout(_Musdb):
    """MUSDB18-HQ: one folder per track with a WAV file per stem and `mixture.wav`."""

    wanted: ClassVar[str] = "ROOT/train/TRACK/drums.wav and so on, and ROOT/test"

    def _in(self, folder: Path, sources: Sequence[str]) -> list[TrackFiles]:
        tracks = []
        for track in sorted(sub for sub in folder.iterdir() if sub.is_dir() and not sub.name.startswith(".")):
            paths = stem_paths(track, sources)
            mixture = mixture_of(track)
            if not paths and mixture is None:
                continue
            named = [source for source in sources if source in STREAMS]
            absent = [missing_file(track / f"{source}.wav", track.name) for source in named if source not in paths]
            stems = {source: (Part(path),) for source, path in paths.items()}
            tracks.append(TrackFiles(track.name, track, stems, mixture, tuple(absent)))
        return tracks


class Musdb18Layout(_Musdb):
    """MUSDB18: one stem file per track."""

    wanted: ClassVar[str] = f"ROOT/train/TRACK{STEM_SUFFIX} and ROOT/test"

    def _in(self, folder: Path, sources: Sequence[str]) -> list[TrackFiles]:
        tracks = []
        for path in sorted(folder.glob(f"*{STEM_SUFFIX}")):
            if path.name.startswith("."):
                continue
            name = path.name.removesuffix(STEM_SUFFIX)
            stems = {source: (Part(path, STREAMS[source]),) for source in sources if source in STREAMS}
            tracks.append(TrackFiles(name, path, stems, Part(path, STREAMS["mixture"])))
        return tracks


REST = "other"
_SLAKH_FOLDERS = {"train": "train", "valid": "validation", "test": "test"}


class SlakhLayout(Layout):
    """Slakh2100: `TrackXXXXX/metadata.yaml` and `TrackXXXXX/stems/SXX.flac`.

    Stems of the class Drums are drums, of the class Bass bass; others go to a source of the name of their class
    (guitar, piano …) where that is wanted, and else to `other`. The folder `omitted`, which repeats songs, is left out.

    Source: Manilow et al., "Cutting Music Source Separation Some Slakh", WASPAA 2019.
    """

    splits = ("all", "train", "valid", "test")
    wanted: ClassVar[str] = "ROOT/train/Track00001/metadata.yaml and stems/S00.flac, ROOT/validation, ROOT/test"

    def find(self, root: Path, sources: Sequence[str], split: str = "all") -> list[TrackFiles]:
        """List the tracks of a split; a root without the folders of the splits is one split, `all`."""
        folders = [root / name for key, name in _SLAKH_FOLDERS.items() if split in ("all", key)]
        if split == "all":
            folders.append(root)
        tracks = [
            sub
            for folder in folders
            if folder.is_dir()
            for sub in folder.iterdir()
            if (sub / "metadata.yaml").is_file()
        ]
        return [_slakh_track(folder, sources) for folder in sorted(tracks)]


def _slakh_track(folder: Path, sources: Sequence[str]) -> TrackFiles:
    try:
        listed = _slakh_stems(folder / "metadata.yaml")
    except InputError as error:
        return TrackFiles(folder.name, folder, {}, mixture_of(folder), (str(error),))
    stems: dict[str, tuple[Part, ...]] = {}
    problems = []
    for name, facts in sorted(listed.items()):
        source = "drums" if facts.get("is_drum") is True else source_of(str(facts.get("inst_class")), sources)
        rendered = facts.get("audio_rendered")
        if source not in sources or rendered is False:
            continue
        path = first_file(folder / "stems", name)
        if path is not None:
            stems[source] = (*stems.get(source, ()), Part(path))
        elif rendered:
            problems.append(missing_file(folder / "stems" / f"{name}.flac", folder.name))
    return TrackFiles(folder.name, folder, stems, mixture_of(folder), tuple(problems))


def _slakh_stems(path: Path) -> dict[str, Mapping[str, Any]]:
    """Read the stems of a metadata file."""
    try:
        content = yaml_value(bounded_bytes(path).decode())
    except (OSError, ValueError) as error:
        raise InputError(f"'{shown(path)}' cannot be read as YAML; copy it again") from error
    stems = content.get("stems") if isinstance(content, Mapping) else None
    if not isinstance(stems, Mapping) or not all(isinstance(facts, Mapping) for facts in stems.values()):
        raise InputError(f"'{shown(path)}' lists no stems; copy it again")
    return {str(name): facts for name, facts in stems.items()}


class MoisesLayout(Layout):
    """MoisesDB: a folder per track, at any depth, with `data.json` and `STEM/ID.wav`.

    Vocals, bass and drums keep their names and percussion joins the drums; others go to a source of their own name
    (guitar, piano …) where that is wanted, and else to `other`.

    Source: Pereira et al., "MoisesDB: a dataset for source separation beyond 4-stems", ISMIR 2023.
    """

    wanted: ClassVar[str] = "folders with data.json and STEM/ID.wav"

    def find(self, root: Path, sources: Sequence[str], split: str = "all") -> list[TrackFiles]:
        """List the tracks in the order of their folders."""
        folders = sorted(folder for folder in folders_under(root) if (folder / "data.json").is_file())
        return [_moises_track(folder, sources) for folder in folders]


def _moises_track(folder: Path, sources: Sequence[str]) -> TrackFiles:
    try:
        name, listed = _moises_files(folder)
    except InputError as error:
        return TrackFiles(folder.name, folder, {}, None, (str(error),))
    stems: dict[str, tuple[Part, ...]] = {}
    problems = []
    for instrument, path in listed:
        source = "drums" if instrument == "percussion" else source_of(instrument, sources)
        if source not in sources:
            continue
        if os.path.isfile(path):  # a name may be too long to be one
            stems[source] = (*stems.get(source, ()), Part(path))
        else:
            problems.append(missing_file(path, name))
    return TrackFiles(name, folder, stems, mixture_of(folder), tuple(problems))


def _moises_files(folder: Path) -> tuple[str, list[tuple[str, Path]]]:
    """Read the name of a track, and the instrument and path of each of its files, in the order of `data.json`."""
    path = folder / "data.json"
    content = read_json(path)
    try:
        files = [
            (str(stem["stemName"]), folder / str(stem["stemName"]) / f"{track['id']}.{track['extension']}")
            for stem in content["stems"]
            for track in stem["tracks"]
        ]
        song = " - ".join(str(content[key]) for key in ("artist", "song") if content.get(key))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"'{shown(path)}' lists no stems with tracks; copy it again") from error
    for _, file in files:
        if file.parent.parent != folder or file.parent.name in ("", ".."):
            raise InputError(f"'{shown(path)}' names {str(file)[:80]!r}, which is outside its folder; copy it again")
    return song or folder.name, files


def source_of(instrument: str, sources: Sequence[str]) -> str:
    """Return the source that an instrument belongs to."""
    name = instrument.strip().lower().replace(" ", "_")
    return name if name in ("drums", "bass", "vocals") or name in sources else REST
