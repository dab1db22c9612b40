"""Compute Shapley values of resolutions from the scores of all their coalitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from polyres.core.errors import ConfigError
from polyres.metrics.coalitions import members, shapley_values
from polyres.study.evaluate.rows import RowFile, ScoreRow
from polyres.study.evaluate.run import ROWS_FILE
from polyres.study.evaluate.subjects import ModelSubject, Origin, Subject, resolutions_of

MAX_RESOLUTIONS = 8
"""Most resolutions for which all coalitions are scored: 2^8 passes over every track."""
SHAPLEY = "shapley"


def coalition_name(n_fft: Sequence[int], coalition: int) -> str:
    """Name a coalition: "all", "none", "only 1024", "without 1024" or "with 1024 4096"."""
    inside = [n_fft[place] for place in members(coalition)]
    if len(inside) == len(n_fft):
        return "all"
    if not inside:
        return "none"
    if len(inside) == 1:
        return f"only {inside[0]}"
    if len(inside) == len(n_fft) - 1:
        return f"without {next(size for size in n_fft if size not in inside)}"
    return f"with {' '.join(map(str, inside))}"


@dataclass(frozen=True)
class SilentSubject:
    """A model without wave branch of which no resolution listens: silence, without a pass."""

    name: str
    origin: Origin
    part: str = "none"

    def estimate(self, track: str, mixture: Tensor, sources: Sequence[str], sample_rate_hz: int) -> Tensor:
        """Return silence."""
        return mixture.new_zeros(len(sources), *mixture.shape)


def coalitions_of(whole: ModelSubject) -> list[Subject]:
    """Return every coalition of a model's resolutions but the full one.

    Args:
        whole: the model.

    Returns:
        The coalitions, largest first.

    Raises:
        ConfigError: for a bag, a model of one resolution, or one of too many.
    """
    model = resolutions_of(whole)
    sizes = model.config.n_fft
    if len(sizes) > MAX_RESOLUTIONS:
        raise ConfigError(
            f"{whole.name} has {len(sizes)} resolutions, so {2 ** len(sizes)} coalitions; Shapley values go up to "
            f"{MAX_RESOLUTIONS} resolutions: use --parts"
        )
    subjects: list[Subject] = []
    for coalition in sorted(range(2 ** len(sizes) - 1), key=lambda one: -one.bit_count()):
        name = coalition_name(sizes, coalition)
        if coalition == 0 and model.wave is None:
            subjects.append(SilentSubject(whole.name, whole.origin))
            continue
        part = whole.separator.listening([sizes[place] for place in members(coalition)])
        subjects.append(replace(whole, separator=part, part=name))
    return subjects


def shapley_rows(rows: Sequence[ScoreRow], n_fft: Sequence[int]) -> list[ScoreRow]:
    """Compute the exact Shapley value of every resolution per track, source and metric; no row where a score is
    missing.
    """
    full = 2 ** len(n_fft) - 1
    places = {coalition_name(n_fft, coalition): coalition for coalition in range(full + 1)}
    games: dict[tuple[str, str, str], dict[int, ScoreRow]] = {}
    for row in rows:
        if row.part in places:
            games.setdefault((row.track, row.source, row.metric), {})[places[row.part]] = row
    found = []
    for game in games.values():
        scores = [game[coalition].value if coalition in game else None for coalition in range(full + 1)]
        known = [score for score in scores if score is not None]
        if len(known) < len(scores):
            continue
        values = shapley_values(torch.tensor(known, dtype=torch.float64)).tolist()
        whole = replace(game[full], frames=None, frames_invalid=None, window_mean=None)
        found += [replace(whole, part=f"{SHAPLEY} {n}", value=value) for n, value in zip(n_fft, values, strict=True)]
    return found


def add_shapley(out: Path, whole: ModelSubject, rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """Add the Shapley values of a model's resolutions to what the folder of results holds.

    Args:
        out: folder with `scores.jsonl`.
        whole: the model.
        rows: its scores, those of its coalitions among them.

    Returns:
        The rows with the Shapley values, old and new.

    Raises:
        ConfigError: if the model has no resolutions to take apart.
        OutputError: if they cannot be written.
    """
    own = [row for row in rows if (row.model, row.weights_id) == (whole.name, whole.origin.weights_id)]
    wanted = shapley_rows(own, resolutions_of(whole).config.n_fft)
    file = RowFile(out / ROWS_FILE)
    there = {_key(row) for row in file.rows}
    new = [row for row in wanted if _key(row) not in there]
    if new:
        file.append(new)
    return wanted


def _key(row: ScoreRow) -> tuple[str | None, ...]:
    return row.model, row.part, row.track, row.source, row.metric, row.weights_id
