"""Moving features between the time-frequency grids of different resolutions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

REFERENCE_N_FFT = 4096


def reference_index(n_ffts: Sequence[int]) -> int:
    """Position of the resolution whose grid carries the shared bottleneck.

    Args:
        n_ffts: window lengths, at least one.

    Returns:
        Index of 4096 where present, else of the nearest window length, the smaller on a tie.
    """
    return min(range(len(n_ffts)), key=lambda i: (abs(n_ffts[i] - REFERENCE_N_FFT), n_ffts[i]))


def resample_grid(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Antialiased linear interpolation of a feature map to another grid.

    Cells are areas (not points): a grid with half the cells covers the same time and frequency.

    Args:
        features: `[B, D, F, N]`.
        size: wanted `(F, N)`.

    Returns:
        `[B, D, *size]`; the input itself where the size is already right.
    """
    if tuple(features.shape[-2:]) == size:
        return features
    # Half precision has no antialiased kernel on the CPU.
    out = F.interpolate(features.float(), size=size, mode="bilinear", align_corners=False, antialias=True)
    return out.to(features.dtype)
