"""Finished stems as one HTML file: audio, pictures and player in it, for a browser without a server."""

from __future__ import annotations

import base64
import html
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.core.whole_files import write_whole
from polyres.data.audio import probe
from polyres.data.names import shown
from polyres.inference.manifest import MANIFEST_NAME, read_manifest
from polyres.listen.web_options import SHARED_DIR
from polyres.studio.mixing import copy_to_play, played_rate_hz
from polyres.studio.views import view_of

FORMATS = {"flac": "audio/flac", "mp3": "audio/mpeg"}
RECONSTRUCTION_NAME = "reconstruction.json"
MAX_PAGE_BYTES = 400 << 20

_STATIC_DIR = Path(__file__).parent / "static"
_MODULES = ("dom.js", "times.js", "pictures.js", "player.js", "board.js", "page.js")
_AUDIO = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus")
_IMPORT = re.compile(r"^import .*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)
_MIXTURES = ("mixture", "original")


@dataclass(frozen=True)
class ExportOptions:
    """What goes into a page.

    Args:
        title: its heading.
        reference: folder with `TRACK/STEM.wav` and `TRACK/mixture.wav`; None for none.
        start_s: where the excerpts begin, in seconds.
        length_s: how long they are.
        format: "flac" or "mp3".

    Raises:
        ConfigError: for a format that not every browser plays, or a length of nothing.
    """

    title: str = "Stems"
    reference: Path | None = None
    start_s: float = 0.0
    length_s: float = 30.0
    format: str = "flac"

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.format not in FORMATS:
            raise ConfigError(f"format {self.format!r} is not for pages; choose {' or '.join(FORMATS)}")
        if not self.start_s >= 0 or not self.length_s > 0:
            raise ConfigError(f"an excerpt of {self.length_s:g} s from {self.start_s:g} s on holds nothing")


@dataclass(frozen=True)
class _Result:
    """Files that sound together: a folder of stems."""

    label: str
    kind: str
    files: dict[str, Path]
    gain: float = 1.0


def export_page(
    folder: Path, out: Path, options: ExportOptions | None = None, say: Callable[[str], None] | None = None
) -> int:
    """Write a page of all songs below a folder.

    Args:
        folder: what separate or reconstruct wrote: one song, one model or several.
        out: HTML file to write.
        options: what goes into it.
        say: called with one line per result.

    Returns:
        The number of songs.

    Raises:
        InputError: if nothing is there, or a file cannot be used.
        OutputError: if the page cannot be written, or would be too large for browsers.
    """
    options = options or ExportOptions()
    songs: dict[str, list[_Result]] = {}
    for result_folder in _folders(folder):
        track, result = _read(result_folder)
        songs.setdefault(track, []).append(result)
    if not songs:
        raise InputError(f"{shown(folder)}: no folder here was written by polyres separate or reconstruct; give one")
    written, sizes = [], 0
    with tempfile.TemporaryDirectory(prefix="polyres-page-") as work:
        for track, results in songs.items():
            results = [*_reference(track, results, options.reference), *results]
            values = []
            for result in results:
                if say is not None:
                    say(f"{track}: {result.label}")
                values.append(_packed(result, Path(work), options))
                sizes += sum(len(lane["audio"]) for lane in values[-1]["lanes"].values())
            if sizes > MAX_PAGE_BYTES:
                raise OutputError("the page would be too large for a browser; choose fewer --seconds, or --format mp3")
            written.append({"title": track, "results": values})
    write_whole(out, _page(options.title, written))
    return len(written)


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{shown(folder)} is not a folder; give what polyres separate wrote")
    marks = {path.parent for name in (MANIFEST_NAME, RECONSTRUCTION_NAME) for path in folder.rglob(name)}
    return sorted(marks)


def _read(folder: Path) -> tuple[str, _Result]:
    """Read which song a folder is of, by which model, and its files."""
    label = folder.resolve().parent.name
    if (folder / RECONSTRUCTION_NAME).is_file():
        found = _present(folder, ("original", "codec", "enhanced"))
        return folder.resolve().name, _checked(folder, _Result(label, "reconstruct", found))
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"{shown(folder / MANIFEST_NAME)} cannot be read; separate the song again")
    found = {record.stem: folder / name for name, record in manifest.files.items() if (folder / name).is_file()}
    gain = min((record.gain for record in manifest.files.values()), default=1.0)
    mixture = Path(manifest.input.path)
    if mixture.is_file() and "mixture" not in found:
        found["mixture"] = mixture
    return folder.resolve().name, _checked(folder, _Result(label, "separate", found, gain))


def _present(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the files of these names that are there, in any format."""
    paths = {name: [folder / f"{name}{end}" for end in _AUDIO] for name in names}
    return {name: found for name, some in paths.items() if (found := next(filter(Path.is_file, some), None))}


def _checked(folder: Path, result: _Result) -> _Result:
    if not set(result.files) - set(_MIXTURES):
        raise InputError(f"{shown(folder)}: its audio files are gone; make them again")
    return result


def _reference(track: str, results: list[_Result], folder: Path | None) -> list[_Result]:
    """Find the true stems of a song."""
    if folder is None:
        return []
    names = list(dict.fromkeys(name for result in results for name in result.files))
    found = _present(folder / track, names)
    if not found:
        raise InputError(f"{shown(folder / track)}: no true stems of this song ({', '.join(names)}); check --reference")
    return [_Result("reference", "separate", found)]


def _packed(result: _Result, work: Path, options: ExportOptions) -> dict[str, Any]:
    lanes = {}
    rate_hz = 0
    for name, path in result.files.items():
        played = work / f"lane.{options.format}"
        gain = result.gain if name == "mixture" else 1.0
        length = copy_to_play(path, played, gain, options.start_s, options.length_s)
        rate_hz = played_rate_hz(probe(path).sample_rate_hz)
        audio = base64.b64encode(played.read_bytes()).decode("ascii")
        lanes[name] = {"view": view_of(played, length), "audio": audio}
    return {"label": result.label, "kind": result.kind, "rate_hz": rate_hz, "lanes": lanes}


def _page(title: str, songs: list[dict[str, Any]]) -> str:
    """Put style, script and data into one page; the data cannot end its own element."""
    scripts = [_EXPORT.sub("", _IMPORT.sub("", _static(name))) for name in _MODULES]
    data = json.dumps({"title": title, "songs": songs}, separators=(",", ":")).replace("<", "\\u003c")
    heading = html.escape(title)
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{heading}</title>\n<style>\n{_static('studio.css')}</style>\n</head>\n<body>",
            f'<header><h1>{heading}</h1></header>\n<main><p id="problem" role="alert" hidden></p>',
            '<div id="songs"></div></main>',
            "<footer>Space plays, 1–9 switch results, ← → move. Drag over a picture to loop.</footer>",
            f'<script type="application/json" id="data">{data}</script>',
            f'<script type="module">\n{"".join(scripts)}</script>\n</body>\n</html>\n',
        ]
    )


def _static(name: str) -> str:
    folder = SHARED_DIR if (SHARED_DIR / name).is_file() else _STATIC_DIR
    return (folder / name).read_text(encoding="utf-8")
