"""Score a separator on whole tracks; choose the estimates for deep supervision."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from polyres.core.errors import ConfigError
from polyres.datasets.stem_files import SILENT_PEAK
from polyres.metrics.separation import ENERGY_FLOOR
from polyres.nn.fusion.base import FusionShape, allowed_table
from polyres.separation.model import SeparatorConfig


@dataclass(frozen=True)
class Cutting:
    """How a track is cut: segment length and overlap in samples, segments per forward pass."""

    segment_samples: int
    overlap: float = 0.0
    batch_size: int = 4


def finished_pieces(forward: Callable[[Tensor], Tensor], mix: Tensor, cutting: Cutting) -> Iterator[tuple[int, Tensor]]:
    """Separate a track of any length piece by piece, in memory that does not grow with its length.

    `forward`: maps mixtures `[B, C, T]` to estimates `[B, ..., T]`; `mix`: the whole mixture `[C, T]`. Yields where a
    piece begins, in samples, and the piece `[..., n]`; they stand side by side and cover the track.
    """
    size, length = cutting.segment_samples, mix.shape[-1]
    stride = max(round(size * (1 - cutting.overlap)), 1)
    starts = list(range(0, max(length - (size - stride), 1), stride))
    padded = torch.nn.functional.pad(mix, (0, starts[-1] + size - length))
    ramp = torch.arange(1, size + 1, dtype=mix.dtype)
    fade = torch.minimum(ramp, ramp.flip(0)) if stride < size else torch.ones(size, dtype=mix.dtype)
    total, weight = torch.zeros(1), torch.zeros(size, dtype=mix.dtype)
    for first in range(0, len(starts), cutting.batch_size):
        group = starts[first : first + cutting.batch_size]
        estimates = forward(torch.stack([padded[:, start : start + size] for start in group])).float().cpu()
        for start, estimate in zip(group, estimates, strict=True):
            total, weight = total + estimate * fade, weight + fade
            # Later segments begin a stride further, so nothing is added to what lies before.
            done = stride if start != starts[-1] else length - start
            yield start, total[..., :done] / weight[:done]
            total = torch.nn.functional.pad(total[..., done:], (0, done))
            weight = torch.nn.functional.pad(weight[done:], (0, done))


def score_tracks(
    forward: Callable[..., Any],
    tracks: Iterable[Tensor],
    sources: Sequence[str],
    cutting: Cutting,
    resolutions: Sequence[int] = (),
    average: Literal["mean", "median"] = "mean",
) -> dict[str, float]:
    """Score a separator on tracks.

    `forward`: maps mixtures `[B, C, T]` to stems `[B, S, C, T]`; where resolutions are asked for, it is called with
    `(mix, None, True)` and also returns every resolution's own estimate `[B, R, S, C, T]`. `tracks`: true stems
    `[S, C, T]`; their sum is the mixture.
    """

    def estimates(mix: Tensor) -> Tensor:
        """Put the estimate before those of the resolutions: `[B, 1 + R, S, C, T]`."""
        if not resolutions:
            return torch.as_tensor(forward(mix))[:, None]
        whole, alone = forward(mix, None, True)
        return torch.cat([whole[:, None], alone], dim=1)

    by_name: dict[str, list[float]] = {}
    means: list[float] = []
    for stems in tracks:
        there = (stems.abs().amax(dim=(1, 2)) >= SILENT_PEAK).tolist()
        values = _nsdr_of_estimates(estimates, stems, cutting).tolist()
        for ending, row in zip(["", *(f"@{name}" for name in resolutions)], values, strict=True):
            for source, value, present in zip(sources, row, there, strict=True):
                if present:
                    by_name.setdefault(source + ending, []).append(value)
        if any(there):
            means.append(sum(value for value, present in zip(values[0], there, strict=True) if present) / sum(there))
    if not means:
        return {}
    names = [source + ending for ending in ["", *(f"@{name}" for name in resolutions)] for source in sources]
    scores = {name: sum(by_name[name]) / len(by_name[name]) for name in names if name in by_name}
    return {"score": statistics.median(means) if average == "median" else statistics.fmean(means), **scores}


def _nsdr_of_estimates(forward: Callable[[Tensor], Tensor], stems: Tensor, cutting: Cutting) -> Tensor:
    """Return the nSDR `[K, S]` in dB of K estimates of the stems `[S, C, T]`, summed up piece by piece."""
    error: Tensor | float = 0.0
    for start, piece in finished_pieces(forward, stems.sum(dim=0), cutting):
        target = stems[..., start : start + piece.shape[-1]]
        error = error + (target - piece).double().square().sum(dim=(-2, -1))
    signal = stems.double().square().sum(dim=(-2, -1))
    return 10 * torch.log10((signal + ENERGY_FLOOR) / (error + ENERGY_FLOOR))


PARTS_KINDS = ("sum", "unet_notes")
"""Output fusions that do not start as an average of the branches."""


def branch_shares(config: SeparatorConfig) -> Tensor:
    """Say how much each resolution's own estimate counts, where such estimates are whole stems.

    Returns `[R, S]`, each column summing to 1: a source's weight is shared equally among the resolutions it may use.
    """
    kind = config.output.kind
    advice = "set loss.branch_weight to 0"
    if config.wave_branch:
        raise ConfigError(
            f"loss.branch_weight needs branches that give whole stems, but the wave branch adds to them; {advice} or "
            "model.wave_branch to false"
        )
    # Under a mask head `sum` divides by the number of branches.
    if kind in PARTS_KINDS and not (kind == "sum" and config.head == "mask"):
        raise ConfigError(
            f"loss.branch_weight needs branches that give whole stems, but output fusion {kind!r} puts stems together "
            f"from parts; {advice} or choose another model.output.kind"
        )
    shape = FusionShape(config.n_fft, config.sources, config.audio_channels, config.sample_rate_hz)
    allowed = allowed_table(config.output, shape).T.float()
    return allowed / allowed.sum(dim=0, keepdim=True)
