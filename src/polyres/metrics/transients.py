"""Whether attacks and punch of a source survive separation ("hollow drums")."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.core.errors import InputError
from polyres.dsp.stft import stft
from polyres.metrics.separation import checked

FLUX_N_FFT = 1024
FLUX_HOP = 256
FLUX_BANDS = 24
FLUX_RANGE_HZ = (40.0, 16_000.0)
FLUX_FLOOR_DB = 60.0
"""Bands this far below the loudest band of the reference count as silent."""
ONSET_SPACING_S = 0.1
ONSET_THRESHOLD = 2.0
"""An onset stands out from the mean of the envelope by so many standard deviations."""
ATTACK_BEFORE_S = 0.03
ATTACK_AFTER_S = 0.07
ATTACK_LEVELS = (0.1, 0.9)
ENVELOPE_S = 0.002
LOW_BAND_HZ = (20.0, 150.0)
LOW_BAND_FRAME_S = 0.01
CREST_WINDOW_S = 1.0


def _checked_pair(reference: Tensor, estimate: Tensor, sample_rate_hz: int) -> tuple[Tensor, Tensor]:
    """Return `[C, T]` waveforms in float64 after making sure that they fit each other."""
    reference, estimate = checked(reference, estimate)
    if reference.dim() != 2 or reference.shape[-1] == 0:
        raise InputError(f"transients are measured on one waveform [C, T], got {list(reference.shape)}")
    if sample_rate_hz <= 0:
        raise InputError(f"sample_rate_hz must be above 0, got {sample_rate_hz}")
    return reference, estimate


def _nan_like(wave: Tensor) -> Tensor:
    """A NaN where the result would be."""
    return wave.new_full((), math.nan, dtype=torch.float64)


def _band_levels_db(wave: Tensor, sample_rate_hz: int) -> Tensor:
    """Energy of the channel mean in logarithmically spaced bands `[bands, N]`, in dB."""
    power = stft(wave.mean(dim=0), FLUX_N_FFT, FLUX_HOP).abs().square()
    low_hz, high_hz = FLUX_RANGE_HZ
    steps = torch.linspace(math.log(low_hz), math.log(min(high_hz, sample_rate_hz / 2)), FLUX_BANDS + 1)
    edges = torch.unique((steps.exp() * FLUX_N_FFT / sample_rate_hz).round().long()).clamp(max=power.shape[0])
    levels = [power[low:high].sum(dim=0) for low, high in pairwise(edges.tolist()) if high > low]
    return 10 * torch.log10(torch.stack(levels) + torch.finfo(torch.float64).tiny)


def _flux(levels_db: Tensor, floor_db: Tensor) -> Tensor:
    """Mean rise over the bands from frame to frame `[N]`; the first frame rises from the floor."""
    levels = levels_db.clamp(min=floor_db)
    before = torch.cat([torch.full_like(levels[:, :1], float(floor_db)), levels[:, :-1]], dim=1)
    return (levels - before).clamp_(min=0).mean(dim=0)


def onset_envelopes(reference: Tensor, estimate: Tensor, sample_rate_hz: int) -> tuple[Tensor, Tensor]:
    """Onset envelopes `[ceil(T / 256)]` in dB per frame: the mean rise of the bands, down to 60 dB below the loudest.

    Source: Dixon 2006, Onset Detection Revisited, section 2.1, on logarithmic bands.
    """
    reference, estimate = _checked_pair(reference, estimate, sample_rate_hz)
    wanted, given = _band_levels_db(reference, sample_rate_hz), _band_levels_db(estimate, sample_rate_hz)
    floor_db = wanted.max() - FLUX_FLOOR_DB
    return _flux(wanted, floor_db), _flux(given, floor_db)


def onset_correlation(reference: Tensor, estimate: Tensor, sample_rate_hz: int) -> Tensor:
    """Pearson correlation of the onset envelopes of `[C, T]`; 1 is best, NaN where either has no rise.

    Source: as `onset_envelopes`.
    """
    wanted, given = onset_envelopes(reference, estimate, sample_rate_hz)
    if not bool(reference.any()) or not bool(estimate.any()):
        return _nan_like(wanted)
    wanted, given = wanted - wanted.mean(), given - given.mean()
    scale = wanted.norm() * given.norm()
    return (wanted * given).sum() / scale if bool(scale > 0) else _nan_like(wanted)


def find_onsets(envelope: Tensor, spacing_frames: int) -> list[int]:
    """Return the frames of local maxima of an envelope `[N]` that stand out by two standard deviations."""
    around = F.max_pool1d(envelope[None], 2 * spacing_frames - 1, stride=1, padding=spacing_frames - 1)[0]
    threshold = envelope.mean() + ONSET_THRESHOLD * envelope.std(correction=0)
    peaks: list[int] = []
    for frame in torch.nonzero((envelope == around) & (envelope > threshold)).flatten().tolist():
        if not peaks or frame - peaks[-1] >= spacing_frames:
            peaks.append(frame)
    return peaks


def _amplitude(wave: Tensor, sample_rate_hz: int) -> Tensor:
    """Moving RMS of all channels `[T]` over 2 ms, centred."""
    width = max(1, round(ENVELOPE_S * sample_rate_hz)) | 1
    power = F.avg_pool1d(wave.square().mean(dim=0)[None], width, stride=1, padding=width // 2)[0]
    return power.sqrt()


def _attack_samples(segment: Tensor) -> float | None:
    """Samples from 10 % to 90 % of the peak of an amplitude `[n]`, or None in silence."""
    peak = float(segment.max())
    if peak == 0:
        return None
    low, high = ATTACK_LEVELS
    end = int(torch.nonzero(segment >= high * peak)[0])
    below = torch.nonzero(segment[:end] <= low * peak).flatten()
    return float(end - (int(below[-1]) if len(below) else 0))


def attack_time_error(reference: Tensor, estimate: Tensor, sample_rate_hz: int) -> Tensor:
    """Median difference of attack times over the onsets of the reference `[C, T]`, in ms; NaN without onsets. The rise
    is from 10 % to 90 % of the peak of the amplitude between 30 ms before and 70 ms after the onset.

    Source: Peeters 2004, A Large Set of Audio Features for Sound Description, section 4.2 (attack time).
    """
    reference, estimate = _checked_pair(reference, estimate, sample_rate_hz)
    if not bool(reference.any()):
        return _nan_like(reference)
    spacing = max(1, round(ONSET_SPACING_S * sample_rate_hz / FLUX_HOP))
    onsets = find_onsets(onset_envelopes(reference, estimate, sample_rate_hz)[0], spacing)
    wanted, given = _amplitude(reference, sample_rate_hz), _amplitude(estimate, sample_rate_hz)
    errors_ms = []
    for frame in onsets:
        centre = int((frame + 0.5) * FLUX_HOP)
        start = max(0, centre - round(ATTACK_BEFORE_S * sample_rate_hz))
        segment = slice(start, centre + round(ATTACK_AFTER_S * sample_rate_hz))
        rise, other = _attack_samples(wanted[segment]), _attack_samples(given[segment])
        if rise is not None and other is not None:
            errors_ms.append(abs(rise - other) * 1000 / sample_rate_hz)
    return torch.quantile(reference.new_tensor(errors_ms), 0.5) if errors_ms else _nan_like(reference)


def crest_factor_error(reference: Tensor, estimate: Tensor, sample_rate_hz: int) -> Tensor:
    """Mean absolute difference in dB of the crest factors (peak over RMS) of whole seconds of `[C, T]` in which both
    sound; NaN if there is none.

    Source: IEC 60268-1 (crest factor).
    """
    reference, estimate = _checked_pair(reference, estimate, sample_rate_hz)
    size = min(round(CREST_WINDOW_S * sample_rate_hz), reference.shape[-1])
    wanted, given = (wave.unfold(-1, size, size).transpose(0, 1).flatten(1) for wave in (reference, estimate))
    sounds = wanted.any(dim=1) & given.any(dim=1)
    if not bool(sounds.any()):
        return _nan_like(reference)
    return (_crest_db(wanted[sounds]) - _crest_db(given[sounds])).abs().mean()


def _crest_db(pieces: Tensor) -> Tensor:
    """Peak over RMS in dB of pieces `[n, samples]`."""
    return 20 * torch.log10(pieces.abs().amax(dim=1) / pieces.square().mean(dim=1).sqrt())


def low_band_envelope_error(reference: Tensor, estimate: Tensor, sample_rate_hz: int) -> Tensor:
    """Relative error of the RMS envelope (10 ms) of `[C, T]` between 20 and 150 Hz; 0 is best, NaN where the reference
    has none.
    """
    reference, estimate = _checked_pair(reference, estimate, sample_rate_hz)
    wanted, given = _low_envelope(reference, sample_rate_hz), _low_envelope(estimate, sample_rate_hz)
    energy = wanted.square().sum()
    if not bool(energy > 0):
        return _nan_like(reference)
    return ((wanted - given).square().sum() / energy).sqrt()


def _low_envelope(wave: Tensor, sample_rate_hz: int) -> Tensor:
    """RMS `[frames]` of the low band of all channels; a last frame that is not full is filled with silence."""
    length = wave.shape[-1]
    bins_hz = torch.fft.rfftfreq(length, 1 / sample_rate_hz, dtype=torch.float64, device=wave.device)
    outside = (bins_hz < LOW_BAND_HZ[0]) | (bins_hz > LOW_BAND_HZ[1])
    low = torch.fft.irfft(torch.fft.rfft(wave).masked_fill_(outside, 0), n=length)
    size = max(1, round(LOW_BAND_FRAME_S * sample_rate_hz))
    frames = F.pad(low, (0, -length % size)).unfold(-1, size, size)
    return frames.square().mean(dim=(0, 2)).sqrt()
