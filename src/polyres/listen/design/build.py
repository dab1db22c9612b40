"""Build a study from folders of results: cut, align, filter, match loudness and hide the names."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polyres.audio.files import probe
from polyres.audio.track_files import SOURCES, TrackFiles, first_file, require_folder, track_folder
from polyres.audio.writer import AudioWriter, WriteSpec
from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.core.whole_files import write_whole
from polyres.datasets.layouts import find_tracks
from polyres.datasets.stem_files import StemFile, measure
from polyres.datasets.tracks import read_part, read_stem
from polyres.listen.design.anchors import (
    LOW_HZ,
    MID_HZ,
    Wave,
    faded,
    low_pass,
    margin_samples,
    match_loudness,
    true_peak,
)
from polyres.listen.design.conditions import choose_excerpts, shared_activity
from polyres.listen.design.files import (
    AUDIO_FOLDER,
    STUDY_NAME,
    Condition,
    ListenStudy,
    Page,
    Role,
    StudyRecipe,
    StudyTerms,
    save_study,
    triples,
)

BUILD_NAME = "build.json"
REFERENCE_LABEL = "reference"
OPEN = "open reference"
_ANCHOR_LABELS: dict[str, tuple[str, Role]] = {
    "low": ("anchor 3.5 kHz", "low_anchor"),
    "mid": ("anchor 7 kHz", "mid_anchor"),
    "interference": ("anchor mixture", "interference_anchor"),
}
_LONGER_SAMPLES = 4096
_LAG_WARNING_S = 0.001

Report = Callable[[str], None]


@dataclass(frozen=True)
class _Cut:
    """One page before it has sounds."""

    track: TrackFiles
    files: dict[str, StemFile]
    stem: str
    start_s: float
    active_share: float


def build_study(recipe: StudyRecipe, out: Path, report: Report | None = None) -> ListenStudy:
    """Build a study.

    Files in `audio/` have names that tell nothing; `build.json` says what each holds, its gain and its loudness.
    The same recipe and results give the same study.

    Args:
        out: STUDY_DIR; must not hold a study yet.
        report: receives one line per step and warning.

    Raises:
        InputError: if a folder, track or stem is missing or cannot be used.
        OutputError: if there is a study already, or a file cannot be written.
    """
    say = report or (lambda line: None)
    if (out / STUDY_NAME).exists():
        raise OutputError(f"{out} holds a study already; choose another folder, or delete it to make it anew")
    for folder in recipe.systems.values():
        require_folder(folder)
    conditions = _conditions(recipe)
    cuts = _cuts(recipe, say)
    if len(cuts) <= recipe.training_pages:
        raise InputError(f"{len(cuts)} excerpts leave none besides {recipe.training_pages} training pages; add tracks")
    pages, log = [], []
    for number, cut in enumerate(cuts, start=1):
        say(f"{number}/{len(cuts)}  {cut.track.name}  {cut.stem}  {cut.start_s:g} s")
        sounds = _sounds(recipe, cut, say)
        page, lines = _write_page(recipe, cut, f"p{number:02d}", sounds, conditions, out, say)
        pages.append(page)
        log += lines
    study = _study(recipe, conditions, pages)
    write_whole(out / BUILD_NAME, json.dumps({"recipe": recipe.to_dict(), "files": log}, indent=1) + "\n")
    save_study(study, out)
    return study


def _study(recipe: StudyRecipe, conditions: Sequence[Condition], pages: Sequence[Page]) -> ListenStudy:
    taken = {name: value for name, value in recipe.to_dict().items() if name in StudyTerms.model_fields}
    first, rest = pages[: recipe.training_pages], pages[recipe.training_pages :]
    if recipe.kind == "bs1116":
        hidden = next(condition.id for condition in conditions if condition.role == "reference")
        first, rest = ([one for page in part for one in triples(page, hidden)] for part in (first, rest))
    made = {
        "conditions": [condition.to_dict() for condition in conditions],
        "training": [page.to_dict() for page in first],
        "pages": [page.to_dict() for page in rest],
    }
    return ListenStudy.from_dict({**taken, **made})


def _conditions(recipe: StudyRecipe) -> list[Condition]:
    """Give every condition an opaque id."""
    named: list[tuple[str, Role]] = [(label, "system") for label in recipe.systems]
    named += [(REFERENCE_LABEL, "reference")] if recipe.has_hidden_reference else []
    named += [_ANCHOR_LABELS[anchor] for anchor in recipe.used_anchors]
    labels = [label for label, _ in named]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ConfigError(f"a system cannot be called {twice!r}, which another condition is; rename it")
    numbers = np.random.default_rng((recipe.excerpts.seed, 11)).permutation(len(named)) + 1
    return [
        Condition(id=f"c{number}", label=label, role=role) for number, (label, role) in zip(numbers, named, strict=True)
    ]


def _cuts(recipe: StudyRecipe, say: Report) -> list[_Cut]:
    """Choose the excerpts of all songs, in random order."""
    options = recipe.excerpts
    known = tuple(dict.fromkeys([*SOURCES, *recipe.stems, *options.sources]))
    tracks = find_tracks(recipe.references, options.layout, options.split, known)
    if options.tracks:
        names = {track.name for track in tracks}
        missing = next((name for name in options.tracks if name not in names), None)
        if missing is not None:
            raise InputError(f"{recipe.references} has no track {missing!r}; it has {', '.join(sorted(names))}")
        tracks = [track for track in tracks if track.name in options.tracks]
    order = np.random.default_rng((options.seed, 12)).permutation(len(tracks))
    drawn = [tracks[number] for number in order]
    cuts: list[_Cut] = []
    used = 0
    for track in drawn:
        if options.max_tracks is not None and used == options.max_tracks:
            break
        found = _cuts_of(recipe, track, say)
        used += bool(found)
        cuts += found
    if not cuts:
        raise InputError(f"no track of {recipe.references} has an excerpt to use; the lines above say why")
    shuffled = np.random.default_rng((options.seed, 13)).permutation(len(cuts))
    return [cuts[number] for number in shuffled]


def _cuts_of(recipe: StudyRecipe, track: TrackFiles, say: Report) -> list[_Cut]:
    options = recipe.excerpts
    needed = [stem for stem in (*recipe.stems, *options.sources) if stem not in track.stems]
    if needed:
        say(f"warning: {track.name} has no {needed[0]}; left out")
        return []
    # All stems: the mixture is made of those that need not sound, too.
    files = {source: measure(parts) for source, parts in track.stems.items()}
    sources = options.sources or tuple(files)
    seed = int(hashlib.sha256(track.name.encode()).hexdigest()[:8], 16)
    try:
        found = choose_excerpts(
            shared_activity({source: files[source] for source in sources}),
            count=options.per_track,
            length_s=options.length_s,
            min_share=options.min_active_share,
            generator=np.random.default_rng((options.seed, 14, seed)),
        )
    except InputError as error:
        say(f"warning: {track.name}: {error}; left out")
        return []
    if len(found) < options.per_track:
        say(f"warning: {track.name} has room for {len(found)} of {options.per_track} excerpts")
    return [_Cut(track, files, stem, part.start_s, part.active_share) for part in found for stem in recipe.stems]


def _sounds(recipe: StudyRecipe, cut: _Cut, say: Report) -> dict[str, Wave]:
    """Read or filter all sounds of a page, label -> `[2, T]`, not yet matched in loudness."""
    rate_hz = recipe.sample_rate_hz
    length = round(recipe.excerpts.length_s * rate_hz)
    # The anchors' filters hear what is around the excerpt.
    margin = margin_samples(rate_hz)
    start = round(cut.start_s * rate_hz)
    before = min(margin, start)

    def read(stem: StemFile) -> Wave:
        return read_stem(stem, (start - before) / rate_hz, before + length + margin, rate_hz)

    def inner(wave: Wave) -> Wave:
        return np.ascontiguousarray(wave[:, before : before + length])

    wide = read(cut.files[cut.stem])
    sounds = {OPEN: inner(wide)}
    for label, folder in recipe.systems.items():
        sounds[label] = _read_system(recipe, cut, label, Path(folder), start, length)
        _check_alignment(sounds[OPEN], sounds[label], rate_hz, f"{label}, {cut.track.name}, {cut.stem}", say)
    if recipe.has_hidden_reference:
        sounds[REFERENCE_LABEL] = sounds[OPEN]
    for anchor in recipe.used_anchors:
        label, role = _ANCHOR_LABELS[anchor]
        if role == "interference_anchor":
            sounds[label] = inner(np.sum([read(stem) for stem in cut.files.values()], axis=0, dtype=np.float32))
        else:
            sounds[label] = inner(low_pass(wide, LOW_HZ if role == "low_anchor" else MID_HZ, rate_hz))
    return sounds


def _read_system(recipe: StudyRecipe, cut: _Cut, label: str, folder: Path, start: int, length: int) -> Wave:
    path = first_file(track_folder(folder, cut.track.name), cut.stem)
    if path is None:
        raise InputError(
            f"system {label!r} has no {cut.stem} of {cut.track.name!r}: no {folder / cut.track.name / cut.stem}.*"
        )
    info = probe(path)
    reference = cut.files[cut.stem]
    if info.length_samples is not None:
        differs_s = abs(info.length_samples / info.sample_rate_hz - reference.length_s)
        if differs_s > _LONGER_SAMPLES / reference.sample_rate_hz:
            raise InputError(
                f"{path} is {differs_s:.2f} s longer or shorter than its reference; "
                "separate the whole song, not a part of it"
            )
    return read_part(path, start / recipe.sample_rate_hz, length, recipe.sample_rate_hz)


def _check_alignment(reference: Wave, wave: Wave, rate_hz: int, what: str, say: Report) -> None:
    """Warn of a sound that lies earlier or later than its reference: switching would jump."""
    from scipy.signal import correlate

    first, second = reference.mean(axis=0, dtype=np.float64), wave.mean(axis=0, dtype=np.float64)
    size = float(np.sqrt((first @ first) * (second @ second)))
    if size <= 0.0:
        return
    products = correlate(second, first, mode="full", method="fft") / size
    best = int(np.argmax(products))
    lag = best - (len(first) - 1)
    if products[best] > 0.5 and abs(lag) > _LAG_WARNING_S * rate_hz:
        say(f"warning: {what} is {abs(lag) / rate_hz * 1000:.1f} ms {'late' if lag > 0 else 'early'}")


def _write_page(
    recipe: StudyRecipe,
    cut: _Cut,
    page_id: str,
    sounds: dict[str, Wave],
    conditions: Sequence[Condition],
    out: Path,
    say: Report,
) -> tuple[Page, list[dict[str, Any]]]:
    levels, rate_hz = recipe.levels, recipe.sample_rate_hz
    matched = match_loudness(sounds, rate_hz, levels.target_lufs, levels.limit_db, levels.peak_db)
    for label, missing in matched.off_lu.items():
        say(f"warning: {label} stays {missing:.1f} LU softer than the others: it is almost silent there")
    # Sounds that are not matched keep their levels; one gain for all keeps every peak below full scale.
    loudest = max(true_peak(wave) for wave in sounds.values())
    common_db = min(0.0, levels.peak_db - 20 * math.log10(max(loudest, 1e-12)))
    ids = {condition.label: condition.id for condition in conditions}
    paths, log = {}, []
    for label, wave in sounds.items():
        if label == OPEN and not recipe.shows_reference:
            continue
        gain_db = matched.gains_db[label] if levels.match else common_db
        played = faded((wave * np.float32(10 ** (gain_db / 20))), rate_hz, levels.fade_s)
        name = f"{AUDIO_FOLDER}/{_opaque(recipe, page_id, label, played)}.wav"
        _write_wave(out / name, played, rate_hz, levels.bit_depth)
        paths[label] = name
        line = {"page": page_id, "file": name, "condition": ids.get(label, ""), "label": label}
        log.append({**line, "gain_db": round(gain_db, 3), "source_lufs": round(matched.lufs[label], 2)})
    page = Page(
        id=page_id,
        item=f"{cut.track.name}/{cut.stem}/{cut.start_s:g}",
        track=cut.track.name,
        stem=cut.stem,
        start_s=cut.start_s,
        reference=paths.get(OPEN),
        audio={ids[label]: path for label, path in sorted(paths.items()) if label != OPEN},
    )
    return page, log


def _opaque(recipe: StudyRecipe, page_id: str, label: str, wave: Wave) -> str:
    """Name a file by a hash of its content and its condition, so that the name reveals nothing."""
    digest = hashlib.sha256(wave.tobytes())
    digest.update(json.dumps([recipe.fingerprint(), page_id, label]).encode())
    return digest.hexdigest()[:24]


def _write_wave(path: Path, wave: Wave, rate_hz: int, bit_depth: Any) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {path.parent}: {error.strerror}; choose another folder") from error
    with AudioWriter(path, WriteSpec(rate_hz, wave.shape[0], "wav", bit_depth)) as writer:
        writer.write(wave)
