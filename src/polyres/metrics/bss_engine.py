"""Scores of BSSEval window by window: energies in time, projections and their energies by Parseval."""

from __future__ import annotations

import torch
from torch import Tensor

from polyres.core.errors import InputError
from polyres.metrics.bss_filters import FILTER_SAMPLES, correlate, projection_filters, silent_sources
from polyres.metrics.waves import Piece, Track, check_window, cut_windows

MEASURES = ("SDR", "ISR", "SIR", "SAR")
_FFT_STEP = 1024
_FFT_FACTORS = (2, 3, 5)


def ratio_db(above: Tensor, below: Tensor) -> Tensor:
    """Turn two energies into decibels; nothing below the line is infinitely good, whatever is above.

    Args:
        above: energies, >= 0.
        below: energies of the same shape, >= 0.

    Returns:
        `10 log10(above / below)`, +inf where `below` is 0.
    """
    infinite = torch.full_like(above, torch.inf)
    return torch.where(below == 0, infinite, 10 * torch.log10(above / below))


def fft_size(least_samples: int) -> int:
    """Find a size of at least so many samples that is quick to transform.

    Args:
        least_samples: what must fit, >= 1.

    Returns:
        The smallest multiple of 1024 without prime factors above 5 (a power of two where 1024 is too much).
    """
    if least_samples <= _FFT_STEP:
        return max(2, 1 << (least_samples - 1).bit_length())
    steps = -(-least_samples // _FFT_STEP)
    while True:
        rest = steps
        for factor in _FFT_FACTORS:
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return steps * _FFT_STEP
        steps += 1


def _time_energies(piece: Piece) -> tuple[Tensor, Tensor, Tensor]:
    """Energy of each reference and of each error `[S]`, and whether anything in this window is silent."""
    references, estimates = piece
    error = references - estimates
    silent = torch.stack([silent_sources(references), silent_sources(estimates)]).any()
    return references.square().sum(dim=(1, 2)), error.square_().sum(dim=(1, 2)), silent


def _hide_silent(scores: Tensor, silent: Tensor) -> Tensor:
    """Write NaN for all sources into windows in which one is silent; scores `[..., W]`, silent `[W]`."""
    return scores.masked_fill(silent, torch.nan)


def score_sdr(track: Track, window_samples: int, hop_samples: int) -> Tensor:
    """Compute the SDR of BSSEval v4 alone, for which no filter is needed.

    Args:
        track: references and estimates `[S, C, T]`.
        window_samples: length of a window, >= 1.
        hop_samples: distance of windows, >= 1.

    Returns:
        dB, float64 `[S, W]`.

    Raises:
        InputError: if the window or hop is not a whole number of samples.
    """
    check_window(window_samples, hop_samples)
    rows = [_time_energies(piece) for piece in cut_windows(track, window_samples, hop_samples)]
    signal, error, silent = (torch.stack(column, dim=-1) for column in zip(*rows, strict=True))
    return _hide_silent(ratio_db(signal, error), silent)


class Projector:
    """Applies the filters of a track to its windows, in the frequency domain."""

    def __init__(self, track: Track, window_samples: int) -> None:
        """Compute the filters in a pass over the track.

        Args:
            track: references and estimates `[S, C, T]`.
            window_samples: longest piece that will be projected.
        """
        correlations = correlate(track)
        self.sources = correlations.sources
        self.silent = correlations.silent
        self.n_fft = fft_size(window_samples + FILTER_SAMPLES - 1)
        if not self.silent:
            full, own = projection_filters(correlations)
            self.full = torch.fft.rfft(full, n=self.n_fft)
            self.own = torch.fft.rfft(own, n=self.n_fft)

    def _energy(self, spectra: Tensor) -> Tensor:
        """Energy in time `[S]` of signals given as half spectra `[S, C, bins]` (Parseval)."""
        flat = torch.view_as_real(spectra).flatten(1)
        edges = spectra[..., 0].abs().square() + spectra[..., -1].abs().square()
        return (2 * torch.linalg.vecdot(flat, flat) - edges.sum(dim=1)) / self.n_fft

    def energies(self, piece: Piece) -> Tensor:
        """Split the estimates of a window along the references.

        Args:
            piece: references and estimates `[S, C, n]`.

        Returns:
            Energies `[5, S]`: of the projection on the own source, of its difference from the reference, of its
            difference from the projection on all sources, of the latter, and of what that leaves of the estimate.
        """
        references, estimates = piece
        sources, channels, _ = references.shape
        true = torch.fft.rfft(references, n=self.n_fft)
        given = torch.fft.rfft(estimates, n=self.n_fft)
        own = true[:, 0, None] * self.own[:, 0]
        for channel in range(1, channels):
            own.addcmul_(true[:, channel, None], self.own[:, channel])
        if sources == 1:
            everything = own.clone()
        else:
            inputs = true.flatten(0, 1)
            everything = inputs[0] * self.full[0]
            for row in range(1, inputs.shape[0]):
                everything.addcmul_(inputs[row], self.full[row])
            everything = everything.view_as(own)
        parts = (self._energy(own), self._energy(true.neg_().add_(own)), self._energy(own.neg_().add_(everything)))
        return torch.stack([*parts, self._energy(everything), self._energy(given.sub_(everything))])


def score_all(track: Track, window_samples: int, hop_samples: int) -> dict[str, Tensor]:
    """Compute SDR, ISR, SIR and SAR of BSSEval v4 in two passes over a track.

    Args:
        track: references and estimates `[S, C, T]`.
        window_samples: length of a window, >= 1.
        hop_samples: distance of windows, >= 1.

    Returns:
        dB by measure, float64 `[S, W]`.

    Raises:
        InputError: if the window or hop is not a whole number of samples.
    """
    check_window(window_samples, hop_samples)
    projector: Projector | None = None
    times, spectra = [], []
    for piece in cut_windows(track, window_samples, hop_samples):
        projector = projector or Projector(track, piece[0].shape[-1])
        times.append(_time_energies(piece))
        if not projector.silent:
            spectra.append(projector.energies(piece))
    signal, error, silent = (torch.stack(column, dim=-1) for column in zip(*times, strict=True))
    if not spectra:
        return {name: torch.full_like(signal, torch.nan) for name in MEASURES}
    own, spatial, interference, everything, artefacts = torch.stack(spectra, dim=-1)
    pairs = ((signal, error), (signal, spatial), (own, interference), (everything, artefacts))
    return {name: _hide_silent(ratio_db(*pair), silent) for name, pair in zip(MEASURES, pairs, strict=True)}


def pick_device(device: str | torch.device | None, *waves: object) -> torch.device:
    """Choose where to compute: where asked, else where the tensors are.

    Args:
        device: "cpu", "cuda", "cuda:1", …; None follows the first tensor.
        waves: the inputs.

    Returns:
        The device; the CPU for arrays.

    Raises:
        InputError: if there is no such device.
    """
    if device is None:
        return next((wave.device for wave in waves if isinstance(wave, Tensor)), torch.device("cpu"))
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {str(device)!r} cannot be used here; choose cpu or a device of this computer"
        ) from error
