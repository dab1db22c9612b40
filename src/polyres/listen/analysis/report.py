"""Write the report of a study: questions, excluded listeners, results, and the assumptions behind them."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from polyres.core.tables import MISSING, Rows, Table, number
from polyres.core.whole_files import write_whole
from polyres.listen.analysis.analyse import Analysis, Block, PairBlock
from polyres.listen.analysis.figures import figures_of
from polyres.listen.analysis.statistics import LIMIT_SCORE
from polyres.listen.design.files import ListenStudy

T_TEST_CAVEAT = (
    "The t-test over listeners takes the differences of listeners for normal, which bounded scores are only roughly. "
    "The pooled t-test counts every rating as if it came from another listener; ratings of one listener and of one "
    "excerpt are alike, so its p-values are too small. It is shown because it is common, not to be relied on."
)
MODEL_NOTE = (
    "The plain model is score ~ system + (1|listener) + (1|item), by restricted maximum likelihood with "
    "Satterthwaite's degrees of freedom. It takes for granted that all listeners and excerpts favour a system alike. "
    "The full model adds (1|listener:system) + (1|item:system); where the two differ, believe the full one."
)
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}
th,td{padding:.25rem .7rem;border-bottom:1px solid #ccc;text-align:right;white-space:nowrap}
th.t,td.t{text-align:left}caption{text-align:left;font-weight:600;padding:.3rem 0}
figure{margin:1.5rem 0}img{max-width:100%;height:auto}figcaption{color:#555}
.warning{border-left:.4rem solid #d55e00;background:#fff4ec;padding:.6rem 1rem}.note{color:#555}
"""


def write_report(analysis: Analysis, folder: Path, figures: bool = True) -> list[Path]:
    """Write report.md, report.html (one file with all figures), report.json and the figures as PNG.

    The same analysis gives the same bytes.

    Raises:
        ConfigError: if figures are wanted without matplotlib.
        OutputError: when a file cannot be written.
    """
    images = figures_of(analysis) if figures else {}
    sections = report_sections(analysis, images)
    title = f"{analysis.study.title}: results"
    text = json.dumps(analysis.to_dict(), indent=2, ensure_ascii=False) + "\n"
    paths = [write_whole(folder / name, content) for name, (content, _) in images.items()]
    pictures = {name: content for name, (content, _) in images.items()}
    return [
        write_whole(folder / "report.md", markdown_page(title, sections)),
        write_whole(folder / "report.html", html_page(title, sections, pictures)),
        write_whole(folder / "report.json", text),
        *paths,
    ]


def report_sections(analysis: Analysis, images: dict[str, tuple[bytes, str]] | None = None) -> list[Section]:
    """Return the parts of the report."""
    captions = {name: caption for name, (_, caption) in (images or {}).items()}

    def shown(prefix: str) -> dict[str, str]:
        return {name: caption for name, caption in captions.items() if name.startswith(prefix)}

    sections = [*_warnings(analysis), _about(analysis)]
    if analysis.screening:
        sections.append(_screening_section(analysis, shown("screening")))
    for block in analysis.blocks:
        sections.append(_block_section(analysis.study, block, shown(f"{block.name}.")))
    for pairs in analysis.pairs:
        sections.append(_pair_section(analysis.study, pairs, shown(f"pairs_{pairs.attribute}.")))
    for attribute in analysis.correlations:
        sections.append(_correlation_section(analysis, attribute, shown(f"metrics_{attribute}.")))
    return sections


def short_sections(analysis: Analysis) -> list[Section]:
    """Return the results over all stems alone, screened where listeners were left out, for a terminal."""
    chosen = {block.attribute: block for block in analysis.blocks if not block.stem}
    return [
        *(_block_section(analysis.study, block, {}) for block in chosen.values()),
        *(_pair_section(analysis.study, pairs, {}) for pairs in analysis.pairs),
        *(_correlation_section(analysis, attribute, {}) for attribute in analysis.correlations),
    ]


def _warnings(analysis: Analysis) -> list[Section]:
    lines = []
    if analysis.simulated:
        lines.append(
            f"SIMULATED: {analysis.simulated} of {analysis.listeners} listeners are simulated. Nobody heard anything; "
            "these numbers say nothing about the sound of any system."
        )
    if analysis.listeners < 6:
        lines.append(f"{analysis.listeners} listeners are too few to show a difference; nothing is called decided.")
    return [Section("", tuple(lines), warning=True)] if lines else []


def _about(analysis: Analysis) -> Section:
    study = analysis.study
    rows = [
        ("kind", study.kind),
        ("excerpts", str(len(study.pages))),
        ("conditions", ", ".join(condition.label for condition in study.conditions)),
        ("listeners", str(analysis.listeners)),
        ("of whom as far as the farthest", str(analysis.complete)),
        ("answers that count", str(analysis.ratings)),
        ("seed of all draws", str(analysis.seed)),
    ]
    questions = [(attribute.name, attribute.question) for attribute in study.attributes]
    return Section("Study", (), (Table("", ("", ""), [*rows, *questions], 2),))


def _screening_section(analysis: Analysis, figures: dict[str, str]) -> Section:
    header = ("listener", "attribute", "left out because", "pages", "reference < 90", "anchor > 90")
    rows: Rows = [
        (
            line.listener,
            line.attribute,
            line.excluded_by or "–",
            str(line.trials),
            str(line.reference_low),
            f"{line.anchor_high}/{line.anchor_trials}",
            number(100 * line.inversions, 0),
            number(line.repeat_difference, 1),
        )
        for line in analysis.screening
    ]
    rule = (
        f"BS.1534: a listener is left out who rates the hidden reference below {LIMIT_SCORE:.0f} on more than 15 % of "
        f"the items, or a mid anchor above {LIMIT_SCORE:.0f} on more than 15 % of them. Items whose anchor more than a "
        "quarter of the listeners rate so high do not count for the second rule."
    )
    if analysis.study.kind != "mushra":
        rule = f"A study of kind {analysis.study.kind} has no hidden reference to screen by; nobody is left out."
    table = Table("", (*header, "order broken, %", "repeat differs by"), rows, 3)
    count = len({line.listener for line in analysis.screening if line.excluded_by})
    return Section("Screening", (rule, f"{count} listeners are left out in at least one respect."), (table,), figures)


def _block_section(study: ListenStudy, block: Block, figures: dict[str, str]) -> Section:
    label = {condition.id: condition.label for condition in study.conditions}
    where = f", {block.stem}" if block.stem else ""
    who = "after screening" if block.screened else "all listeners"
    scores = Table(
        "Scores",
        ("condition", "mean", "95 %", "median", "quartiles", "ratings", "listeners", "items"),
        [
            (
                label[line.condition],
                number(line.mean, 1),
                interval(line.low, line.high),
                number(line.median, 1),
                interval(*line.quartiles),
                str(line.ratings),
                str(line.listeners),
                str(line.items),
            )
            for line in block.summaries
        ],
        notes=("Intervals: listeners and items drawn anew (Owen 2007).",),
    )
    agree = block.agreement
    text = (
        f"Agreement of {agree.listeners} listeners over {agree.targets} sounds: ICC(2,1) {number(agree.single, 2)} for "
        f"one listener, ICC(2,k) {number(agree.average, 2)} for their mean."
    )
    tables = [scores, *_pair_tables(label, block), *_model_tables(label, block)]
    return Section(f"{block.attribute}{where}: {who}", (text,), tuple(tables), figures)


def _pair_tables(label: dict[str, str], block: Block) -> list[Table]:
    if not block.pairs:
        return []
    differences: Rows = []
    tests: Rows = []
    for line in block.pairs:
        names = (label[line.tests.first], label[line.tests.second])
        plain, full = line.mixed, line.full
        differences.append(
            (
                *names,
                line.verdict,
                number(line.tests.difference, 1, signed=True),
                interval(line.tests.low, line.tests.high, signed=True),
                interval(plain.low, plain.high, signed=True) if plain else "–",
                interval(full.low, full.high, signed=True) if full else "–",
            )
        )
        p_values = (line.wilcoxon_holm, line.permutation_holm, line.full_holm, line.t_holm, line.tests.pooled_t_p)
        tests.append((*names, *(probability(value) for value in p_values)))
    return [
        Table(
            "Differences (first − second, points)",
            ("first", "second", "first is", "difference", "bootstrap 95 %", "plain model 95 %", "full model 95 %"),
            differences,
            3,
            ("Decided: 6 listeners, a bootstrap interval without zero and a corrected Wilcoxon test below 0.05.",),
        ),
        Table(
            "p-values",
            ("first", "second", "Wilcoxon", "permutation", "full model", "t-test", "pooled t, uncorrected"),
            tests,
            2,
            ("Over listeners, each averaged over the items; Holm-corrected over the lines.", T_TEST_CAVEAT),
        ),
    ]


def _model_tables(label: dict[str, str], block: Block) -> list[Table]:
    if block.mixed is None or block.full is None:
        return []
    rows: Rows = []
    for name, model in (("plain", block.mixed), ("full", block.full)):
        means = ", ".join(f"{label[condition]} {number(mean, 1)}" for condition, mean in model.means.items())
        sds = ", ".join(f"{effect} {number(sd, 1)}" for effect, sd in model.sds.items())
        rows.append((name, model.formula, means, sds))
    header = ("model", "formula", "means", "standard deviations")
    return [Table("Mixed models", header, rows, 4, (MODEL_NOTE,))]


def _pair_section(study: ListenStudy, block: PairBlock, figures: dict[str, str]) -> Section:
    label = {condition.id: condition.label for condition in study.conditions}
    rows: Rows = [
        (
            label[line.first],
            label[line.second],
            f"{line.outcome.hits:g}/{line.outcome.trials}",
            number(100 * line.outcome.share, 0),
            interval(100 * line.outcome.low, 100 * line.outcome.high, 0),
            probability(line.outcome.p_value),
            probability(corrected),
            str(len(line.by_listener)),
        )
        for line, corrected in zip(block.answers, block.holm, strict=True)
    ]
    what = "right" if study.kind == "abx" else "for the first"
    header = ("first", "second", what, "%", "95 %", "exact binomial p", "over listeners p (Holm)", "listeners")
    note = (
        "The binomial test and its interval (Clopper–Pearson) take answers for independent; the test over listeners "
        "(sign flips of their shares) does not."
    )
    tables = [Table("", header, rows, 2, (note,))]
    if study.kind == "abx":
        people: Rows = [
            (who, label[line.first], label[line.second], f"{hit.hits:g}/{hit.trials}", probability(hit.p_value))
            for line in block.answers
            for who, hit in line.by_listener.items()
        ]
        tables.append(Table("By listener", ("listener", "first", "second", "right", "p"), people, 3))
    if block.strengths:
        lines = sorted(block.strengths, key=lambda line: -line.strength)
        strengths: Rows = [
            (label[line.condition], number(line.strength, 2, True), interval(line.low, line.high, 2, True))
            for line in lines
        ]
        note = "Log-odds of being preferred to the mean of all; intervals from listeners drawn anew."
        tables.append(Table("Bradley–Terry strengths", ("condition", "strength", "95 %"), strengths, 1, (note,)))
    return Section(f"{block.attribute}: {study.kind.upper()} answers", (), tuple(tables), figures)


def _correlation_section(analysis: Analysis, attribute: str, figures: dict[str, str]) -> Section:
    rows: Rows = [
        (
            line.metric,
            number(line.spearman, 2, True),
            interval(line.low, line.high, 2, True),
            number(line.pearson, 2, True),
            number(line.kendall, 2, True),
            number(line.within, 2, True),
            str(line.points),
        )
        for line in analysis.correlations[attribute]
    ]
    header = ("metric", "Spearman", "95 %", "Pearson", "Kendall", "within excerpts", "points")
    note = "A point is one system on one excerpt, its rating the mean over listeners; intervals draw excerpts anew."
    return Section(f"{attribute}: objective metrics against ears", (), (Table("", header, rows, 1, (note,)),), figures)


@dataclass(frozen=True)
class Section:
    """A part of a report."""

    title: str
    text: tuple[str, ...] = ()  # paragraphs
    tables: tuple[Table, ...] = ()  # below the text
    figures: Mapping[str, str] = field(default_factory=dict)  # file name -> caption, below the tables
    warning: bool = False  # whether the text is a warning


def markdown_page(title: str, sections: Sequence[Section]) -> str:
    """Write sections as one Markdown page; figures are linked by their file names."""
    parts = [f"# {title}"]
    for section in sections:
        if section.title:
            parts.append(f"## {section.title}")
        parts += [f"> **{text}**" if section.warning else text for text in section.text]
        parts += [table.markdown().rstrip() for table in section.tables]
        parts += [f"![{caption}]({name})" for name, caption in section.figures.items()]
    return "\n\n".join(parts) + "\n"


def html_page(title: str, sections: Sequence[Section], images: Mapping[str, bytes]) -> str:
    """Write sections as one HTML page that needs no other file."""
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for section in sections:
        if section.title:
            parts.append(f"<h2>{html.escape(section.title)}</h2>")
        mark = ' class="warning"' if section.warning else ""
        parts += [f"<p{mark}>{html.escape(text)}</p>" for text in section.text]
        parts += [table.html() for table in section.tables]
        for name, caption in section.figures.items():
            data = base64.b64encode(images[name]).decode()
            words = html.escape(caption)
            picture = f'<img alt="{words}" src="data:image/png;base64,{data}">'
            parts.append(f"<figure>{picture}<figcaption>{words}</figcaption></figure>")
    body = "\n".join(parts)
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n'
    )


def interval(low: float, high: float, digits: int = 1, signed: bool = False) -> str:
    """Write an interval as "low to high"; a dash where it is missing."""
    if math.isnan(low) or math.isnan(high):
        return MISSING
    return f"{number(low, digits, signed)} to {number(high, digits, signed)}"


def probability(value: float) -> str:
    """Write a p-value with two digits that count; a dash where it is missing."""
    if math.isnan(value):
        return MISSING
    return "<0.0001" if value < 1e-4 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"
