"""A separator that listens at some of its resolutions only."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from polyres.models.separator import Separator


class Subset(nn.Module):
    """A separator with all but some resolutions switched off.

    Args:
        model: the whole separator; shared, not copied.
        active: positions in `model.config.n_fft` of the resolutions that listen; empty for none.
    """

    def __init__(self, model: Separator, active: Collection[int]) -> None:
        super().__init__()
        self.model = model
        self.active = tuple(sorted(set(active)))

    def forward(self, mix: Tensor) -> Tensor:
        """Separate `[B, C, T]` into `[B, S, C, T]` with the active resolutions."""
        return self.model(mix, self.active)
