"""Log-mel spectra brought to the range that a network likes, and back; averages are those of training data."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from polyres.core.errors import InputError

Scaling = Literal["none", "standard", "z_score", "percentile", "tanh"]
SCALINGS: tuple[str, ...] = get_args(Scaling)

PERCENTILES = (0.01, 0.99)
_STEEPNESS = 0.5  # of tanh: two standard deviations of a band go to 0.76
_ALMOST_ONE = 0.999
_LEAST = 0.05  # nat; a band that hardly moves is not blown up
_STRIDE_ABOVE = 1 << 22  # quantiles of more numbers are taken of every n-th


class MelScaling(nn.Module):
    """Maps log-mel spectra `[..., M]` to about unit range and back.

    `none` leaves them as they are; `standard` takes one mean and deviation for all bands, `z_score` those of each
    band; `percentile` maps the 1st and 99th percentile of each band to -1 and 1 and clips nothing; `tanh` squeezes
    z-scores into (-1, 1). The numbers are measured once on training data and stored with the weights: nothing has to
    be sent along with a latent, and a window does not depend on the rest of its file.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, kind: Scaling, mel_bins: int) -> None:
        """Start without any change, until `fit` has measured.

        Args:
            kind: a name in SCALINGS.
            mel_bins: M.
        """
        super().__init__()
        self.kind = kind
        self.register_buffer("shift", torch.zeros(mel_bins))
        self.register_buffer("scale", torch.ones(mel_bins))

    @torch.no_grad()
    def fit(self, log_mel: Tensor) -> None:
        """Measure training data.

        Args:
            log_mel: `[..., N, M]`, natural logarithms.

        Raises:
            InputError: when there are no frames, or M does not fit.
        """
        bins = len(self.shift)
        if log_mel.ndim < 2 or log_mel.shape[-1] != bins or not log_mel.numel():
            raise InputError(f"log-mel spectra have shape {list(log_mel.shape)}; [N, {bins}] with N > 0 is needed")
        frames = log_mel.reshape(-1, bins).float()
        if self.kind == "none":
            return
        if self.kind == "percentile":
            every = max(1, frames.numel() // _STRIDE_ABOVE)
            low, high = torch.quantile(frames[::every], torch.tensor(PERCENTILES, device=frames.device), dim=0)
            shift, scale = (low + high) / 2, (high - low) / 2
        elif self.kind == "standard":
            shift, scale = frames.mean().expand(bins), frames.std(unbiased=False).expand(bins)
        else:
            shift, scale = frames.mean(dim=0), frames.std(dim=0, unbiased=False)
        self.shift.copy_(shift)
        self.scale.copy_(scale.clamp_min(_LEAST))

    def forward(self, log_mel: Tensor) -> Tensor:
        """Map log-mel spectra `[..., M]` to the range of the network."""
        scaled = (log_mel - self.shift) / self.scale
        return torch.tanh(_STEEPNESS * scaled) if self.kind == "tanh" else scaled

    def undo(self, scaled: Tensor) -> Tensor:
        """Map back; beyond the range of tanh the ends of it are meant."""
        if self.kind == "tanh":
            scaled = torch.atanh(scaled.clamp(-_ALMOST_ONE, _ALMOST_ONE)) / _STEEPNESS
        return scaled * self.scale + self.shift
