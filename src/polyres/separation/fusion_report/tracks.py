"""What resolutions do on real tracks: knock-outs, Shapley values, levels, correlations and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from polyres.audio.track_files import list_tracks
from polyres.core.errors import AnalysisError, InputError
from polyres.datasets.stem_files import SILENT_PEAK, most_active_excerpt
from polyres.datasets.tracks import load_track
from polyres.metrics.coalitions import knock_outs, members, shapley_values
from polyres.metrics.separation import ENERGY_FLOOR
from polyres.nn.fusion.networks import GatedFusion
from polyres.separation.model import Separator

MAX_SHAPLEY = 10
"""Most resolutions for which all coalitions are tried: 2^10 passes over every excerpt."""

Table = list[list[float]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class DataOptions:
    """What is listened to, and how much is asked."""

    folder: Path
    seconds: float = 30.0  # of every track, its busiest excerpt; 0 takes whole tracks
    max_tracks: int = 0  # of the folder, in order; 0 takes all
    shapley: bool = True  # try all coalitions; else only those without one resolution


@dataclass(frozen=True)
class DataReport:
    """What the resolutions of a model do on tracks. Tables are `[R][S]`: resolution by source.

    Scores are nSDR in dB, the mean over the tracks that have the source; `tracks_with` counts those.
    """

    tracks: list[str]
    seconds: float
    tracks_with: list[int]
    full_db: list[float]
    empty_db: list[float]  # score without any: of the wave branch alone, or of silence (0 dB)
    alone_db: Table | None  # score with one resolution active; None without Shapley values, as is the next
    shapley_db: Table | None
    knock_out_db: Table
    level_dbfs: Table
    reference_dbfs: list[float]
    correlation: list[Table]  # `[S][R][R]` between the resolutions' own estimates
    error_correlation: list[Table]  # `[S][R][R]` between their errors: the less, the more averaging them helps
    gradient_norm: list[float]  # L2 norm of the gradient of the mean absolute error in each branch's parameters
    gradient_share: list[float]  # the same as a share of the sum over the branches
    moving_weights: Table | None = None  # mean over time of weights that move with it (`gated`), else None
    moving_deviation: Table | None = None


class _Sums:
    """Sums over the samples of all tracks."""

    def __init__(self, resolutions: int, sources: int) -> None:
        self.samples = 0
        self.products = torch.zeros(sources, resolutions, resolutions, dtype=torch.float64)
        self.error_products = torch.zeros_like(self.products)
        self.energy = torch.zeros(sources, dtype=torch.float64)
        self.moving = torch.zeros(2, resolutions, sources, dtype=torch.float64)
        self.gradients: list[Tensor] = []

    def take(self, branches: Tensor, stems: Tensor) -> None:
        """Add a piece: estimates `[R, S, C, T]` and stems `[S, C, T]`."""
        count = stems.shape[1] * stems.shape[2]
        self.samples += count
        self.energy += stems.double().square().sum(dim=(1, 2))
        errors = branches - stems
        for products, waves in ((self.products, branches), (self.error_products, errors)):
            rows = waves.transpose(0, 1).flatten(2).double()
            products += rows @ rows.transpose(1, 2)


def analyse_data(
    model: Separator, options: DataOptions, say: Say = lambda line: None, failed: Say | None = None
) -> DataReport:
    """Listen to what every resolution does.

    `model`: two or more resolutions, on the device to use. `options`: where the tracks are, and how much is asked.
    `failed`: receives a line for each track that cannot be read, which is left out; None ends with the first. Raises
    InputError when a track cannot be read and `failed` is None, or none can; AnalysisError when there are no tracks, or
    none of them has any of the sources.
    """
    count, sources = len(model.config.n_fft), len(model.sources)
    folders = _folders(model, options)
    wanted = _coalitions(count, options.shapley)
    sums = _Sums(count, sources)
    scores = torch.zeros(2**count, sources, dtype=torch.float64)
    tracks_with = torch.zeros(sources, dtype=torch.float64)
    names: list[str] = []
    seconds = 0.0
    for number, folder in enumerate(folders, start=1):
        try:
            stems = _excerpt(folder, model, options.seconds)
        except InputError as error:
            if failed is None or (number == len(folders) and not names):
                raise
            failed(str(error))
            continue
        say(f"{number}/{len(folders)} {folder.name}: {len(wanted)} passes")
        names.append(folder.name)
        seconds += stems.shape[-1] / model.sample_rate_hz
        errors = _errors(model, stems, wanted, sums)
        signal = stems.double().square().sum(dim=(1, 2))
        there = (stems.abs().amax(dim=(1, 2)) >= SILENT_PEAK).double()
        scores += there * 10 * torch.log10((signal + ENERGY_FLOOR) / (errors + ENERGY_FLOOR))
        tracks_with += there
    if not tracks_with.any():
        raise AnalysisError(f"all stems under {options.folder} are silent; give tracks with {', '.join(model.sources)}")
    scores /= tracks_with  # NaN for a source that no track has
    return _report(names, seconds, tracks_with, scores, sums, options.shapley, model)


def _folders(model: Separator, options: DataOptions) -> list[Path]:
    folders = list_tracks(options.folder, model.sources)
    if not folders:
        raise AnalysisError(f"{options.folder} has no track folders; each needs stems such as {model.sources[0]}.wav")
    return folders[: options.max_tracks or None]


def _coalitions(count: int, all_of_them: bool) -> list[int]:
    """Return the coalitions to try; the full one comes first."""
    full = 2**count - 1
    if not all_of_them:
        return [full, *(full ^ 1 << index for index in range(count)), 0]
    if count > MAX_SHAPLEY:
        raise AnalysisError(
            f"{count} resolutions make {2**count} coalitions; add --no-shapley (Shapley values go up to {MAX_SHAPLEY})"
        )
    return list(range(full, -1, -1))


def _excerpt(folder: Path, model: Separator, seconds: float) -> Tensor:
    """Read stems `[S, C, T]`, or the busiest part of them."""
    stems = load_track(folder, model.sources, model.sample_rate_hz, model.audio_channels)
    if not seconds:
        return stems
    return most_active_excerpt(stems, max(round(seconds * model.sample_rate_hz), 1), model.sample_rate_hz)


def _errors(model: Separator, stems: Tensor, wanted: list[int], sums: _Sums) -> Tensor:
    """Return the energy of the error of every coalition `[2^R, S]`, and add to the sums."""
    count = len(model.config.n_fft)
    errors = torch.zeros(2**count, len(model.sources), dtype=torch.float64)
    device = next(model.parameters()).device
    for number, piece in enumerate(stems.split(model.segment_samples, dim=-1)):
        mix = piece.sum(dim=0)[None].to(device)
        target = piece.to(device)
        if number == 0:
            sums.gradients.append(branch_gradients(model, mix, target))
        for coalition in wanted:
            estimate = _separate(model, mix, target, coalition, sums)
            errors[coalition] += (estimate - target).double().square().sum(dim=(1, 2)).cpu()
    return errors


@torch.no_grad()
def _separate(model: Separator, mix: Tensor, target: Tensor, coalition: int, sums: _Sums) -> Tensor:
    """Return the estimate `[S, C, T]` of a coalition; the full one also adds to the sums."""
    if coalition == 0 and model.wave is None:
        return torch.zeros_like(target)  # silence, without a pass
    if coalition != 2 ** len(model.config.n_fft) - 1:
        estimate: Tensor = model(mix, members(coalition))[0]
        return estimate
    estimate, branches = model(mix, return_branches=True)
    sums.take(branches[0].cpu(), target.cpu())
    if isinstance(model.output, GatedFusion):
        moving = model.output.moving_weights(branches, torch.ones(branches.shape[1], device=mix.device))[0].double()
        channels = target.shape[1]
        sums.moving += channels * torch.stack([moving.sum(dim=-1), moving.square().sum(dim=-1)]).cpu()
    return estimate[0]


def branch_gradients(model: Separator, mix: Tensor, target: Tensor) -> Tensor:
    """L2 norm of the gradient of the mean absolute error in the parameters of every branch; the model stays as it is.

    `mix`: `[1, C, T]`; `target`: `[S, C, T]`. Returns `[R]`, float64.
    """
    groups = [[value for value in branch.parameters() if value.requires_grad] for branch in model.branches]
    with torch.enable_grad():
        loss = (model(mix)[0] - target).abs().mean()
        grads = torch.autograd.grad(loss, [value for group in groups for value in group], allow_unused=True)
    norms, start = [], 0
    for group in groups:
        own = [grad.double().square().sum() for grad in grads[start : start + len(group)] if grad is not None]
        norms.append(torch.stack(own).sum().sqrt() if own else torch.zeros((), dtype=torch.float64))
        start += len(group)
    return torch.stack([norm.cpu() for norm in norms])


def correlations(products: Tensor) -> Tensor:
    """Turn sums of products `[..., R, R]` into correlations (without removing means); NaN where one is silent."""
    norms = products.diagonal(dim1=-2, dim2=-1).sqrt()
    return products / (norms[..., :, None] * norms[..., None, :])


def _report(
    names: list[str],
    seconds: float,
    tracks_with: Tensor,
    scores: Tensor,
    sums: _Sums,
    shapley: bool,
    model: Separator,
) -> DataReport:
    count = len(model.config.n_fft)
    power = sums.products.diagonal(dim1=-2, dim2=-1).t() / sums.samples
    gradients = torch.stack(sums.gradients).mean(dim=0)
    moving = deviation = None
    if isinstance(model.output, GatedFusion):
        mean, square = sums.moving / sums.samples
        moving, deviation = mean.tolist(), (square - mean.square()).clamp_min(0).sqrt().tolist()
    return DataReport(
        tracks=names,
        seconds=seconds,
        tracks_with=[int(value) for value in tracks_with],
        full_db=scores[-1].tolist(),
        empty_db=scores[0].tolist(),
        alone_db=scores[[1 << index for index in range(count)]].tolist() if shapley else None,
        shapley_db=shapley_values(scores).tolist() if shapley else None,
        knock_out_db=knock_outs(scores).tolist(),
        level_dbfs=(10 * torch.log10(power)).tolist(),
        reference_dbfs=(10 * torch.log10(sums.energy / sums.samples)).tolist(),
        correlation=correlations(sums.products).tolist(),
        error_correlation=correlations(sums.error_products).tolist(),
        gradient_norm=gradients.tolist(),
        gradient_share=(gradients / gradients.sum()).tolist(),
        moving_weights=moving,
        moving_deviation=deviation,
    )
