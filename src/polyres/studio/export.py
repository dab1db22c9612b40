"""Find finished stems in folders, and export them as one HTML file with audio, pictures and player."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from polyres.audio.file_names import shown
from polyres.audio.files import probe, read_audio
from polyres.audio.track_files import SUBSETS, track_folder
from polyres.batch.manifest import MANIFEST_NAME, read_manifest
from polyres.codec.track import REPORT_NAME
from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.core.json_text import json_file
from polyres.core.whole_files import scratch_folder, write_whole
from polyres.listen.server.web_options import SHARED_DIR
from polyres.metrics.track_score import nsdr
from polyres.studio.engines import DIFFERENCE, Kind
from polyres.studio.mixing import copy_to_play, difference, played_rate_hz, view_of

REFERENCE = "reference"
VERSIONS = ("original", "codec", "enhanced")
_AUDIO = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus")
_MIXTURES = ("mixture", "original")


@dataclass(frozen=True)
class Result:
    """Files that sound together: the stems of a separation, or the versions of a reconstruction."""

    label: str  # what made it, or `REFERENCE`
    kind: Kind  # "separate" or "reconstruct"
    files: dict[str, Path] = field(default_factory=dict)  # name to file
    gain: float = 1.0  # factor that is on all files but the mixture of a separation, so that none of them clips
    is_truth: bool = False  # whether these are true stems


def find_results(folder: Path) -> dict[str, list[Result]]:
    """Find all results below a folder."""
    if not folder.is_dir():
        raise InputError(f"{shown(folder)} is not a folder; give what polyres separate wrote")
    marks = {path.parent for name in (MANIFEST_NAME, REPORT_NAME) for path in folder.rglob(name)}
    songs: dict[str, list[Result]] = {}
    for one in sorted(marks):
        songs.setdefault(one.resolve().name, []).append(_read_result(one))
    if not songs:
        raise InputError(f"{shown(folder)}: no folder here was written by polyres separate or reconstruct; give one")
    return dict(sorted(songs.items()))


def true_stems(track: str, results: Sequence[Result], folder: Path) -> Result | None:
    """Find the true stems of a song."""
    names = list(dict.fromkeys(name for one in results if one.kind == "separate" for name in one.files))
    if not names:
        return None
    found = _present(track_folder(folder, track), names)
    if not set(found) - set(_MIXTURES):
        raise InputError(f"{shown(folder / track)}: no true stems of this song ({', '.join(names)}); check --reference")
    return Result(REFERENCE, "separate", found, is_truth=True)


def sdr_db(result: Result, truth: Result, name: str, start_s: float, length_s: float) -> float | None:
    """Return the SDR of a stem against the true one, over an excerpt."""
    if name not in truth.files or name in _MIXTURES or probe(truth.files[name]).sample_rate_hz != _rate(result, name):
        return None
    rate_hz = _rate(result, name)
    span = round(start_s * rate_hz), max(1, round(length_s * rate_hz))
    waves = [read_audio(path, *span)[0] for path in (truth.files[name], result.files[name])]
    if waves[0].shape != waves[1].shape or not waves[0].any():
        return None
    true, given = (wave.astype(np.float64)[None] for wave in waves)
    return float(nsdr(true, given / result.gain)[0])


def _rate(result: Result, name: str) -> int:
    return probe(result.files[name]).sample_rate_hz


def _read_result(folder: Path) -> Result:
    """Read the model of a result folder, and its files."""
    parent = folder.resolve().parent
    label = parent.name
    if (folder / REPORT_NAME).is_file():
        return _checked(folder, Result(label, "reconstruct", _present(folder, VERSIONS), _report_gain(folder)))
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"{shown(folder / MANIFEST_NAME)} cannot be read; separate the song again")
    found = {record.stem: folder / name for name, record in manifest.files.items() if (folder / name).is_file()}
    models = [str(record.settings.get("model")) for record in manifest.files.values()]
    if parent.name in SUBSETS and models:  # DIR/test/SONG has no folder of the model
        label = models[-1]
    gain = min((record.gain for record in manifest.files.values()), default=1.0)
    mixture = Path(manifest.input.path)
    if mixture.is_file() and "mixture" not in found:
        found["mixture"] = mixture
    return _checked(folder, Result(label, "separate", found, gain))


def _present(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the files of these names that are there, in any format."""
    paths = {name: [folder / f"{name}{end}" for end in _AUDIO] for name in names}
    return {name: found for name, some in paths.items() if (found := next(filter(Path.is_file, some), None))}


def _checked(folder: Path, result: Result) -> Result:
    if not set(result.files) - set(_MIXTURES):
        raise InputError(f"{shown(folder)}: its audio files are gone; make them again")
    return result


def _report_gain(folder: Path) -> float:
    """Read the factor that reconstruct put on all versions; 1 where it cannot be read."""
    try:
        return float(json_file(folder / REPORT_NAME, special=True)["gain"])
    except (OSError, ValueError, KeyError, TypeError):
        return 1.0


FORMATS = {"flac": "audio/flac", "mp3": "audio/mpeg"}
MAX_PAGE_BYTES = 400 << 20

_STATIC_DIR = Path(__file__).parent / "static"
_MODULES = ("dom.js", "language.js", "words.js", "times.js", "pictures.js", "player.js", "board.js", "page.js")
_LANGUAGE_SWITCH = '<select id="language" aria-label="Language · 语言"></select>'
_NO_SCRIPT = "<p>This page needs JavaScript. · 本页需要 JavaScript。</p>"
_IMPORT = re.compile(r"^import .*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)

Say = Callable[[str], None]


@dataclass(frozen=True)
class ExportOptions:
    """Contents of an exported page."""

    title: str = "Stems"  # its heading
    reference: Path | None = None  # folder with `TRACK/STEM.wav` and `TRACK/mixture.wav`; None for none
    start_s: float = 0.0  # where the excerpts begin, in seconds
    length_s: float = 30.0  # how long they are
    format: str = "flac"  # "flac" or "mp3"

    def __post_init__(self) -> None:
        """Validate the options."""
        if self.format not in FORMATS:
            raise ConfigError(f"format {self.format!r} is not for pages; choose {' or '.join(FORMATS)}")
        if not self.start_s >= 0 or not self.length_s > 0:
            raise ConfigError(f"an excerpt of {self.length_s:g} s from {self.start_s:g} s on holds nothing")


def export_page(folder: Path, out: Path, options: ExportOptions | None = None, say: Say | None = None) -> int:
    """Write a page of all songs below a folder.

    Args:
        folder: what separate or reconstruct wrote: one song, one model or several.
        say: called with one line per result.

    Raises:
        InputError: if nothing is there, or a file cannot be used.
        OutputError: if the page cannot be written, or would be too large for browsers.
    """
    options = options or ExportOptions()
    songs = find_results(folder)
    written, size = [], 0
    with scratch_folder() as work:
        for track, results in songs.items():
            truth = None if options.reference is None else true_stems(track, results, options.reference)
            values = []
            for result in [*([] if truth is None else [truth]), *results]:
                if say is not None:
                    say(f"{track}: {result.label}")
                values.append(_packed(result, truth, work, options))
                size += sum(len(lane["audio"]) for lane in values[-1]["lanes"].values())
                if size > MAX_PAGE_BYTES:
                    raise OutputError(
                        "the page would be too large for a browser; choose fewer --seconds, or --format mp3"
                    )
            written.append({"title": track, "results": values})
    write_whole(out, _page(options.title, written))
    return len(written)


def _packed(result: Result, truth: Result | None, work: Path, options: ExportOptions) -> dict[str, Any]:
    """Encode a result for the page: sounds, pictures and figures."""
    lanes: dict[str, dict[str, Any]] = {}
    files = {**result.files, **_difference(result, work)}
    rate_hz = played_rate_hz(probe(next(iter(files.values()))).sample_rate_hz)
    for name, path in files.items():
        played = work / f"lane.{options.format}"
        gain = result.gain if name == "mixture" else 1.0
        length = copy_to_play(path, played, gain, options.start_s, options.length_s)
        audio = base64.b64encode(played.read_bytes()).decode("ascii")
        lanes[name] = {"view": view_of(played, length), "audio": audio}
        if truth is not None and not result.is_truth and result.kind == "separate":
            sdr = sdr_db(result, truth, name, options.start_s, options.length_s)
            lanes[name]["sdr_db"] = None if sdr is None else round(sdr, 2)
    facts = {"label": result.label, "kind": result.kind, "truth": result.is_truth, "gain": result.gain}
    return {**facts, "rate_hz": rate_hz, "lanes": lanes}


def _difference(result: Result, work: Path) -> dict[str, Path]:
    """Write what a reconstruction lost, if its versions are sample-aligned."""
    last = next((name for name in ("enhanced", "codec") if name in result.files), None)
    if result.kind != "reconstruct" or last is None or "original" not in result.files:
        return {}
    target = work / f"{DIFFERENCE}.wav"
    try:
        difference(result.files["original"], result.files[last], target)
    except InputError:  # lossy files may have gained some samples
        return {}
    return {DIFFERENCE: target}


def _page(title: str, songs: list[dict[str, Any]]) -> str:
    """Put style, script and data into one page; the data cannot end its own element."""
    scripts = [_EXPORT.sub("", _IMPORT.sub("", _static(name))) for name in _MODULES]
    data = json.dumps({"title": title, "songs": songs}, separators=(",", ":")).replace("<", "\\u003c")
    heading = html.escape(title)
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">',
            f"<title>{heading}</title>\n<style>\n{_static('studio.css')}</style>\n</head>\n<body>",
            f"<header><h1>{heading}</h1>{_LANGUAGE_SWITCH}</header>",
            f'<main><noscript>{_NO_SCRIPT}</noscript><div id="songs"></div></main>',
            '<footer data-text="page_keys"></footer>',
            f'<script type="application/json" id="data">{data}</script>',
            f'<script type="module">\n{"".join(scripts)}</script>\n</body>\n</html>\n',
        ]
    )


def _static(name: str) -> str:
    folder = SHARED_DIR if (SHARED_DIR / name).is_file() else _STATIC_DIR
    return (folder / name).read_text(encoding="utf-8")
