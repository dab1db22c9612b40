"""Scores and distances of separated waveforms: energy ratios, samples, spectra, audible error."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from polyres.core.errors import InputError
from polyres.dsp.axes import check_axes
from polyres.dsp.stft import stft

ENERGY_FLOOR = 1e-7
"""Energy added above and below the fraction, so that silence has a finite value."""


def checked(reference: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
    """Return both waveforms `[..., C, T]` in float64 after checking that they fit each other."""
    if reference.shape != estimate.shape:
        raise InputError(
            f"the reference is {list(reference.shape)} but the estimate {list(estimate.shape)}; shapes must match"
        )
    if reference.dim() < 2:
        raise InputError(f"waveforms need at least the axes [C, T], got {list(reference.shape)}")
    check_axes(reference.shape, "reference")
    return reference.double(), estimate.double()


def nsdr(reference: Tensor, estimate: Tensor) -> Tensor:
    """Signal-to-distortion ratio of the 2021 Music Demixing challenge: one number for the whole signal.

    `reference`: true waveforms `[..., C, T]`; `estimate`: separated waveforms of the same shape. Returns
    `10 log10((sum reference² + 1e-7) / (sum (reference − estimate)² + 1e-7))` in dB, float64 `[...]`; silence as the
    estimate scores 0 dB. Raises InputError if the shapes differ or lack the axes C and T.

    Source: Mitsufuji et al. 2022, Music Demixing Challenge 2021, equation 1.
    """
    reference, estimate = checked(reference, estimate)
    signal = reference.square().sum(dim=(-2, -1))
    distortion = (reference - estimate).square().sum(dim=(-2, -1))
    return 10 * torch.log10((signal + ENERGY_FLOOR) / (distortion + ENERGY_FLOOR))


def snr(reference: Tensor, estimate: Tensor) -> Tensor:
    """Signal-to-noise ratio without any floor; a perfect estimate is infinitely good.

    `reference`: true waveforms `[..., C, T]`; `estimate`: separated waveforms of the same shape. Returns
    `10 log10(sum reference² / sum (reference − estimate)²)` in dB, float64 `[...]`; NaN where both are silent. Raises
    InputError if the shapes differ or lack the axes C and T.
    """
    reference, estimate = checked(reference, estimate)
    noise = (reference - estimate).square().sum(dim=(-2, -1))
    return 10 * torch.log10(reference.square().sum(dim=(-2, -1)) / noise)


def si_sdr(reference: Tensor, estimate: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio: the estimate's own gain does not count.

    The mean is not removed, and all channels of a signal share one gain.

    `reference`: true waveforms `[..., C, T]`; `estimate`: separated waveforms of the same shape. Returns the ratio of
    the estimate's part along the reference to the rest, in dB, float64 `[...]`, whatever the levels of both; +inf for a
    multiple of the reference, -inf for what is orthogonal to it, NaN where either is silent. Raises InputError if the
    shapes differ or lack the axes C and T.

    Source: Le Roux et al. 2019, SDR – half-baked or well done?, equation 4.
    """
    reference, estimate = (wave / wave.abs().amax(dim=(-2, -1), keepdim=True) for wave in checked(reference, estimate))
    gain = (reference * estimate).sum(dim=(-2, -1), keepdim=True)
    target = gain / reference.square().sum(dim=(-2, -1), keepdim=True) * reference
    return 10 * torch.log10(target.square().sum(dim=(-2, -1)) / (target - estimate).square().sum(dim=(-2, -1)))


BANDS_HZ: dict[str, tuple[float, float]] = {
    "sub": (0.0, 60.0),
    "bass": (60.0, 250.0),
    "low_mid": (250.0, 500.0),
    "mid": (500.0, 2000.0),
    "presence": (2000.0, 6000.0),
    "air": (6000.0, math.inf),
}
SILENT_SHARE = 1e-20
"""A band with less than this share of the energy holds rounding, not a signal."""


def band_sdr(reference: Tensor, estimate: Tensor, sample_rate_hz: int) -> dict[str, Tensor]:
    """Split `nsdr` of `[C, T]` into the bands of `BANDS_HZ`, in dB; NaN where the reference is silent in a band.

    Source: nSDR (Mitsufuji et al. 2022, equation 1) on the bins of the transform of the whole signal (Parseval).
    """
    reference, estimate = checked(reference, estimate)
    if sample_rate_hz <= 0:
        raise InputError(f"sample_rate_hz must be above 0, got {sample_rate_hz}")
    length = reference.shape[-1]
    signal, error = bin_energies(reference), bin_energies(reference - estimate)
    bins_hz = torch.fft.rfftfreq(length, 1 / sample_rate_hz, dtype=torch.float64, device=reference.device)
    silence = signal.sum() * SILENT_SHARE
    ratios = {}
    for name, (low_hz, high_hz) in BANDS_HZ.items():
        inside = (bins_hz >= low_hz) & (bins_hz < high_hz)
        wanted, lost = signal[inside].sum(), error[inside].sum()
        ratio = 10 * torch.log10((wanted + ENERGY_FLOOR) / (lost + ENERGY_FLOOR))
        ratios[name] = torch.where(wanted > silence, ratio, torch.full_like(ratio, torch.nan))
    return ratios


def bin_energies(wave: Tensor) -> Tensor:
    """Energy of a real signal `[C, T]` by frequency bin, over all channels; the sum is that in time."""
    length = wave.shape[-1]
    total = torch.zeros(length // 2 + 1, dtype=torch.float64, device=wave.device)
    for channel in wave:
        total += torch.view_as_real(torch.fft.rfft(channel)).square_().sum(dim=-1)
    total[1 : (length + 1) // 2] *= 2
    return total / length


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
