"""Scores of a track as arrays or tensors: BSSEval version 4 as museval computes it, exact and quick, and nSDR."""

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
    from polyres.metrics import bss as engine
    from polyres.metrics import separation, waves

    waves.check_pair(references, estimates)
    device = engine.pick_device(None, references, estimates)
    true, given = waves.as_float64(references, device), waves.as_float64(estimates, device)
    return waves.returned_like(references, separation.nsdr(true, given))


def bss_eval(
    references: WaveT,
    estimates: WaveT,
    window_samples: int = 44100,
    hop_samples: int = 44100,
    device: str | torch.device | None = None,
) -> dict[str, WaveT]:
    """Score separated sources by BSSEval version 4: one set of 512-tap filters per track, ratios per window.

    The ratios are those of `museval.evaluate`: images mode, no permutation. A window in which the channels of any
    reference or estimate sum to exact silence is NaN for all sources and ratios, an incomplete last window is
    dropped, and a ratio over nothing is +inf. Where museval refuses a track with a source that is silent
    throughout, all windows are NaN.

    `references`: true sources `[S, C, T]`, array or tensor of any real type; computed in float64. `estimates`:
    separated sources of the same shape. `window_samples`: length of a window, >= 1; a shorter track is one window.
    `hop_samples`: distance of windows, >= 1. `device`: where to compute; default where the tensors are, the CPU for
    arrays. Returns "SDR", "ISR", "SIR" and "SAR" in dB, float64 `[S, frames]`: arrays for arrays, tensors for tensors.
    Raises InputError if shapes or lengths do not fit, samples are not finite, or window, hop or device are unusable.

    Source: Stöter, Liutkus and Ito 2018, The 2018 Signal Separation Evaluation Campaign; Vincent et al. 2006 and 2012.
    """
    from polyres.metrics import bss as engine
    from polyres.metrics import waves

    track = waves.Track(references, estimates, engine.pick_device(device, references, estimates))
    scores = engine.score_all(track, window_samples, hop_samples)
    return {name: waves.returned_like(references, values) for name, values in scores.items()}


def framewise_sdr(
    references: WaveT,
    estimates: WaveT,
    window_samples: int = 44100,
    hop_samples: int = 44100,
    device: str | torch.device | None = None,
) -> WaveT:
    """Compute the SDR of `bss_eval` alone: in images mode the filters cancel out of it, so it takes no filters.

    `references`: true sources `[S, C, T]`, array or tensor. Returns dB, float64 `[S, frames]`; NaN where a window has a
    silent reference or estimate.

    Source: as `bss_eval`; the three error terms add up to estimate − reference.
    """
    from polyres.metrics import bss as engine
    from polyres.metrics import waves

    track = waves.Track(references, estimates, engine.pick_device(device, references, estimates))
    return waves.returned_like(references, engine.score_sdr(track, window_samples, hop_samples))
