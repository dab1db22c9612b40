"""Layouts: how tracks are found in a folder and which files make up their stems, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from polyres.audio.file_names import shown
from polyres.audio.track_files import (
    SOURCES,
    Layout,
    Part,
    TrackFiles,
    folders_under,
    missing_file,
    mixture_of,
    read_json,
    require_folder,
    stem_paths,
)
from polyres.core.catalogue import Catalogue
from polyres.core.errors import ConfigError, InputError
from polyres.datasets.collections import MoisesLayout, Musdb18HqLayout, Musdb18Layout, SlakhLayout
from polyres.synth.modules.tracks import ModulesLayout

LAYOUTS: Catalogue[Layout] = Catalogue("layout")


@LAYOUTS.register("stems", "folders at any depth with one file per stem: drums.wav, bass.flac …; some may lack")
class StemsLayout(Layout):
    """Any folder of tracks with one file per source, in any format and rate; missing stems are allowed."""

    wanted: ClassVar[str] = "track folders with some of drums.wav, bass.wav, other.wav, vocals.wav"

    def find(self, root: Path, sources: Sequence[str], split: str = "all") -> list[TrackFiles]:
        """List the tracks in the order of their folders; a folder that cannot be read is a track with a problem."""
        unreadable: dict[Path, str] = {}
        folders = [folder for folder in folders_under(root, unreadable) if stem_paths(folder, sources)]
        locked = [TrackFiles(folder.name, folder, {}, None, (why,)) for folder, why in unreadable.items()]
        return sorted([*(stems_track(folder, sources) for folder in folders), *locked], key=lambda track: track.folder)


@LAYOUTS.register("synthetic", "what `polyres synth` writes: stems and manifest.json")
class SyntheticLayout(Layout):
    """Made songs: folders with `manifest.json` and the stems that it names."""

    wanted: ClassVar[str] = "track folders with manifest.json, as `polyres synth` writes them"

    def find(self, root: Path, sources: Sequence[str], split: str = "all") -> list[TrackFiles]:
        """List the finished tracks in the order of their folders."""
        folders = sorted(folder for folder in folders_under(root) if (folder / "manifest.json").is_file())
        return [_made_track(folder, sources) for folder in folders]


def _made_track(folder: Path, sources: Sequence[str]) -> TrackFiles:
    path = folder / "manifest.json"
    try:
        manifest = read_json(path)
    except InputError as error:
        return TrackFiles(folder.name, folder, {}, mixture_of(folder), (str(error),))
    named = manifest.get("stems") if isinstance(manifest, Mapping) else None
    if not isinstance(named, Sequence | Mapping) or isinstance(named, str):
        problem = f"'{shown(path)}' names no stems; make the track again"
        return TrackFiles(folder.name, folder, {}, mixture_of(folder), (problem,))
    track = stems_track(folder, [source for source in sources if source in named])
    absent = [source for source in sources if source in named and source not in track.stems]
    problems = tuple(missing_file(folder / f"{source}.wav", folder.name) for source in absent)
    return TrackFiles(track.name, folder, track.stems, track.mixture, problems)


LAYOUTS.register("musdb18hq", "MUSDB18-HQ: WAV folders in train and test; 14 tracks of train are for validation")(
    Musdb18HqLayout
)
LAYOUTS.register("musdb18", "MUSDB18: stem files (.stem.mp4) in train and test, read as they are")(Musdb18Layout)
LAYOUTS.register("slakh2100", "Slakh2100: metadata.yaml and stems/SXX per track; summed to the sources")(SlakhLayout)
LAYOUTS.register("modules", "tracker modules (.mod .s3m .xm .it), rendered afresh; instruments sorted into stems")(
    ModulesLayout
)
LAYOUTS.register("moisesdb", "MoisesDB: data.json and a folder per instrument; summed to the sources")(MoisesLayout)


def stems_track(folder: Path, sources: Sequence[str] = SOURCES) -> TrackFiles:
    """Return the track of one folder with a file per stem."""
    stems = {source: (Part(path),) for source, path in stem_paths(folder, sources).items()}
    return TrackFiles(folder.name, folder, stems, mixture_of(folder))


def find_tracks(
    root: str | Path, layout: str = "stems", split: str = "all", sources: Sequence[str] = SOURCES
) -> list[TrackFiles]:
    """List the tracks of a data set.

    `layout`: name in `LAYOUTS`. `split`: all, train, valid or test; a layout without splits knows only all. Returns
    tracks in a fixed order, at least one. Raises UnknownNameError if there is no such layout; ConfigError if the layout
    does not have the split; InputError if the root is no folder, or has no track of this layout and split.
    """
    try:
        found = check_split(layout, split).find(require_folder(root), sources, split)
    except OSError as error:
        where = error.filename or root
        raise InputError(f"{shown(where)} cannot be read ({error.strerror or error}); check its permissions") from error
    if not found:
        raise _nothing_found(Path(root), layout, split, sources)
    return found


def check_split(layout: str, split: str) -> Layout:
    """Return a layout if it has a split.

    Raises UnknownNameError if there is no such layout; ConfigError if the layout does not have the split.
    """
    chosen = LAYOUTS.build(layout)
    if split not in chosen.splits:
        having = [name for name in LAYOUTS.names() if split in LAYOUTS.build(name).splits]
        fix = f"; {', '.join(having)} have" if having else ""
        raise ConfigError(
            f"layout {layout!r} has no split {split!r}{fix}; leave the split at 'all' or give the folder of the split"
        )
    return chosen


def guess_layout(root: str | Path, sources: Sequence[str] = SOURCES) -> str | None:
    """Find the layout that fits a folder.

    Returns the name of the layout that finds the most tracks, the more special one of equals; None if none finds any.
    Raises InputError if the root is no folder.
    """
    root = require_folder(root)
    counts = {name: _count(name, root, sources) for name in reversed(LAYOUTS.names())}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else None


def _count(layout: str, root: Path, sources: Sequence[str]) -> int:
    """Count the tracks that a layout finds; none where it cannot read a folder."""
    try:
        return sum(bool(track.stems) for track in LAYOUTS.build(layout).find(root, sources))
    except (InputError, OSError):
        return 0


def _nothing_found(root: Path, layout: str, split: str, sources: Sequence[str]) -> InputError:
    """Word the error for a folder without tracks, with the layout that would find some."""
    which = "" if split == "all" else f" of the split {split!r}"
    fitting = guess_layout(root, sources)
    if fitting is not None and fitting != layout:
        return InputError(f"no tracks{which} of layout {layout!r} in '{root}'; it looks like layout {fitting!r}")
    if layout == "stems":
        names = ", ".join(f"{source}.wav" for source in sources)
        return InputError(f"no tracks in '{root}'; each track is a folder with some of {names}")
    return InputError(f"no tracks{which} of layout {layout!r} in '{root}'; it wants {LAYOUTS.build(layout).wanted}")
