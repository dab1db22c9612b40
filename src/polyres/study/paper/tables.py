"""The tables of the paper: main comparison, resolutions, channels, fusions; and what goes with them."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from polyres.core.tables import MISSING, Table, number, whole
from polyres.metrics.aggregate import verdict
from polyres.metrics.catalogue import METRICS
from polyres.nn.fusion.base import OUTPUT_FUSION, FusionShape
from polyres.separation.model import MUSIC_SOURCES, SeparatorConfig
from polyres.separation.variants import FIVE, THREE
from polyres.study.claims.contrasts import Contrast, Term, contrast, doubts
from polyres.study.paper.data import Arm, PaperStudy, Values, families, method_of, resolutions_text, seed_means

GIGA, MILLION = 1e9, 1e6
PARTIAL = "*"
SEED_NOTE = (
    f"Mean over the tracks, ± standard deviation over the seeds; bold: best; {PARTIAL} not all tracks and seeds yet, "
    "so it does not compare."
)
INTERVAL_NOTE = "Interval: tracks and seeds drawn anew. Undecided: it holds zero, or an arm is in doubt."
ABSENT_NOTE = "Rows of dashes: sizes of the draft that none of the studies has trained."


@dataclass(frozen=True)
class Cell:
    """A cell that can be the best of its column."""

    text: str = MISSING  # as shown
    value: float | None = None  # compared; None where there is nothing to compare
    better: int = 0  # 1 if more is better, −1 if less is, 0 if the cell does not compete


@dataclass(frozen=True)
class PaperTable:
    """A table and which of its cells are best."""

    name: str  # of its files
    table: Table  # the text
    bold: frozenset[tuple[int, int]]  # cells (row, column)

    def markdown(self) -> str:
        """Return the table as Markdown, the best cells in bold."""
        rows = [
            tuple(f"**{text}**" if (place, column) in self.bold else text for column, text in enumerate(row))
            for place, row in enumerate(self.table.rows)
        ]
        return replace(self.table, rows=rows).markdown()


def build(name: str, table: Table, rows: Sequence[Sequence[Cell]], groups: Sequence[str] = ()) -> PaperTable:
    """Fill a table and mark the best cell of every column; none where all rows tie or there is one.

    Args:
        name: of its files.
        table: title, header and notes.
        rows: its cells.
        groups: per row the name of its group, within which cells compete; all rows compete if empty.
    """
    bold = set()
    names = list(groups) or [""] * len(rows)
    for column, group in ((column, group) for column in range(len(table.header)) for group in dict.fromkeys(names)):
        cells = [(place, row[column]) for place, row in enumerate(rows) if names[place] == group]
        values = [cell.better * cell.value for _, cell in cells if cell.value is not None and cell.better]
        if len(values) > 1 and min(values) < max(values):
            best = max(values)
            bold |= {(p, column) for p, c in cells if c.value is not None and c.better and c.better * c.value == best}
    texts = [tuple(cell.text for cell in row) for row in rows]
    return PaperTable(name, replace(table, rows=texts), frozenset(bold))


def score_cell(study: PaperStudy, arm: Arm | None, metric: str, sources: Sequence[str] | None = None) -> Cell:
    """Return mean and deviation over seeds of an arm's score; a dash without an arm."""
    table = {} if arm is None else study.values(arm, metric)
    values = seed_means(table, sources)
    if not values:
        return Cell()
    about = METRICS.build(metric)
    mean = float(np.mean(values))
    spread = f" ± {number(float(np.std(values, ddof=1)))}" if len(values) > 1 else ""
    if not _is_whole(study, table, metric):
        return Cell(number(mean) + spread + PARTIAL)
    return Cell(number(mean) + spread, mean, 1 if about.direction == "higher" else -1)


def _is_whole(study: PaperStudy, table: Values, metric: str) -> bool:
    """Say whether all seeds of an arm have all tracks that any arm has; else its means are of other tracks."""
    wanted = {track for arm in study.arms for tracks in study.values(arm, metric).values() for track in tracks}
    return len(table) == len(study.about.seeds) and all(set(tracks) == wanted for tracks in table.values())


def cost_cell(arm: Arm | None, name: str, scale: float = 1.0, digits: int = 2) -> Cell:
    """Return the mean cost of an arm (less is better); a dash without an arm."""
    value = None if arm is None else arm.cost(name)
    if value is None:
        return Cell()
    return Cell(whole(value) if digits < 0 else number(value / scale, digits), value, -1)


def _sources(study: PaperStudy) -> tuple[str, ...]:
    """Return the stems in the order of the draft: vocals first."""
    known = study.sources or MUSIC_SOURCES
    return tuple(sorted(known, key=lambda source: source != "vocals"))


def _unit(metric: str) -> str:
    about = METRICS.build(metric)
    return about.name if about.unit == "1" else f"{about.name}, {about.unit}"


def _scores(study: PaperStudy, arm: Arm | None) -> list[Cell]:
    cells = [score_cell(study, arm, study.primary, (source,)) for source in _sources(study)]
    return [*cells, score_cell(study, arm, study.primary)]


def _size(arm: Arm) -> tuple[Cell, Cell]:
    channels = MISSING if arm.model is None else str(arm.model.channels)
    return Cell(resolutions_text(arm.model)), Cell(channels)


def _columns(studies: Sequence[PaperStudy]) -> PaperStudy:
    """Return the study that names sources and metric for a table over several."""
    return next((study for study in studies if study.rows), studies[0])


def main_table(studies: Sequence[PaperStudy]) -> PaperTable:
    """Build table 1: methods with scores and costs; untrained methods of the draft are dashes."""
    chosen = [study for study in studies if any("variant" in arm.settings for arm in study.arms)] or list(studies)
    lead = _columns(chosen)
    header = ("model", "resolutions", "channels", *_sources(lead), "mean", *_sdr_header(lead), *COST_HEADER)
    rows: list[list[Cell]] = []
    trained = set()
    for study, arm in [(one, arm) for one in chosen for arm in one.arms]:
        if arm.model is not None:
            trained.add((method_of(arm.model), arm.model.channels))
        name = arm.name if len(chosen) == 1 else f"{study.name}: {arm.name}"
        scores = [*_scores(study, arm), *_sdr(study, arm, lead)]
        rows.append([Cell(name), *_size(arm), *scores, *_costs(arm)])
    draft = (
        ("HTDemucs", "htdemucs", (4096,), 48),
        ("n", "n", THREE, 24),
        ("nf", "w5", FIVE, 24),
        ("nn", "nn", THREE, 24),
    )
    absent = [row for row in draft if (row[1], row[3]) not in trained]
    blanks = [Cell()] * (len(header) - 3)
    rows += [
        [Cell(f"{name} (draft)"), Cell(" ".join(map(str, n_fft))), Cell(str(c)), *blanks]
        for name, _, n_fft, c in absent
    ]
    title = f"Table 1. Main comparison: {_unit(lead.primary)}, and costs."
    notes = (_tracks_note(chosen), SEED_NOTE, *((ABSENT_NOTE,) if absent else ()))
    return build("table1", Table(title, header, notes=notes, text_columns=2), rows)


def _tracks_note(studies: Sequence[PaperStudy]) -> str:
    parts = [f"{study.name}: {len(study.tracks)} tracks, seeds: {len(study.about.seeds)}" for study in studies]
    return "; ".join(parts) + "."


def _costs(arm: Arm | None) -> list[Cell]:
    return [
        cost_cell(arm, "macs_per_s", GIGA, 3),
        cost_cell(arm, "parameters", 1, -1),
        cost_cell(arm, "train_s", 1, 0),
        cost_cell(arm, "separate_s", 1, 3),
    ]


COST_HEADER = ("GMAC per s", "parameters", "training s", "separating, s per s")


def _sdr_header(lead: PaperStudy) -> tuple[str, ...]:
    """Return the column of BSSEval's SDR beside another metric that decides."""
    return (f"mean {_unit('sdr')}",) if lead.primary != "sdr" and "sdr" in lead.about.metrics else ()


def _sdr(study: PaperStudy, arm: Arm, lead: PaperStudy) -> list[Cell]:
    return [score_cell(study, arm, "sdr")] if _sdr_header(lead) else []


Order = Callable[[SeparatorConfig], tuple[object, ...]]


def _family_rows(studies: Sequence[PaperStudy], free: str, order: Order) -> list[tuple[str, PaperStudy, Arm]]:
    """Return the arms of all families in which a setting of the model takes several values, each with its group.

    Args:
        studies: to look in.
        free: the dotted key in which arms of a family differ.
        order: what a family is sorted by; its first value is the setting.
    """
    found: list[tuple[str, PaperStudy, Arm]] = []
    for study in studies:
        for family in families(study, (free,)):
            known = [(order(arm.model), arm) for arm in family if arm.model is not None]
            if len({key[0] for key, _ in known}) > 1:
                group = string.ascii_uppercase[len({name for name, *_ in found}) % 26]
                found += [(group, study, arm) for _, arm in sorted(known, key=lambda pair: pair[0])]  # type: ignore[arg-type,return-value]
    return found


GROUP_NOTE = "Arms of one group differ in nothing else; scores of two groups do not compare."


def _named(value: str, group: str, study: PaperStudy, arm: Arm) -> list[Cell]:
    return [Cell(value), Cell(f"{study.name}: {arm.name}"), Cell(group)]


def _groups(found: Sequence[tuple[str, PaperStudy, Arm]], rows: Sequence[Sequence[Cell]]) -> list[str]:
    """Return the group of every row; rows of dashes have none."""
    return [group for group, *_ in found] + [MISSING] * (len(rows) - len(found))


def resolutions_table(studies: Sequence[PaperStudy]) -> PaperTable:
    """Build table 2: numbers and choices of resolutions, everything else equal."""
    lead = _columns(studies)
    header = ("resolutions", "arm", "group", *_sources(lead), "mean", *COST_HEADER[:2])
    found = _family_rows(studies, "model.n_fft", lambda model: ((len(model.n_fft), model.n_fft),))
    draft = ((2048, 8192), THREE, (2048, 4096, 8192, 16384), FIVE)
    trained = {arm.model.n_fft for _, _, arm in found if arm.model is not None}
    rows = [
        [*_named(resolutions_text(arm.model), group, study, arm), *_scores(study, arm), *_costs(arm)[:2]]
        for group, study, arm in found
    ]
    absent = [n_fft for n_fft in draft if n_fft not in trained]
    rows += [[Cell(" ".join(map(str, n_fft))), *[Cell()] * (len(header) - 1)] for n_fft in absent]
    title = f"Table 2. Resolutions: {_unit(lead.primary)}."
    notes = (GROUP_NOTE, SEED_NOTE, *((ABSENT_NOTE,) if absent else ()))
    return build("table2", Table(title, header, notes=notes, text_columns=3), rows, _groups(found, rows))


def channels_table(studies: Sequence[PaperStudy]) -> PaperTable:
    """Build table 3: channels, everything else equal."""
    lead = _columns(studies)
    header = ("channels", "arm", "group", "resolutions", "mean", *_sdr_header(lead), *COST_HEADER)
    found = _family_rows(studies, "model.channels", lambda model: (model.channels, model.n_fft))
    rows = []
    for group, study, arm in found:
        resolutions, channels = _size(arm)
        scores = [score_cell(study, arm, study.primary), *_sdr(study, arm, lead)]
        rows.append([*_named(channels.text, group, study, arm), resolutions, *scores, *_costs(arm)])
    trained = {arm.model.channels for _, _, arm in found if arm.model is not None}
    absent = [channels for channels in (16, 24, 32, 48) if channels not in trained]
    rows += [[Cell(str(channels)), *[Cell()] * (len(header) - 1)] for channels in absent]
    title = f"Table 3. Channels: {_unit(lead.primary)}."
    notes = (GROUP_NOTE, SEED_NOTE, *((ABSENT_NOTE,) if absent else ()))
    return build("table3", Table(title, header, notes=notes, text_columns=4), rows, _groups(found, rows))


def fusion_table(studies: Sequence[PaperStudy]) -> PaperTable:
    """Build table 4: output fusions, everything else equal."""
    lead = _columns(studies)
    header = ("fusion", "arm", "group", "resolutions", "weights", "mean", "fusion parameters", "GMAC per s")
    found = [
        one
        for one in _family_rows(studies, "model.output", lambda model: (model.output.fingerprint(),))
        if one[2].model is not None and len(one[2].model.n_fft) > 1
    ]
    rows = []
    for group, study, arm in found:
        model = arm.model
        if model is None:
            continue
        kind, parameters, nature = _fusion_of(model)
        about = [*_named(kind, group, study, arm), Cell(resolutions_text(model)), Cell(nature)]
        score = score_cell(study, arm, study.primary)
        rows.append([*about, score, Cell(whole(parameters), parameters, -1), cost_cell(arm, "macs_per_s", GIGA, 3)])
    trained = {arm.model.output.kind for _, _, arm in found if arm.model is not None}
    absent = [kind for kind in ("weights", "conv", "unet") if kind not in trained]
    rows += [[Cell(kind), *[Cell()] * (len(header) - 1)] for kind in absent]
    title = f"Table 4. Output fusions: {_unit(lead.primary)}."
    note = "Weights: explicit ones mix the resolutions; implicit ones are shares of kernel energy, a hint only."
    dashes = "Rows of dashes: fusions of the draft that none of the studies has trained."
    notes = (GROUP_NOTE, SEED_NOTE, note, *((dashes,) if absent else ()))
    return build("table4", Table(title, header, notes=notes, text_columns=5), rows, _groups(found, rows))


def _fusion_of(model: SeparatorConfig) -> tuple[str, int, str]:
    """Return name, number of parameters and nature of a model's output fusion."""
    shape = FusionShape(model.n_fft, model.sources, model.audio_channels, model.sample_rate_hz, model.head == "mask")
    module = OUTPUT_FUSION.build(model.output.kind, model.output, shape)
    start = "" if model.output.favour_n_fft is None else f", starts at {model.output.favour_n_fft}"
    fixed = "" if model.output.learned else ", fixed"
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return f"{model.output.kind}{fixed}{start}", parameters, module.weight_kind


def metrics_table(studies: Sequence[PaperStudy]) -> PaperTable:
    """Tabulate all metrics of all arms, means over stems."""
    metrics = list(dict.fromkeys(metric for study in studies for metric in study.about.metrics))
    marks = {"higher": "↑", "lower": "↓"}
    header = ("study", "arm", *(f"{_unit(name)} {marks[METRICS.build(name).direction]}" for name in metrics))
    rows = [
        [Cell(study.name), Cell(arm.name), *(score_cell(study, arm, metric) for metric in metrics)]
        for study in studies
        for arm in study.arms
    ]
    return build(
        "all_metrics", Table("All metrics, mean over stems.", header, notes=(SEED_NOTE,), text_columns=2), rows
    )


@dataclass(frozen=True)
class Difference:
    """An arm against the reference of its study."""

    arm: str  # its name
    reference: str  # what it is compared with
    metric: str  # name
    found: Contrast | None  # None without scores
    verdict: str  # better, worse or undecided
    doubts: tuple[str, ...]  # why nothing is decided, besides an interval that holds zero


def against_reference(study: PaperStudy, metrics: Sequence[str]) -> list[Difference]:
    """Compare every arm of a study with its reference by some metrics; empty without a reference."""
    reference = study.arm(study.about.reference)
    found = []
    for arm, metric in ((arm, metric) for arm in study.arms for metric in metrics):
        if reference is None or arm is reference:
            continue
        one = contrast(study, [Term(1, arm), Term(-1, reference)], metric)
        reasons = () if one is None else doubts(study, arm, reference)
        word = "undecided" if one is None or reasons else verdict((one.low, one.high), one.tracks)
        found.append(Difference(arm.name, reference.name, metric, one, word, reasons))
    return found


def differences_table(studies: Sequence[PaperStudy], metrics: Sequence[str] = ()) -> PaperTable:
    """Tabulate every arm against the reference of its study, with intervals; positive is better.

    Args:
        studies: to compare within.
        metrics: to compare by; those that decide if empty.
    """
    header = ("study", "arm", "against", "metric", "verdict", "difference", "95 %", "tracks", "seeds")
    rows, doubted = [], []
    for study in studies:
        for one in against_reference(study, metrics or (study.primary,)):
            cells, found = [Cell()] * 5, one.found
            if found is not None:
                shown = (one.verdict, number(found.value, 2, True), interval_text(found.low, found.high))
                cells = [Cell(text) for text in (*shown, str(found.tracks), str(found.seeds))]
            doubted += [reason for reason in one.doubts if reason not in doubted]
            rows.append([Cell(study.name), Cell(one.arm), Cell(one.reference), Cell(one.metric), *cells])
    notes = (f"Positive is better. {INTERVAL_NOTE}", *((f"In doubt: {'; '.join(doubted)}.",) if doubted else ()))
    return build("differences", Table("Against the reference.", header, notes=notes, text_columns=5), rows)


def styles_table(studies: Sequence[PaperStudy], styles: dict[str, dict[str, str]]) -> PaperTable | None:
    """Tabulate scores by musical style; None where no style is known."""
    names = list(dict.fromkeys(style for of in styles.values() for style in sorted(set(of.values()))))
    if not names:
        return None
    rows = []
    for study in studies:
        of = styles.get(study.name, {})
        for arm in study.arms:
            cells = [_style_cell(study, arm, [track for track in of if of[track] == style]) for style in names]
            rows.append([Cell(study.name), Cell(arm.name), *cells])
    counts = {name: sum(style == name for of in styles.values() for style in of.values()) for name in names}
    lead = _columns(studies)
    note = f"Tracks: {', '.join(f'{name} {count}' for name, count in counts.items())}. {SEED_NOTE}"
    table = Table(
        f"Scores by musical style: {_unit(lead.primary)}, mean over stems.",
        ("study", "arm", *names),
        notes=(note,),
        text_columns=2,
    )
    return build("styles", table, rows)


def _style_cell(study: PaperStudy, arm: Arm, tracks: Sequence[str]) -> Cell:
    values = {
        seed: {track: scores for track, scores in of.items() if track in tracks}
        for seed, of in study.values(arm, study.primary).items()
    }
    numbers = seed_means(values)
    if not numbers:
        return Cell()
    spread = f" ± {number(float(np.std(numbers, ddof=1)))}" if len(numbers) > 1 else ""
    return Cell(number(float(np.mean(numbers))) + spread, float(np.mean(numbers)), 1)


def interval_text(low: float, high: float, digits: int = 2) -> str:
    """Return an interval in a few letters; a dash where there is none."""
    return MISSING if math.isnan(low) else f"{number(low, digits, True)} to {number(high, digits, True)}"
