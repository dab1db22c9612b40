"""Wrong turns on the way into AudioLDM2, kept as controls: a chain must do better than with these."""

from __future__ import annotations

import torch
from torch import Tensor

from polyres.core.catalogue import Catalogue
from polyres.ops.mel import AUDIOLDM2_16K, MelConfig, audioldm2_log_mel, mel_spectrogram

MEL_CONTROLS: Catalogue[Tensor] = Catalogue("wrong front end")
"""Each takes waves `[..., T]` at 16 kHz and gives what is then mistaken for AudioLDM2's log-mel spectrogram."""

_TOP_DB = 80.0


@MEL_CONTROLS.register("decibel_front_end", "power in decibels below the file's peak, over 20")
def decibel_front_end(wave_16k: Tensor, config: MelConfig = AUDIOLDM2_16K) -> Tensor:
    """Take mel power in decibels, divided by 20: wrong in four ways.

    The weights expect the natural logarithm of magnitudes. Here power is summed instead of magnitude; the loudest
    bin of the file becomes 0, so that its level is lost; everything 80 dB below that is cut off; and the range is
    -4 to 0 where -11.5 to about 0.6 is meant. The vocoder reads -4 as a magnitude of 0.018, which is 65 dB above
    its floor: pauses come out as hiss.

    Args:
        wave_16k: `[..., T]` at 16 kHz, T >= 433.
        config: the front end whose filters are used.

    Returns:
        `[..., N, M]`, -4 to 0.

    Raises:
        InputError: when the signal is too short, not real, or holds NaN or infinity.
    """
    power = mel_spectrogram(wave_16k, config.model_copy(update={"power": 2}))
    peak = power.amax(dim=(-2, -1), keepdim=True).clamp_min(1e-10)
    level_db = 10 * (power.clamp_min(1e-10) / peak).log10()
    return level_db.clamp_min(-_TOP_DB) / 20


@MEL_CONTROLS.register("transposed_layout", "mel bins where frames belong")
def transposed_layout(wave_16k: Tensor) -> Tensor:
    """Take the right values in the wrong layout, mel bins before frames, cut or filled up to the right shape.

    The autoencoder takes `[B, 1, frames, 64]`. It is convolutional in both axes and does not complain about
    `[B, 1, 64, frames]`; what comes out is noise. Here 64 frames at a time are turned over, so that the shape is
    the right one and nothing but the layout is wrong.

    Args:
        wave_16k: `[..., T]` at 16 kHz, T >= 433.

    Returns:
        `[..., N, 64]`, every block of 64 frames transposed; a shorter block at the end is left as it is.

    Raises:
        InputError: when the signal is too short, not real, or holds NaN or infinity.
    """
    right = audioldm2_log_mel(wave_16k)
    size = right.shape[-1]
    whole = right.shape[-2] // size * size
    squares = right[..., :whole, :].reshape(*right.shape[:-2], -1, size, size)
    blocks = squares.transpose(-1, -2).flatten(-3, -2)
    return torch.cat([blocks, right[..., whole:, :]], dim=-2)
