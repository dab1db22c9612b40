"""Mel inverses against SciPy's solver and their own front end."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from polyres.core.errors import InputError, UnknownNameError
from polyres.dsp import mel_inverse
from polyres.dsp.mel import (
    AUDIOLDM2_16K,
    MelConfig,
    linear_magnitude,
    log_mel,
    mel_filterbank,
    mel_framing,
    mel_of_magnitude,
)
from polyres.dsp.mel_inverse import MEL_INVERSES, log_mel_to_linear, mel_to_linear
from polyres.dsp.phase import reconstruct_framed

NAMES = ["pinv", "nnls", "smooth"]


def music(samples: int = 8000) -> Tensor:
    rng = np.random.default_rng(0)
    time = np.arange(samples) / 16000
    wave = sum(np.sin(2 * np.pi * f * time) / (i + 1) for i, f in enumerate((131, 262.5, 393, 1180, 3100)))
    return torch.from_numpy(wave * np.exp(-3 * (time * 4 % 1)) * 0.2 + 0.003 * rng.standard_normal(samples))


@pytest.mark.parametrize(("name", "limit"), [("pinv", 0.3), ("nnls", 2e-3), ("smooth", 0.02)])
def test_the_front_end_sees_the_mels_again(name: str, limit: float) -> None:
    mels = log_mel(music(), AUDIOLDM2_16K)
    linear = log_mel_to_linear(mels, AUDIOLDM2_16K, name)
    assert linear.shape == (513, 50)
    assert float(linear.min()) >= 0
    again = mel_of_magnitude(linear, AUDIOLDM2_16K).clamp_min(1e-5).log()
    assert float((again - mels).abs().mean()) < limit


def test_nnls_misses_as_little_as_scipys_where_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mels that no magnitudes have: noise. SciPy gets the same problem, rows of length 1."""
    filters = mel_filterbank(AUDIOLDM2_16K)
    length = filters.norm(dim=1)
    mels = torch.rand(6, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64).pow(4) * length
    monkeypatch.setattr(mel_inverse, "NNLS_ITERATIONS", 1000)
    ours = mel_to_linear(mels, AUDIOLDM2_16K, "nnls")
    for frame in range(6):
        scaled = (filters / length[:, None]).numpy()
        _, best = scipy.optimize.nnls(scaled, (mels[frame] / length).numpy())
        missed = float(np.linalg.norm(scaled @ ours[:, frame].numpy() - (mels[frame] / length).numpy()))
        assert missed < best * 1.002 + 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_a_flat_spectrum_stays_flat_and_level_goes_through(name: str) -> None:
    flat = torch.ones(513, 3, dtype=torch.float64)
    mels = mel_of_magnitude(flat, AUDIOLDM2_16K)
    linear = mel_to_linear(mels, AUDIOLDM2_16K, name)
    assert float((linear[10:450] - 1).abs().mean()) < (0.5 if name == "pinv" else 0.2)
    torch.testing.assert_close(mel_to_linear(mels * 1e-3, AUDIOLDM2_16K, name), linear * 1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_bins_that_no_filter_hears_are_silent(name: str) -> None:
    config = MelConfig(min_hz=500, max_hz=4000, mel_bins=32)
    linear = mel_to_linear(mel_of_magnitude(torch.ones(513, 2), config), config, name)
    assert not bool(linear[:32].any())
    assert not bool(linear[257:].any())
    assert float(linear[100].min()) > 0
    assert not bool(mel_to_linear(torch.zeros(2, 32), config, name).any())


def test_power_is_rooted() -> None:
    config = MelConfig(power=2)
    magnitude = linear_magnitude(music(), config)
    mels = mel_of_magnitude(magnitude, config)
    again = mel_of_magnitude(mel_to_linear(mels, config), config)
    assert float((again - mels).norm() / mels.norm()) < 1e-2


def test_frames_do_not_depend_on_each_other() -> None:
    mels = torch.rand(2, 3, 5, 64, generator=torch.Generator().manual_seed(1))
    together = mel_to_linear(mels, AUDIOLDM2_16K)
    assert together.shape == (2, 3, 513, 5)
    alone = mel_to_linear(mels[1, 2, 3:4], AUDIOLDM2_16K)[:, 0]
    assert float((together[1, 2, :, 3] - alone).norm()) < 1e-4 * float(alone.norm())


def test_the_way_back_to_a_wave_has_the_same_length_and_place() -> None:
    wave = music()
    magnitude = linear_magnitude(wave, AUDIOLDM2_16K)
    framing = mel_framing(AUDIOLDM2_16K, len(wave))
    back = reconstruct_framed(magnitude, "pghi+fgla", framing, 32)
    assert back.shape == wave.shape
    again = linear_magnitude(back, AUDIOLDM2_16K)
    assert float(20 * torch.log10((again - magnitude).norm() / magnitude.norm())) < -25


def test_what_is_no_mel_spectrogram_is_refused() -> None:
    mels = torch.rand(20, 64)
    with pytest.raises(InputError, match=r"shape \(64, 20\).*\[..., N, 64\] of floats is needed .frames come before"):
        mel_to_linear(mels.T, AUDIOLDM2_16K)
    with pytest.raises(InputError, match="mels hold NaN or infinity"):
        mel_to_linear(mels / 0, AUDIOLDM2_16K)
    with pytest.raises(InputError, match=r"mels go down to -.*; they must be >= 0 \(use log_mel_to_linear for logs"):
        mel_to_linear(mels.log(), AUDIOLDM2_16K)
    with pytest.raises(UnknownNameError, match="unknown mel inverse 'nlls'; did you mean 'nnls'"):
        mel_to_linear(mels, AUDIOLDM2_16K, "nlls")


def test_the_catalogue_says_a_word_on_each() -> None:
    assert MEL_INVERSES.names() == NAMES
    assert all(MEL_INVERSES.summary(name) for name in NAMES)
