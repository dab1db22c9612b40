"""Check axes and scale of waveforms in memory."""

from __future__ import annotations

from collections.abc import Sequence

from polyres.core.errors import InputError

LOUD_PEAK = 8.0
"""Float samples beyond this (+18 dBFS) are taken for integers that were not divided by their full scale."""

_FEW_CHANNELS = 64


def check_axes(shape: Sequence[int], name: str = "wave") -> None:
    """Refuse waveforms whose last two axes are swapped, such as soundfile reads them.

    `shape`: `[..., C, T]`; up to 64 channels may have any number of samples. `name`: what the waveform is called where
    it comes from. Raises InputError if there are more channels than samples, and more than 64.
    """
    if len(shape) >= 2 and shape[-2] > max(shape[-1], _FEW_CHANNELS):
        mended = f"{name}.T" if len(shape) == 2 else f"{name}.swapaxes(-1, -2)"
        raise InputError(
            f"{name} of shape {list(shape)} would have {shape[-2]} channels of {shape[-1]} samples; the channels come "
            f"first, so give {mended}"
        )


def scale_warning(peak: float) -> str | None:
    """Warn that float samples look like integers.

    Returns what to say, behind the name of the waveform; None where the peak is nothing special.
    """
    if peak <= LOUD_PEAK:
        return None
    return f"has samples up to {peak:.6g} where full scale is 1; if they are 16-bit integers, divide them by 32768"
