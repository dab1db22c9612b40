from __future__ import annotations

import pytest
import torch

from polyres.core.errors import UnknownNameError
from polyres.models.codec_post import POST_FILTERS, post_filter


def tone_and_noise() -> tuple[torch.Tensor, torch.Tensor]:
    time_s = torch.arange(32000) / 16000
    tone = torch.sin(2 * torch.pi * 1000 * time_s) * (time_s % 0.5 < 0.25)
    return tone[None, None], 0.02 * torch.randn(1, 1, 32000, generator=torch.Generator().manual_seed(2))


def test_wiener_takes_steady_noise_away_and_leaves_what_comes_and_goes() -> None:
    tone, noise = tone_and_noise()
    filtered = post_filter("wiener", tone + noise)
    assert float((filtered - tone).square().mean()) < 0.8 * float(noise.square().mean())
    assert float(filtered.square().mean()) == pytest.approx(float(tone.square().mean()), rel=0.05)


def test_smoothing_takes_single_peaks_away() -> None:
    click = torch.zeros(1, 1, 32000)
    click[..., 16000] = 1.0
    steady = 0.02 * torch.randn(1, 1, 32000, generator=torch.Generator().manual_seed(2))
    alone = float((post_filter("spectral_smoothing", steady)).square().mean() / steady.square().mean())
    assert 0.5 < alone < 1.5
    assert post_filter("spectral_smoothing", click).shape == click.shape


def test_short_waves_are_left_alone_and_unknown_names_refused() -> None:
    wave = torch.ones(2, 1, 100)
    for name in POST_FILTERS.names():
        assert torch.equal(post_filter(name, wave), wave)
    with pytest.raises(UnknownNameError, match=r"unknown post filter 'median'"):
        post_filter("median", wave)
