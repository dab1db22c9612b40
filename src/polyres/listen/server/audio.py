"""Check the sounds of a study and serve files that do not reveal their condition."""

from __future__ import annotations

import hashlib
from pathlib import Path

import soundfile

from polyres.audio.opening import open_sound
from polyres.audio.writer import AudioWriter, WriteSpec
from polyres.core.errors import InputError
from polyres.listen.design.files import ListenStudy, Page

MAX_SECONDS = 120.0
OPEN_REFERENCE = "reference"

_CHUNK_SAMPLES = 1 << 18


class StudyAudio:
    """Find the file of a sound; checks every sound of the study on opening.

    All sounds of a page must have the study's rate, the same length and the same channels. Where they are not WAV files
    of one size, plain 24-bit copies are sent instead, since the size of a download would tell them apart.
    """

    def __init__(self, study: ListenStudy, study_dir: Path, copies_dir: Path) -> None:
        self._paths: dict[tuple[str, str], Path] = {}
        self.length_samples: dict[str, int] = {}
        for page in (*study.training, *study.pages):
            names = dict(page.audio)
            if page.reference is not None:
                names[OPEN_REFERENCE] = page.reference
            paths = {name: _inside(study_dir, file) for name, file in names.items()}
            self.length_samples[page.id] = _check(study, page, paths)
            if not _look_alike(list(paths.values())):
                paths = {name: _copy(path, copies_dir) for name, path in paths.items()}
            self._paths |= {(page.id, name): path for name, path in paths.items()}

    def path(self, page_id: str, name: str) -> Path:
        """Return the file of a condition, or of the open reference, on a page.

        Raises:
            InputError: if the page has no such sound.
        """
        try:
            return self._paths[page_id, name]
        except KeyError:
            raise InputError(f"page {page_id!r} has no sound {name!r}") from None


def _inside(study_dir: Path, name: str) -> Path:
    path = (study_dir / name).resolve()
    if not path.is_relative_to(study_dir.resolve()):
        raise InputError(f"{study_dir / name} leads out of the study folder; put the file itself there")
    return path


def _check(study: ListenStudy, page: Page, paths: dict[str, Path]) -> int:
    """Compare the sounds of a page; return their length in samples."""
    shapes: dict[tuple[int, int], Path] = {}
    for path in paths.values():
        try:
            with open_sound(path) as info:
                pass
        except (soundfile.SoundFileError, OSError) as error:
            raise InputError(f"{path} cannot be read as audio ({error}); make the study again") from error
        if info.samplerate != study.sample_rate_hz:
            raise InputError(
                f"{path} has {info.samplerate} Hz, but the study {study.sample_rate_hz} Hz; make the study again"
            )
        if not 0 < info.frames <= MAX_SECONDS * info.samplerate:
            raise InputError(f"{path} lasts {info.frames / info.samplerate:.1f} s; allowed are up to {MAX_SECONDS:g} s")
        shapes.setdefault((info.frames, info.channels), path)
    if len(shapes) > 1:
        (one, first), (other, second) = list(shapes.items())[:2]
        raise InputError(
            f"the sounds of page {page.id!r} differ: {first.name} has {one[0]} samples in {one[1]} channels, "
            f"{second.name} has {other[0]} in {other[1]}; make the study again"
        )
    return next(iter(shapes))[0]


def _look_alike(paths: list[Path]) -> bool:
    return all(path.suffix.lower() == ".wav" for path in paths) and len({path.stat().st_size for path in paths}) == 1


def _copy(path: Path, folder: Path) -> Path:
    """Write a sound as 24-bit WAV under the fingerprint of its bytes, unless it is there already."""
    with path.open("rb") as file:
        copy = folder / f"{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}.wav"
    if copy.exists():
        return copy
    with open_sound(path) as source:
        spec = WriteSpec(source.samplerate, source.channels, "wav", 24)
        with AudioWriter(copy, spec) as target:
            for block in source.blocks(_CHUNK_SAMPLES, dtype="float32", always_2d=True):
                target.write(block.T)
    return copy
