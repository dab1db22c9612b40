"""Distances between magnitude spectra and log-mel spectra of a signal and its reconstruction; phase plays no part."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polyres.core.errors import InputError
from polyres.dsp.mel import AUDIOLDM2_16K, MelConfig, mel_centres_hz
from polyres.dsp.stft import stft
from polyres.metrics.separation import MR_STFT_FLOOR

RECONSTRUCTION_BANDS_HZ: dict[str, tuple[float, float]] = {
    "low": (0.0, 500.0),
    "mid": (500.0, 4000.0),
    "high": (4000.0, math.inf),
}
MCD_COEFFICIENTS = 13
_WINDOW_S = 0.0464  # 2048 samples at 44.1 kHz, 1024 at 16 kHz
_DB_PER_NEPER = 20 / math.log(10)


def spectral_n_fft(sample_rate_hz: int) -> int:
    """Choose the window length of the spectral metrics: the power of two nearest to 46 ms."""
    return max(16, 2 ** round(math.log2(sample_rate_hz * _WINDOW_S)))


def metric_mel(sample_rate_hz: int) -> MelConfig:
    """Choose the mel front end of the metrics: AudioLDM2's at 16 kHz, at other rates one as fine up to half the rate.

    `sample_rate_hz`: >= 2000. Returns 64 mels below 32 kHz and 128 above, every 10 ms. Raises InputError if the rate is
    lower.
    """
    if sample_rate_hz == AUDIOLDM2_16K.sample_rate_hz:
        return AUDIOLDM2_16K
    if sample_rate_hz < 2000:
        raise InputError(f"mel metrics need a sample rate of at least 2000 Hz, got {sample_rate_hz}")
    n_fft = 2 ** math.ceil(math.log2(0.064 * sample_rate_hz))
    # Low rates have fewer bins below the knee of the mel scale than filters would like.
    mel_bins = 128 if sample_rate_hz >= 32000 else 64 if sample_rate_hz >= 8000 else 32
    return MelConfig(
        sample_rate_hz=sample_rate_hz,
        n_fft=n_fft,
        win_length=n_fft,
        hop_length=round(sample_rate_hz / 100),
        mel_bins=mel_bins,
        max_hz=sample_rate_hz / 2,
        framing="centred",
    )


def _check(reference: Tensor, estimate: Tensor, kind: str) -> None:
    """Refuse spectra that cannot be compared."""
    if reference.shape != estimate.shape or reference.ndim < 2 or not reference.numel():
        raise InputError(
            f"{kind} of shape {list(reference.shape)} and {list(estimate.shape)} cannot be compared; "
            "both need the same shape, nothing empty"
        )


def log_mel_distance(reference: Tensor, estimate: Tensor) -> Tensor:
    """Mean absolute difference of log-mel spectra.

    `reference`: natural logarithms `[..., N, M]`. Returns the distance in nat (1 nat = 8.7 dB), a scalar. Raises
    InputError if the shapes differ.
    """
    _check(reference, estimate, "log-mel spectra")
    return (reference - estimate).abs().mean()


def log_mel_band_distance(
    reference: Tensor, estimate: Tensor, config: MelConfig, band: tuple[float, float] = RECONSTRUCTION_BANDS_HZ["high"]
) -> Tensor:
    """Mean absolute difference of log-mel spectra in the filters whose middle lies in a band.

    Unlike a ratio of energies it cannot be won by noise of the right level in the wrong place.

    `reference`: natural logarithms `[..., N, M]`; `config`: the front end that made them; `band`: lower edge (in it)
    and upper edge (not in it), in Hz. Returns the distance in nat, a scalar; NaN where no filter lies in the band.
    Raises InputError if the shapes differ or do not fit the front end.
    """
    _check(reference, estimate, "log-mel spectra")
    if reference.shape[-1] != config.mel_bins:
        raise InputError(f"the spectra have {reference.shape[-1]} mel bins but the front end {config.mel_bins}")
    centres = mel_centres_hz(config)
    inside = ((centres >= band[0]) & (centres < band[1])).to(reference.device)
    return (reference - estimate)[..., inside].abs().mean()


def mel_cepstral_distortion(reference: Tensor, estimate: Tensor) -> Tensor:
    """Root mean square difference of smoothed log-mel spectra, level left out, averaged over frames.

    `reference`: natural logarithms of magnitudes `[..., N, M]`, M > 13. Returns the distortion in dB, a scalar. Raises
    InputError if the shapes differ or there are too few mel bins.

    Source: Kubichek 1993, Mel-cepstral distance measure for objective speech quality assessment; coefficients 1 to 13
    of the cosine series of the log-mel spectrum.
    """
    _check(reference, estimate, "log-mel spectra")
    bins = reference.shape[-1]
    if bins <= MCD_COEFFICIENTS:
        raise InputError(f"{bins} mel bins do not give {MCD_COEFFICIENTS} cepstral coefficients; use more mel bins")
    places = (torch.arange(bins, dtype=torch.float64, device=reference.device) + 0.5) / bins
    orders = torch.arange(1, MCD_COEFFICIENTS + 1, dtype=torch.float64, device=reference.device)
    series = torch.cos(math.pi * orders[:, None] * places) * (2 / bins)
    apart = (reference - estimate).double() @ series.T
    # Half the sum of squared amplitudes is the mean square of the series.
    return _DB_PER_NEPER * (apart.square().sum(dim=-1) / 2).sqrt().mean()


def log_spectral_distance(reference: Tensor, estimate: Tensor) -> Tensor:
    """Root mean square over frequencies of the difference of log power, averaged over frames.

    `reference`: magnitudes `[..., F, N]`, >= 0. Returns the distance in log10 of power (1 is 10 dB), a scalar;
    magnitudes below 1e-5 count as 1e-5. Raises InputError if the shapes differ.

    Source: Gray and Markel 1976; in the unit of AudioSR (Liu et al. 2023) and NVSR (Liu et al. 2022), equation 5.
    """
    _check(reference, estimate, "magnitudes")
    wanted, given = reference.clamp_min(MR_STFT_FLOOR).log10(), estimate.clamp_min(MR_STFT_FLOOR).log10()
    return (2 * (wanted - given)).square().mean(dim=-2).sqrt().mean()


def spectral_convergence_db(reference: Tensor, estimate: Tensor) -> Tensor:
    """Energy of the difference of magnitudes `[..., F, N]` over that of the reference in dB; NaN for a silent
    reference.

    Source: Sturmel and Daudet 2011, Signal reconstruction from STFT magnitude, section 2.
    """
    _check(reference, estimate, "magnitudes")
    energy = reference.square().sum()
    ratio = 10 * torch.log10((reference - estimate).square().sum() / energy)
    return torch.where(energy > 0, ratio, torch.full_like(ratio, torch.nan))


def metric_magnitude(wave: Tensor, sample_rate_hz: int) -> Tensor:
    """Magnitudes that the spectral metrics compare.

    `wave`: `[C, T]`, float64; `sample_rate_hz`: > 0. Returns `[C, F, N]`, windows of about 46 ms that overlap by three
    quarters, transform of unit norm.
    """
    n_fft = spectral_n_fft(sample_rate_hz)
    return stft(wave, n_fft, n_fft // 4).abs()
