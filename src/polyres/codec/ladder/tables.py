"""Medians over files, and which rung of the ladder loses most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from polyres.codec.ladder.climb import CONTROLS, ENVELOPE_LAG, LadderRow
from polyres.codec.ladder.rungs import RUNGS, Rung
from polyres.core.tables import MISSING, Table
from polyres.metrics.aggregate import bootstrap_interval
from polyres.metrics.reconstruction.spectra import RECONSTRUCTION_BANDS_HZ

RESAMPLES, SEED = 2000, 0
GOLDEN_NAT = 0.3
"""Distance of log-mel spectra up to which what a chain made itself counts as passing unharmed: about 2.6 dB."""


@dataclass(frozen=True)
class Middle:
    """A median over files."""

    value: float  # the median; NaN where there is none
    low: float  # lower end of its 95 % interval; NaN with one file
    high: float  # upper end
    files: int  # that have a number
    invalid: str | None = None  # why there is no number; None where there may be


@dataclass(frozen=True)
class Verdict:
    """The rung that loses most in a band."""

    band: str  # of `RECONSTRUCTION_BANDS_HZ`
    rung: str
    after: str  # the rung below it
    loss: Middle  # how much log_mel_l1 of the band grows from the rung below, nat


def middle(values: Sequence[float], invalid: str | None = None) -> Middle:
    """Take the median of what is a number, with its bootstrap interval."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return Middle(math.nan, math.nan, math.nan, 0, invalid)
    low, high = bootstrap_interval(known, "median", seed=SEED, resamples=RESAMPLES)
    return Middle(median(known), low, high, len(known), invalid)


def summarise(rows: Sequence[LadderRow]) -> dict[tuple[str, str], Middle]:
    """Take medians over files.

    Args:
        rows: of any number of files; those of a golden file are left out.

    Returns:
        By label of the take and metric, in the order they first appear.
    """
    groups: dict[tuple[str, str], list[LadderRow]] = {}
    for row in rows:
        if not row.golden:
            groups.setdefault((row.label, row.metric), []).append(row)
    return {key: middle([row.value for row in group], group[0].invalid) for key, group in groups.items()}


def judge(rows: Sequence[LadderRow], rungs: Sequence[Rung]) -> dict[str, Verdict]:
    """Find the rung of the chain that loses most in every band, without controls and remedies."""
    errors: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        if not row.golden and not row.take:
            errors.setdefault((row.rung, row.metric), {})[row.file] = row.value
    found = {}
    for band in RECONSTRUCTION_BANDS_HZ:
        metric = f"log_mel_l1_{band}"
        steps = []
        for rung in rungs:
            below = next((name for name in rung.after if (name, metric) in errors), None)
            if not rung.counts or below is None or (rung.name, metric) not in errors:
                continue
            mine, under = errors[rung.name, metric], errors[below, metric]
            loss = middle([mine[file] - under[file] for file in mine if file in under])
            if not math.isnan(loss.value):
                steps.append(Verdict(band, rung.name, below, loss))
        if steps:
            found[band] = max(steps, key=lambda step: step.loss.value)
    return found


def golden_verdict(rows: Sequence[LadderRow]) -> tuple[float, bool] | None:
    """Say whether the chain passes its own golden output unharmed: log_mel_l1 of R6, and whether it is small enough."""
    for row in rows:
        if row.golden and row.rung == "R6" and row.metric == "log_mel_l1":
            return row.value, row.value <= GOLDEN_NAT
    return None


INVALID = "invalid here"
COLUMNS: tuple[tuple[str, str, int], ...] = (
    ("snr", "SNR dB", 2),
    ("log_mel_l1", "log-mel nat", 3),
    ("log_mel_l1_low", "< 500 Hz", 3),
    ("log_mel_l1_mid", "500–4k Hz", 3),
    ("log_mel_l1_high", "> 4k Hz", 3),
    ("lsd", "LSD", 3),
    ("mr_stft", "MR-STFT", 3),
    ("band_error_high", "> 4k dB", 1),
    ("retention_high", "kept %", 1),
    ("lag", "lag", 1),
    (ENVELOPE_LAG, "env. lag", 0),
    ("gain", "gain dB", 2),
)
BAND_NAMES = {"low": "below 500 Hz", "mid": "500 Hz to 4 kHz", "high": "above 4 kHz"}


def cell(found: Middle | None, digits: int, interval: bool = True) -> str:
    """Write a median with its interval; "invalid here" where a number would mean nothing."""
    if found is None:
        return MISSING
    if found.invalid is not None:
        return INVALID
    text = _number(found.value, digits)
    if not interval or math.isnan(found.low):
        return text
    low, high = _number(found.low, digits), _number(found.high, digits)
    return text if low == high == text else f"{text} [{low}, {high}]"


def _number(value: float, digits: int) -> str:
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{round(value, digits) + 0.0:.{digits}f}"


def ladder_table(
    rows: Sequence[LadderRow], title: str, intervals: bool = True, missing: Mapping[str, str] | None = None
) -> Table:
    """Put the metrics of all rungs into one table.

    Args:
        rows: of any number of files.
        intervals: write those of the medians beside them.
        missing: rungs left out, with the reason; they have a line without numbers.

    Returns:
        Controls first, then the rungs from the bottom up.
    """
    found = summarise(rows)
    remarks = {row.label: row.remark for row in rows}
    lines = []
    for label in dict.fromkeys(row.label for row in rows if not row.golden):
        name = label.partition(" ")[0]
        what = "control" if name in CONTROLS else RUNGS.build(name).title
        what += f" ({remarks[label]})" if remarks[label] else ""
        lines.append(
            (label, what, *(cell(found.get((label, metric)), digits, intervals) for metric, _, digits in COLUMNS))
        )
    for name, reason in (missing or {}).items():
        word = "no weights" if reason.startswith("no weights") else "left out"
        lines.append((name, f"{RUNGS.build(name).title} ({word})", *(MISSING for _ in COLUMNS)))
    order = [*CONTROLS, *RUNGS.names()]
    lines.sort(key=lambda line: order.index(line[0].partition(" ")[0]))
    notes = (
        "log-mel and its three bands, LSD, MR-STFT: lower is better. kept: energy above 4 kHz, which anything loud "
        "wins. lag, env. lag: of waveform and envelope, in samples. Medians over files"
        + (" with 95 % bootstrap intervals." if intervals else "."),
        f"{INVALID}: the phase is made up, or there is no waveform; silence would score better than a good result.",
    )
    return Table(title, ("rung", "what", *(name for _, name, _ in COLUMNS)), lines, text_columns=2, notes=notes)


def closing_lines(rows: Sequence[LadderRow], rungs: Sequence[Rung]) -> list[str]:
    """Name the rung that loses most in every band, and judge the golden file.

    Args:
        rungs: those that were to be run.
    """
    lines = []
    for band, verdict in judge(rows, rungs).items():
        rung = RUNGS.build(verdict.rung)
        loss = cell(verdict.loss, 3)
        lines.append(f"{BAND_NAMES[band]}: {rung.name} ({rung.title}) loses most, {loss} nat over {verdict.after}")
    if (golden := golden_verdict(rows)) is not None:
        passed = "passes nearly unharmed" if golden[1] else "does not pass unharmed"
        lines.append(f"golden file: {passed}, log-mel {golden[0]:.3f} nat at R6; up to {GOLDEN_NAT} counts as unharmed")
    return lines


def rung_table(missing: Mapping[str, str], names: Sequence[str]) -> Table:
    """List the rungs: what each keeps and loses, or why it is left out."""
    lines: list[tuple[str, ...]] = []
    for rung in (RUNGS.build(name) for name in names):
        phase = {"codec": "as the codec"}.get(rung.phase, rung.phase)
        lines.append((rung.name, rung.title, rung.keeps, rung.loses, phase, missing.get(rung.name, "")))
    return Table("", ("rung", "what", "keeps", "loses", "phase", "left out because"), lines, text_columns=6)


def ladder_markdown(rows: Sequence[LadderRow], names: Sequence[str], missing: Mapping[str, str], codec: str) -> str:
    """Write the whole ladder as Markdown.

    Args:
        names: rungs that were asked for.
        missing: those left out, with the reason.
    """
    files = len({row.file for row in rows if not row.golden})
    title = f"{codec}, {files} file{'s' if files != 1 else ''}"
    closing = [f"- {line}" for line in closing_lines(rows, [RUNGS.build(name) for name in names])]
    parts = [f"# Ladder of {codec}", ladder_table(rows, title, missing=missing).markdown(), "## Rungs"]
    parts += [rung_table(missing, names).markdown(), "## What loses most", "\n".join(closing)]
    return "\n\n".join(parts) + "\n"
