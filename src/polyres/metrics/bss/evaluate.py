"""BSSEval version 4 as museval computes it, exact and quick; loads no numeric library before the first call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import torch

    from polyres.metrics.waves import OpenBlocks

WaveT = TypeVar("WaveT", "torch.Tensor", "np.ndarray[Any, Any]")


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

    Args:
        references: true sources `[S, C, T]`, array or tensor of any real type; computed in float64.
        estimates: separated sources of the same shape.
        window_samples: length of a window, >= 1; a shorter track is one window.
        hop_samples: distance of windows, >= 1.
        device: where to compute; default where the tensors are, the CPU for arrays.

    Returns:
        "SDR", "ISR", "SIR" and "SAR" in dB, float64 `[S, frames]`: arrays for arrays, tensors for tensors.

    Raises:
        InputError: if shapes or lengths do not fit, samples are not finite, or window, hop or device are unusable.

    Source: Stöter, Liutkus and Ito 2018, The 2018 Signal Separation Evaluation Campaign; Vincent et al. 2006 and 2012.
    """
    from polyres.metrics import waves
    from polyres.metrics.bss import engine as bss_engine

    track = waves.ArrayTrack(references, estimates, bss_engine.pick_device(device, references, estimates))
    scores = bss_engine.score_all(track, window_samples, hop_samples)
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
    from polyres.metrics import waves
    from polyres.metrics.bss import engine as bss_engine

    track = waves.ArrayTrack(references, estimates, bss_engine.pick_device(device, references, estimates))
    return waves.returned_like(references, bss_engine.score_sdr(track, window_samples, hop_samples))


def bss_eval_blocks(
    open_blocks: OpenBlocks,
    window_samples: int = 44100,
    hop_samples: int = 44100,
    device: str | torch.device | None = None,
) -> dict[str, torch.Tensor]:
    """Compute BSSEval v4 on blocks `[S, C, n]` from `open_blocks`, read twice; the same `[S, frames]` in dB as
    `bss_eval`.

    Source: as `bss_eval`.
    """
    from polyres.metrics import waves
    from polyres.metrics.bss import engine as bss_engine

    track = waves.BlockTrack(open_blocks, bss_engine.pick_device(device))
    return bss_engine.score_all(track, window_samples, hop_samples)
