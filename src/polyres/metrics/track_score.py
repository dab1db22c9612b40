"""One number per source of a whole track, for arrays and tensors; loads no numeric library before the first call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import torch

WaveT = TypeVar("WaveT", "torch.Tensor", "np.ndarray[Any, Any]")


def nsdr(references: WaveT, estimates: WaveT) -> WaveT:
    """Signal-to-distortion ratio of the 2021 Music Demixing challenge: one number for the whole track.

    Args:
        references: true sources `[S, C, T]`, array or tensor of any real type; computed in float64. Full scale is 1:
            integers are taken as they are, and what is added below would then be too little.
        estimates: separated sources of the same shape.

    Returns:
        `10 log10((sum reference² + 1e-7) / (sum (reference − estimate)² + 1e-7))` in dB, float64 `[S]`, summed over
        channels and time: an array for arrays, a tensor for tensors. Silence as the estimate scores 0 dB; a silent
        reference `10 log10(1e-7 / (error + 1e-7))`, which is 0 dB or less and no ratio.

    Raises:
        InputError: if shapes do not fit or samples are not finite.

    Source: Mitsufuji et al. 2022, Music Demixing Challenge 2021, equation 1.
    """
    from polyres.metrics import separation, waves
    from polyres.metrics.bss import engine as bss_engine

    waves.check_pair(references, estimates)
    device = bss_engine.pick_device(None, references, estimates)
    true, given = waves.as_float64(references, device), waves.as_float64(estimates, device)
    return waves.returned_like(references, separation.nsdr(true, given))
