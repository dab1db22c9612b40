from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from polyres.core.errors import InputError
from polyres.dsp.mel import AUDIOLDM2_16K, audioldm2_log_mel, mel_centres_hz
from polyres.metrics.reconstruction.metrics import score
from polyres.metrics.reconstruction.spectra import (
    log_mel_band_distance,
    log_mel_distance,
    log_spectral_distance,
    mel_cepstral_distortion,
    metric_magnitude,
    metric_mel,
    spectral_convergence_db,
    spectral_n_fft,
)
from polyres.metrics.separation import multi_resolution_stft_distance


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_windows_are_46_ms_at_every_rate() -> None:
    assert [spectral_n_fft(rate) for rate in (16000, 44100, 48000, 8000, 100)] == [1024, 2048, 2048, 512, 16]


def test_the_mel_of_16_khz_is_audioldm2s_and_others_are_as_fine() -> None:
    assert metric_mel(16000) is AUDIOLDM2_16K
    config = metric_mel(44100)
    assert (config.mel_bins, config.hop_length, config.n_fft, config.max_hz) == (128, 441, 4096, 22050)
    with pytest.raises(InputError, match="need a sample rate of at least 2000 Hz, got 1999"):
        metric_mel(1999)


def test_log_mel_distance_is_that_of_audioldm2s_front_end() -> None:
    wave, other = noise(1, 8000), noise(1, 8000, seed=1)
    gain = 0.5 / wave.sub(wave.mean()).abs().max()
    wanted = (audioldm2_log_mel(wave * gain) - audioldm2_log_mel(other * gain)).abs().mean()
    assert score(wave, other, 16000, ["log_mel_l1"])["log_mel_l1"] == pytest.approx(float(wanted), rel=1e-6)


def test_bands_of_the_log_mel_distance_together_are_the_whole() -> None:
    config = metric_mel(16000)
    wanted, given = noise(2, 50, 64), noise(2, 50, 64, seed=1)
    bands = [(0.0, 500.0), (500.0, 4000.0), (4000.0, math.inf)]
    parts = [log_mel_band_distance(wanted, given, config, band) for band in bands]
    centres = mel_centres_hz(config)
    counts = [int(((centres >= low) & (centres < high)).sum()) for low, high in bands]
    assert sum(counts) == 64
    assert counts[2] > 10
    total = sum(float(part) * count for part, count in zip(parts, counts, strict=True)) / 64
    assert total == pytest.approx(float(log_mel_distance(wanted, given)))


def test_mel_cepstral_distortion_of_a_ripple_is_its_closed_form() -> None:
    # A ripple of amplitude A nat in the log spectrum has an RMS of A / sqrt(2), in dB 20 / ln 10 of that.
    bins, amplitude = 64, 0.3
    places = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
    flat = torch.zeros(1, 5, bins, dtype=torch.float64)
    for order in (1, 7, 13):
        ripple = amplitude * torch.cos(math.pi * order * places)
        found = mel_cepstral_distortion(flat, flat + ripple)
        assert float(found) == pytest.approx(20 / math.log(10) * amplitude / math.sqrt(2))
    finer = amplitude * torch.cos(math.pi * 14 * places)
    assert float(mel_cepstral_distortion(flat, flat + finer)) == pytest.approx(0, abs=1e-12)
    assert float(mel_cepstral_distortion(flat, flat + 5)) == pytest.approx(0, abs=1e-12)  # level does not count
    with pytest.raises(InputError, match="13 mel bins do not give 13 cepstral coefficients"):
        mel_cepstral_distortion(flat[..., :13], flat[..., :13])


def test_log_spectral_distance_of_half_the_bins_10_db_off() -> None:
    magnitude = noise(1, 10, 4).abs() + 0.1
    other = magnitude.clone()
    other[:, :5] *= math.sqrt(10)
    assert float(log_spectral_distance(magnitude, other)) == pytest.approx(math.sqrt(0.5))
    assert float(log_spectral_distance(magnitude * 0, magnitude * 0 + 1e-7)) == 0  # below the floor


def test_log_spectral_distance_of_waves_against_plain_loops() -> None:
    # An oracle on scipy's transform and loops.
    from scipy.signal import stft as scipy_stft

    wave, other = noise(1, 6000).numpy(), noise(1, 6000, seed=1).numpy()
    other = other * np.sqrt((wave**2).sum() / (other**2).sum())
    gain = 0.5 / np.abs(wave - wave.mean()).max()
    padded = [np.pad(x[0] * gain, (384, 384 + 144), mode="reflect") for x in (wave, other)]
    spectra = [scipy_stft(x, window="hann", nperseg=1024, noverlap=768, boundary=None, padded=False)[2] for x in padded]
    powers = [np.maximum(np.abs(s[:-1]) * 512 / np.sqrt(1024), 1e-5) ** 2 for s in spectra]
    frames = [
        np.sqrt(np.mean([(np.log10(powers[0][f, n]) - np.log10(powers[1][f, n])) ** 2 for f in range(512)]))
        for n in range(powers[0].shape[1])
    ]
    found = score(wave, other, 16000, ["lsd"])["lsd"]
    assert found == pytest.approx(np.mean(frames), rel=1e-9)


def test_spectral_convergence_is_the_ratio_of_norms() -> None:
    magnitude, other = noise(1, 20, 8).abs(), noise(1, 20, 8, seed=1).abs()
    ratio = np.linalg.norm(magnitude - other) / np.linalg.norm(magnitude)
    assert float(spectral_convergence_db(magnitude, other)) == pytest.approx(20 * math.log10(ratio))
    assert math.isnan(spectral_convergence_db(magnitude * 0, magnitude))


def test_mr_stft_is_that_of_the_separation_metrics_at_a_peak_of_a_half() -> None:
    wave, other = noise(2, 4000), noise(2, 4000, seed=1)
    gain = 0.5 / wave.sub(wave.mean()).abs().max()
    wanted = float(multi_resolution_stft_distance(gain * wave, gain * other))
    assert score(wave, other, 16000, ["mr_stft"])["mr_stft"] == pytest.approx(wanted, rel=1e-6)


def test_magnitudes_have_unit_norm() -> None:
    wave = noise(1, 16000)
    per_bin = metric_magnitude(wave, 16000).square().mean()
    assert float(per_bin) == pytest.approx(3 / 8, rel=0.05)  # the mean square of a Hann window


def test_spectra_that_do_not_fit_are_refused() -> None:
    one, other = torch.zeros(1, 4, 64), torch.zeros(1, 5, 64)
    with pytest.raises(InputError, match=r"log-mel spectra of shape \[1, 4, 64\] and \[1, 5, 64\] cannot be compared"):
        log_mel_distance(one, other)
    with pytest.raises(InputError, match="magnitudes of shape"):
        log_spectral_distance(one, other)
    with pytest.raises(InputError, match="the spectra have 32 mel bins but the front end 64"):
        log_mel_band_distance(one[..., :32], one[..., :32], metric_mel(16000))
