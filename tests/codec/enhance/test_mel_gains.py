from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from polyres.codec.enhance.context import EnhanceContext, mel_statistics
from polyres.codec.enhance.mel_gains import _spread, enhance_wave
from polyres.core.errors import ConfigError
from polyres.dsp.mel import AUDIOLDM2_16K, log_mel


def noise(seed: int = 0) -> Tensor:
    return torch.randn(1, 2, 16000, generator=torch.Generator().manual_seed(seed)) * 0.1


def context(target: Tensor) -> EnhanceContext:
    return EnhanceContext(target=mel_statistics(log_mel(target.mean(dim=1), AUDIOLDM2_16K), informed=True))


def test_a_gain_is_given_back_to_all_bands_and_channels() -> None:
    wave = noise()
    louder = enhance_wave("gain_match", 0.25 * wave, 1.0, context(wave))
    assert torch.allclose(louder, wave, atol=1e-4)
    halfway = enhance_wave("gain_match", 0.25 * wave, 0.5, context(wave))
    assert torch.allclose(halfway, 0.5 * wave, atol=1e-4)
    assert enhance_wave("gain_match", wave, 0.0, context(wave)) is wave


def test_bands_get_the_averages_they_should_have() -> None:
    original = noise(1)
    spectrum = torch.fft.rfft(original)
    tilt = torch.linspace(0, -3, spectrum.shape[-1]).exp()
    dull = torch.fft.irfft(spectrum * tilt)
    told = context(original)
    again = enhance_wave("ltas_match", dull, 1.0, told)
    means = [log_mel(w.mean(dim=1), AUDIOLDM2_16K).mean(dim=1) for w in (original, dull, again)]
    assert float((means[1] - means[0]).abs().max()) > 2
    assert float((means[2] - means[0]).abs().max()) < 0.15
    # Phases stay: the correlation of every band with the original comes back as it was.
    assert float((again * original).sum() / (again.norm() * original.norm())) > 0.95


def test_weights_of_bands_are_straight_lines_that_add_up_to_one() -> None:
    weights = _spread(AUDIOLDM2_16K)
    assert weights.shape == (64, 513)
    assert torch.allclose(weights.sum(dim=0), torch.ones(513, dtype=torch.float64))
    assert bool((weights >= 0).all())
    assert int((weights > 0).sum(dim=0).max()) == 2


def test_silence_gets_40_db_at_most() -> None:
    wave = noise()
    told = context(wave)
    quiet = enhance_wave("gain_match", 1e-4 * wave, 1.0, told)
    assert 20 * math.log10(float(quiet.norm() / (1e-4 * wave).norm())) == pytest.approx(39.96, abs=0.1)


def test_enhancers_of_latents_cannot_change_waves() -> None:
    with pytest.raises(ConfigError, match="'frequency' changes latents; only those of mel spectra can change waves"):
        enhance_wave("frequency", noise(), 1.0, EnhanceContext())
