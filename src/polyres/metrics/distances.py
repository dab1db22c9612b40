"""Distances between true and separated waveforms: samples, spectra at several resolutions, audible error."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from polyres.core.errors import InputError
from polyres.dsp.stft import stft
from polyres.metrics.separation import checked

MR_STFT_SIZES = (512, 1024, 2048)
MR_STFT_FLOOR = 1e-5
"""Smallest magnitude (transform of unit norm) whose logarithm counts: about the noise of a 16-bit file."""
LOG_WMSE_FLOOR = 1e-8
LOG_WMSE_SCALE = -4.0
LOG_WMSE_DEAD_ZONE = 10 ** (-68 / 20)
LOG_WMSE_BEST = LOG_WMSE_SCALE * math.log(LOG_WMSE_FLOOR)
_WEIGHTING_RATE_HZ = 44100


def l1_distance(reference: Tensor, estimate: Tensor) -> Tensor:
    """Mean absolute difference of waveforms `[..., C, T]`, float64 `[...]`; 0 is a perfect estimate."""
    reference, estimate = checked(reference, estimate)
    return (reference - estimate).abs().mean(dim=(-2, -1))


def multi_resolution_stft_distance(reference: Tensor, estimate: Tensor) -> Tensor:
    """Spectral convergence plus mean difference of log magnitudes of `[C, T]`, averaged over three resolutions; 0 is a
    perfect estimate, NaN a silent reference.

    Source: Yamamoto, Song and Kim 2020, Parallel WaveGAN, equations 4 to 6; here 512, 1024 and 2048 samples with a
    quarter as hop, and logarithms from a floor of 1e-5.
    """
    reference, estimate = checked(reference, estimate)
    if reference.dim() != 2:
        raise InputError(f"the spectra of one waveform [C, T] are compared, got {list(reference.shape)}")
    distances = []
    for n_fft in MR_STFT_SIZES:
        difference = energy = log_difference = reference.new_zeros(())
        count = 0
        for true, given in zip(reference, estimate, strict=True):  # one channel at a time, to save memory
            wanted = stft(true, n_fft, n_fft // 4).abs()
            got = stft(given, n_fft, n_fft // 4).abs()
            difference = difference + (wanted - got).square().sum()
            energy = energy + wanted.square().sum()
            logs = wanted.clamp_(min=MR_STFT_FLOOR).log_() - got.clamp_(min=MR_STFT_FLOOR).log_()
            log_difference = log_difference + logs.abs_().sum()
            count += logs.numel()
        distances.append((difference / energy).sqrt() + log_difference / count)
    distance = torch.stack(distances).mean()
    return distance if bool(reference.any()) else torch.full_like(distance, torch.nan)


def hearing_weights(frequencies_hz: np.ndarray) -> np.ndarray:
    """Gains of the weighting that log-WMSE puts on the spectrum of an error.

    A high shelf of +5 dB at 1.5 kHz, a second-order high-pass at 120 Hz, a bell of +2.5 dB at 500 Hz and a zero-phase
    low-pass at 10 kHz, as digital filters at 44.1 kHz; what lies above half of that weighs like it.

    Source: Fenton and Lee 2017, A Perceptual Model of "Punch" Based on Weighted Transient Loudness; parameters of
    log-wmse-audio-quality 0.2.
    """
    from scipy import signal

    turns = 2 * math.pi * np.minimum(frequencies_hz, _WEIGHTING_RATE_HZ / 2) / _WEIGHTING_RATE_HZ
    unit_delay = np.exp(-1j * turns)

    def response(numerator: tuple[float, ...], denominator: tuple[float, ...]) -> np.ndarray:
        return np.abs(np.polyval(numerator[::-1], unit_delay) / np.polyval(denominator[::-1], unit_delay))

    high_pass = signal.butter(2, 120, "highpass", fs=_WEIGHTING_RATE_HZ)
    low_pass = signal.butter(1, 10_000, "lowpass", fs=_WEIGHTING_RATE_HZ)
    shelf, bell = _shelf(1500, 5.0, 1 / math.sqrt(2)), _bell(500, 2.5, 1.5 / math.sqrt(2))
    return response(*high_pass) * response(*low_pass) ** 2 * response(*shelf) * response(*bell)


def _cookbook(centre_hz: float, gain_db: float, q: float) -> tuple[float, float, float]:
    """Amplitude, cosine and alpha of the audio equaliser cookbook (Bristow-Johnson)."""
    turn = 2 * math.pi * centre_hz / _WEIGHTING_RATE_HZ
    return 10 ** (gain_db / 40), math.cos(turn), math.sin(turn) / (2 * q)


def _shelf(centre_hz: float, gain_db: float, q: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Numerator and denominator of a high shelf."""
    a, cosine, alpha = _cookbook(centre_hz, gain_db, q)
    root = 2 * math.sqrt(a) * alpha
    above = (a * (a + 1 + (a - 1) * cosine + root), -2 * a * (a - 1 + (a + 1) * cosine))
    below = (a + 1 - (a - 1) * cosine + root, 2 * (a - 1 - (a + 1) * cosine))
    return (*above, a * (a + 1 + (a - 1) * cosine - root)), (*below, a + 1 - (a - 1) * cosine - root)


def _bell(centre_hz: float, gain_db: float, q: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Numerator and denominator of a peaking filter."""
    a, cosine, alpha = _cookbook(centre_hz, gain_db, q)
    return (1 + alpha * a, -2 * cosine, 1 - alpha * a), (1 + alpha / a, -2 * cosine, 1 - alpha / a)


def log_wmse(mixture: Tensor, reference: Tensor, estimate: Tensor, sample_rate_hz: int) -> Tensor:
    """Logarithm of the weighted error relative to the mixture, `−4 ln(mean(error²) + 1e-8)`: 73.68 is best; defined
    for silent references, too.

    Source: log-wmse-audio-quality 0.2 (Nomono), which resamples to 44.1 kHz; here the weighting follows the rate.
    """
    reference, estimate = checked(reference, estimate)
    mixture, _ = checked(mixture, reference)
    if sample_rate_hz <= 0:
        raise InputError(f"sample_rate_hz must be above 0, got {sample_rate_hz}")
    length = reference.shape[-1]
    n_fft = 1 << (length + sample_rate_hz // 10).bit_length()  # a tenth of a second for the tails of the weighting
    weights = torch.from_numpy(hearing_weights(np.fft.rfftfreq(n_fft, 1 / sample_rate_hz))).to(reference)

    def weighted(wave: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(wave, n=n_fft) * weights, n=n_fft)[..., :length]

    level = weighted(mixture).square().mean(dim=-1, keepdim=True).sqrt()
    error = weighted(estimate - reference) / torch.where(level > 0, level, torch.inf)
    error = torch.where(error.abs() < LOG_WMSE_DEAD_ZONE, torch.zeros_like(error), error)
    return (LOG_WMSE_SCALE * torch.log(error.square().mean(dim=-1) + LOG_WMSE_FLOOR)).mean()
