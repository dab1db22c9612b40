"""Distances between separated and true stems, each under a name, and their weighted sum."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from polyres.core.catalogue import Catalogue
from polyres.core.config import Config
from polyres.core.errors import ConfigError

Distance = Callable[[Tensor, Tensor], Tensor]
"""Takes estimate and target `[B, S, C, T]`, gives one value per signal `[B, S]`; smaller is better."""

LOG_POWER_FLOOR = 1e-5
"""Mean power (-50 dBFS) below which the decibel losses stop to care; it bounds their gradient on silent stems."""

MAGNITUDE_FLOOR = 1e-4
"""Spectral magnitude below which the logarithm stops to care."""


class LossConfig(Config):
    """Which distances are summed, and how much each counts; a weight of 0 leaves a term out.

    Distances are weighted over the sources and divided by the sum of the weights as they are written: `[1, 1, 1, 1]`
    (and none at all) gives the mean over four sources, one number alone counts for every source and gives their sum.
    Sum and mean differ in what is shown and in the scale of the gradient, by the number of sources; Adam's steps do not
    depend on that scale (up to its eps), but clipping, weight decay in the gradient and plain SGD do.

    `branch_weight`: deep supervision: how much the same sum counts for every resolution's own estimate, as the mean
    over the resolutions; `share_floor`: of `share`: the part of the mixture's power below which errors stop to count.
    """

    terms: dict[str, float] = {"l1": 1.0}  # weight of every distance by name
    source_weights: tuple[float, ...] | None = None  # one number per source, or one for all
    branch_weight: float = Field(default=0.0, ge=0)
    share_floor: float = Field(default=0.05, gt=0)
    stft_n_fft: tuple[int, ...] = Field(default=(512, 2048, 8192), min_length=1)  # of `stft`: window lengths in samples

    @field_validator("terms")
    @classmethod
    def _known(cls, terms: dict[str, float]) -> dict[str, float]:
        """Refuse unknown names and an empty sum."""
        for name in terms:
            LOSSES.get(name)
        if not any(weight > 0 for weight in terms.values()):
            raise ValueError("at least one term needs a weight above 0")
        return terms


LOSSES: Catalogue[Distance] = Catalogue("loss")


@LOSSES.register("l1", "mean absolute difference of the waveforms")
def _build_l1(config: LossConfig) -> Distance:
    """Build the mean absolute difference."""
    return lambda estimate, target: (estimate - target).abs().mean(dim=(-2, -1))


@LOSSES.register("mse", "mean squared difference of the waveforms")
def _build_mse(config: LossConfig) -> Distance:
    """Build the mean squared difference."""
    return lambda estimate, target: (estimate - target).square().mean(dim=(-2, -1))


def _log_ratio_db(part: Tensor, whole: Tensor) -> Tensor:
    """Return 10 log10 of a ratio of mean powers, both kept off zero."""
    return 10 * torch.log10((part + LOG_POWER_FLOOR) / (whole + LOG_POWER_FLOOR))


@LOSSES.register("nsdr", "negative nSDR in dB, bounded for silent stems")
def _build_nsdr(config: LossConfig) -> Distance:
    """Build the error power in decibels below the target's power."""

    def distance(estimate: Tensor, target: Tensor) -> Tensor:
        error = (estimate - target).square().mean(dim=(-2, -1))
        return _log_ratio_db(error, target.square().mean(dim=(-2, -1)))

    return distance


@LOSSES.register("share", "error power as a share of the mixture's, in dB, bounded below; kind to silent stems")
def _build_share(config: LossConfig) -> Distance:
    """Build the decibels of error power plus a fixed share of the mixture's power, over that share.

    Between the squared error (loud stems rule) and nSDR (silent stems rule, which teaches silence).
    """

    def distance(estimate: Tensor, target: Tensor) -> Tensor:
        error = (estimate - target).square().mean(dim=(-2, -1))
        floor = config.share_floor * target.sum(dim=1, keepdim=True).square().mean(dim=(-2, -1)) + LOG_POWER_FLOOR
        return 10 * torch.log10((error + floor) / floor)

    return distance


@LOSSES.register("si_sdr", "negative scale-invariant SDR in dB, bounded for silent stems")
def _build_si_sdr(config: LossConfig) -> Distance:
    """Build the decibels of what is not along the target, below what is."""

    def distance(estimate: Tensor, target: Tensor) -> Tensor:
        power = target.square().mean(dim=(-2, -1), keepdim=True)
        gain = (estimate * target).mean(dim=(-2, -1), keepdim=True) / (power + LOG_POWER_FLOOR)
        along = gain * target
        error = (estimate - along).square().mean(dim=(-2, -1))
        return _log_ratio_db(error, along.square().mean(dim=(-2, -1)))

    return distance


class MultiResolutionStft(nn.Module):
    """Difference of magnitude spectra, linear plus logarithmic, averaged over several window lengths.

    Source: Yamamoto et al. 2020, Parallel WaveGAN, equations 3 to 6, with plain means in place of the Frobenius ratio.
    """

    def __init__(self, n_fft: tuple[int, ...]) -> None:
        """Prepare the windows. `n_fft`: window lengths in samples; the hop is a quarter of each."""
        super().__init__()
        self.n_fft = n_fft
        for size in n_fft:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)

    def _magnitude(self, wave: Tensor, size: int) -> Tensor:
        """Return magnitudes of `[N, T]` waveforms as `[N, F, frames]`."""
        window = self.get_buffer(f"window_{size}")
        # Zeros outside the signal suit any length; reflection would refuse signals shorter than half a window.
        spectrum = torch.stft(
            wave, size, size // 4, window=window, normalized=True, pad_mode="constant", return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()
        return (power + MAGNITUDE_FLOOR**2).sqrt()

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Compare waveforms.

        `estimate`: separated stems `[B, S, C, T]`; `target`: true stems of the same shape. Returns the distance of
        every signal `[B, S]`, 0 for equal ones.
        """
        length = estimate.shape[-1]
        total = estimate.new_zeros(estimate.shape[:2])
        for size in self.n_fft:
            with torch.no_grad():
                wanted = self._magnitude(target.reshape(-1, length), size)
            given = self._magnitude(estimate.reshape(-1, length), size)
            apart = (given - wanted).abs() + (given.log() - wanted.log()).abs()
            total = total + apart.unflatten(0, estimate.shape[:3]).mean(dim=(2, 3, 4))
        return total / len(self.n_fft)


@LOSSES.register("stft", "multi-resolution STFT: linear plus logarithmic magnitude difference")
def _build_stft(config: LossConfig) -> Distance:
    """Build the spectral distance over the configured window lengths."""
    return MultiResolutionStft(config.stft_n_fft)


class WeightedLoss(nn.Module):
    """Several named distances between stems, and the sum that is minimised."""

    def __init__(self, config: LossConfig, num_sources: int) -> None:
        """Build the distances. Raises ConfigError if the number of source weights is wrong or none is above 0."""
        super().__init__()
        given = config.source_weights or (1.0,) * num_sources
        if len(given) not in (1, num_sources) or min(given) < 0 or sum(given) <= 0:
            raise ConfigError(
                f"loss.source_weights is {list(given)}; give {num_sources} numbers, none below 0 and one above, "
                "or one number for all"
            )
        self.terms = {name: weight for name, weight in config.terms.items() if weight != 0}
        self.distances: dict[str, Distance] = {name: LOSSES.build(name, config) for name in self.terms}
        # Modules are registered so that their buffers follow the device.
        self.parts = nn.ModuleList(d for d in self.distances.values() if isinstance(d, nn.Module))
        weights = (torch.tensor(given) / sum(given)).expand(num_sources)
        self.register_buffer("source_weights", weights.clone(), persistent=False)

    def forward(self, estimate: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare stems.

        `estimate`: separated stems `[B, S, C, T]`; `target`: true stems of the same shape. Returns the weighted sum to
        minimise, and every term on its own before weighting (detached); all of them are means over the batch, and sums
        over the sources times the source weights.
        """
        return self._total(estimate, target, self.get_buffer("source_weights"))

    def branches(
        self, waves: Tensor, target: Tensor, shares: Tensor, names: Sequence[object]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare the estimates of single resolutions with the stems.

        `waves`: every resolution's own estimate `[B, R, S, C, T]`. `target`: true stems `[B, S, C, T]`. `shares`: how
        much each resolution counts per source `[R, S]`; 1/R everywhere gives the mean over resolutions. `names`: of the
        R resolutions, for the terms. Returns the sum to minimise, and the terms of every resolution, such as `l1@4096`
        (detached), whose mean over the resolutions is their part of the sum before weighting.
        """
        total = waves.new_zeros(())
        values: dict[str, Tensor] = {}
        for wave, share, name in zip(waves.unbind(dim=1), shares, names, strict=True):
            weights = self.get_buffer("source_weights") * share.to(waves.device) * len(shares)
            part, terms = self._total(wave, target, weights)
            total = total + part / len(shares)
            values |= {f"{term}@{name}": value for term, value in terms.items()}
        return total, values

    def _total(self, estimate: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum and the terms for given weights `[S]`."""
        total = estimate.new_zeros(())
        values: dict[str, Tensor] = {}
        for name, weight in self.terms.items():
            value = (self.distances[name](estimate, target).mean(dim=0) * weights).sum()
            values[name] = value.detach()
            total = total + weight * value
        return total, values


class PerceptualDistance(nn.Module):
    """Mean absolute difference of features of a frozen network, each layer relative to its own size.

    Source: Hou et al. 2017, Deep feature consistent variational autoencoder; Johnson et al. 2016, Perceptual losses
    for real-time style transfer. The network is a copy: training what it was copied from does not change it.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        """Copy and freeze a network.

        `layers`: submodules whose outputs are features, by dotted name. Raises ConfigError if there are none, or the
        network has no submodule of a name.
        """
        super().__init__()
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        known = dict(self.network.named_modules())
        for name in layers:
            if name not in known or not name:
                raise ConfigError(f"the network has no layer {name!r}; known: {', '.join(list(known)[1:8])} …")
        if not layers:
            raise ConfigError("a perceptual distance needs at least one layer")
        self.layers = tuple(layers)

    def train(self, mode: bool = True) -> PerceptualDistance:
        """Stay in evaluation mode, whatever is around it."""
        return super().train(False)

    def features(self, value: Tensor) -> list[Tensor]:
        """Return what the layers give, in their order in the network."""
        found: list[Tensor] = []
        hooks = [
            self.network.get_submodule(name).register_forward_hook(lambda _, __, output: found.append(output))
            for name in self.layers
        ]
        try:
            self.network(value)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Compare two batches.

        `estimate`: as the network takes it; gradients pass through. Returns the mean over the layers of the difference,
        in units of the target's mean absolute deviation; a scalar.
        """
        with torch.no_grad():
            wanted = self.features(target)
        given = self.features(estimate)
        parts = [
            (got - want).abs().mean() / (want - want.mean()).abs().mean().clamp_min(1e-6)
            for got, want in zip(given, wanted, strict=True)
        ]
        return torch.stack(parts).mean()
