"""Scores of BSSEval window by window: energies in time, projections and their energies by Parseval."""

from __future__ import annotations

from itertools import chain, islice

import torch
from torch import Tensor

from polyres.core.cpu import keep_freed_memory
from polyres.core.errors import InputError
from polyres.metrics.bss.filters import FILTER_SAMPLES, correlate, projection_filters, silent_sources
from polyres.metrics.bss.threads import one_thread, side_by_side
from polyres.metrics.waves import Piece, Track, check_window, cut_windows

MEASURES = ("SDR", "ISR", "SIR", "SAR")
_FFT_STEP = 1024
_FFT_FACTORS = (2, 3, 5)
_FIRST_WINDOWS = 256


def ratio_db(above: Tensor, below: Tensor) -> Tensor:
    """Convert the ratio of two energies to dB; +inf where `below` is 0."""
    infinite = torch.full_like(above, torch.inf)
    return torch.where(below == 0, infinite, 10 * torch.log10(above / below))


def fft_size(least_samples: int) -> int:
    """Return the smallest multiple of 1024 with no prime factor above 5 that holds so many samples."""
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


class _Windows:
    """Results of window after window in one tensor: kept one by one, they would scatter over memory and pin it."""

    def __init__(self) -> None:
        self._rows: Tensor | None = None
        self._count = 0

    def add(self, values: Tensor) -> None:
        """Add the results of a window, of the same shape as all before."""
        if self._rows is None:
            self._rows = values.new_empty((_FIRST_WINDOWS, *values.shape))
        elif self._count == len(self._rows):
            self._rows = torch.cat([self._rows, torch.empty_like(self._rows)])
        self._rows[self._count] = values
        self._count += 1

    def all(self) -> Tensor | None:
        """Return the results with the windows as the last axis, or None without any."""
        return None if self._rows is None else self._rows[: self._count].movedim(0, -1)


def _time_energies(piece: Piece) -> Tensor:
    """Energy of each reference, of each error, and 1 where anything in this window is silent, else 0: `[3, S]`."""
    references, estimates = piece
    error = references - estimates
    silent = torch.stack([silent_sources(references), silent_sources(estimates)]).any()
    energies = [torch.linalg.vecdot(wave, wave) for wave in (references.flatten(1), error.flatten(1))]
    return torch.stack([*energies, silent.expand(len(error)).to(error)])


def _hide_silent(scores: Tensor, silent: Tensor) -> Tensor:
    """Write NaN into windows in which a source is silent; scores `[S, W]`, silent `[S, W]` with the same rows."""
    return scores.masked_fill(silent > 0, torch.nan)


def _in_time(times: _Windows) -> tuple[Tensor, Tensor, Tensor]:
    """Return energies of references, of errors, and what is silent, `[S, W]` each; a track has at least a window."""
    found = times.all()
    if found is None:
        raise InputError("the track has no samples; there is nothing to score")
    return found[0], found[1], found[2]


def score_sdr(track: Track, window_samples: int, hop_samples: int) -> Tensor:
    """Compute the SDR of BSSEval v4 alone, which needs no filter: dB, float64 `[S, W]`."""
    check_window(window_samples, hop_samples)
    times = _Windows()
    for piece in cut_windows(track, window_samples, hop_samples):
        times.add(_time_energies(piece))
    signal, error, silent = _in_time(times)
    return _hide_silent(ratio_db(signal, error), silent)


class Projector:
    """Applies the filters of a track to its windows, in the frequency domain."""

    def __init__(self, track: Track, window_samples: int, threads: int = 1) -> None:
        keep_freed_memory()  # the pieces of every block are made anew
        correlations = correlate(track, threads)
        self.sources = correlations.sources
        self.silent = correlations.silent
        self.n_fft = fft_size(window_samples + FILTER_SAMPLES - 1)
        if not self.silent:
            full, own = projection_filters(correlations, threads)
            self.full = torch.fft.rfft(full, n=self.n_fft)
            self.own = torch.fft.rfft(own, n=self.n_fft)

    def _energy(self, spectra: Tensor) -> Tensor:
        """Energy in time `[S]` of signals given as half spectra `[S, C, bins]` (Parseval)."""
        flat = torch.view_as_real(spectra).flatten(1)
        edges = spectra[..., 0].abs().square() + spectra[..., -1].abs().square()
        return (2 * torch.linalg.vecdot(flat, flat) - edges.sum(dim=1)) / self.n_fft

    def energies(self, piece: Piece) -> Tensor:
        """Split the estimates of a window `[S, C, n]` into five energies `[5, S]`: projection on the own source, its
        distance to the reference, to the projection on all sources, the latter, and its rest.
        """
        sources, channels, _ = piece[0].shape
        true, given = (torch.fft.rfft(wave, n=self.n_fft) for wave in piece)
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
    """Compute SDR, ISR, SIR and SAR of BSSEval v4 in two passes over a track: dB, float64 `[S, W]` each."""
    check_window(window_samples, hop_samples)
    times, spectra = _Windows(), _Windows()
    # Pieces are small: several threads for one save little, and where others keep the processor busy they cost much.
    with one_thread() as threads:
        threads = threads if track.device.type == "cpu" else 1
        windows = cut_windows(track, window_samples, hop_samples)
        first = list(islice(windows, 1))
        projector = Projector(track, first[0][0].shape[-1], threads) if first else None

        def score(piece: Piece) -> tuple[Tensor, Tensor | None]:
            split = None if projector is None or projector.silent else projector.energies(piece)
            return _time_energies(piece), split

        for energies_in_time, split in side_by_side(score, chain(first, windows), threads):
            times.add(energies_in_time)
            if split is not None:
                spectra.add(split)
    signal, error, silent = _in_time(times)
    energies = spectra.all()
    if energies is None:
        return {name: torch.full_like(signal, torch.nan) for name in MEASURES}
    own, spatial, interference, everything, artefacts = energies
    pairs = ((signal, error), (signal, spatial), (own, interference), (everything, artefacts))
    return {name: _hide_silent(ratio_db(*pair), silent) for name, pair in zip(MEASURES, pairs, strict=True)}


def pick_device(device: str | torch.device | None, *waves: object) -> torch.device:
    """Return the device asked for, else that of the tensors; the CPU for arrays."""
    if device is None:
        return next((wave.device for wave in waves if isinstance(wave, Tensor)), torch.device("cpu"))
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {str(device)!r} cannot be used here; choose cpu or a device of this computer"
        ) from error
