"""Scores of BSSEval window by window: filters from the correlations of a track, energies of projections by Parseval."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional as F

from polyres.core.errors import InputError
from polyres.core.process import keep_freed_memory
from polyres.metrics.toeplitz import solve
from polyres.metrics.waves import Piece, Track

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

MEASURES = ("SDR", "ISR", "SIR", "SAR")
FILTER_SAMPLES = 512
_FFT_STEP = 1024
_STRIDE = 61
_BLOCKS = {"cpu": (4096, 4), "cuda": (65536, 16)}
"""FFT size, and how many of them at once, by kind of device."""


@dataclass(frozen=True)
class Correlations:
    """Correlations that determine the filters of a track."""

    lags: Tensor  # `[R, R + E, 512]`: reference channel at t times any channel at t + lag, summed over t
    sources: int  # number of sources S; R = E = S·C
    silent: bool  # True if a source or an estimate is silent from beginning to end


@contextmanager
def one_thread() -> Iterator[int]:
    """Compute every operation in one thread: small ones cost more to share out than to do. Yields the count before."""
    threads = torch.get_num_threads()
    if threads > 1:
        torch.set_num_threads(1)
    try:
        yield threads
    finally:
        if threads > 1:
            torch.set_num_threads(threads)


def side_by_side(function: Callable[[ItemT], ResultT], items: Iterable[ItemT], threads: int) -> Iterator[ResultT]:
    """Apply a function to items in so many threads and yield the results in order; few items are held at a time."""
    if threads == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[ResultT]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def silent_sources(piece: Tensor) -> Tensor:
    """Say which sources of `[S, C, n]` are silent: their channels sum to exactly 0 in every sample, as in museval."""
    heard = piece[..., ::_STRIDE].sum(dim=1).any(dim=-1)  # settles nearly all cases without a look at every sample
    return ~heard if bool(heard.all()) else ~piece.sum(dim=1).any(dim=-1)


def correlate(track: Track, threads: int = 1) -> Correlations:
    """Correlate all channels of a track over lags 0 to 511 in one pass of bounded memory."""
    n_fft, count = _BLOCKS.get(track.device.type, _BLOCKS["cpu"])
    step = count * (n_fft - FILTER_SAMPLES + 1)
    span = step + FILTER_SAMPLES - 1
    sources, channels, _ = track.shape
    rows = sources * channels
    total = torch.zeros(n_fft // 2 + 1, rows, 2 * rows, dtype=torch.complex128, device=track.device)
    silent = torch.ones(2, sources, dtype=torch.bool, device=track.device)

    def pieces() -> Iterator[Tensor]:
        for references, estimates in track.cut(span, step):
            if bool(silent.any()):  # once every source has been heard, there is no need to look
                silent.logical_and_(torch.stack([silent_sources(references), silent_sources(estimates)]))
            piece = torch.cat([references.flatten(0, 1), estimates.flatten(0, 1)])
            yield F.pad(piece, (0, span - piece.shape[-1]))

    for references, everything in side_by_side(partial(_block_spectra, n_fft=n_fft), pieces(), threads):
        torch.baddbmm(total, references, everything, out=total)
    lags = torch.fft.irfft(total.permute(1, 2, 0), n=n_fft)[..., :FILTER_SAMPLES]
    return Correlations(lags.contiguous(), sources, bool(silent.any()))


def _block_spectra(piece: Tensor, n_fft: int) -> tuple[Tensor, Tensor]:
    """Spectra of the blocks of a piece `[2R, n]`: conjugate ones of references `[bins, R, blocks]`, of all channels
    `[bins, blocks, 2R]`.
    """
    # Each block of a reference meets the same samples and 511 more, so that no lag is cut off or wraps around.
    block = n_fft - FILTER_SAMPLES + 1
    rows = len(piece) // 2
    blocks = piece.unfold(-1, n_fft, block).contiguous()
    ahead = torch.fft.rfft(blocks).flatten(0, 1)
    blocks[:rows, :, block:] = 0
    own = torch.fft.rfft(blocks[:rows]).flatten(0, 1)
    # Plain two-dimensional transposes: copies of other layouts are many times slower.
    left = own.t().contiguous().conj_physical_().unflatten(1, (rows, -1))
    return left, ahead.t().contiguous().unflatten(1, (2 * rows, -1)).transpose(1, 2)


def projection_filters(correlations: Correlations, threads: int = 1) -> tuple[Tensor, Tensor]:
    """Find the 512-tap filters to the estimates: from all channels `[S·C, S·C, 512]`, from the own `[S, C, C, 512]`."""
    lags, sources = correlations.lags, correlations.sources
    rows = lags.shape[0]
    channels = rows // sources
    energy = lags[:, :rows, 0].diagonal()
    audible = energy > 0
    gain = torch.where(audible, energy.clamp(min=torch.finfo(energy.dtype).tiny).rsqrt(), torch.ones_like(energy))
    scaled = lags * gain.view(rows, 1, 1)
    scaled[:, :rows] *= gain.view(1, rows, 1)
    # A channel without sound must not make the matrix singular: its filters come out as 0.
    scaled[:, :rows, 0].diagonal().masked_fill_(~audible, 1.0)
    own = [slice(source * channels, (source + 1) * channels) for source in range(sources)]
    problems = [slice(0, rows), *own] if sources > 1 else own  # the largest first
    full, *single = side_by_side(partial(_filters, scaled), problems, threads)
    alone = torch.stack(single if sources > 1 else [full])
    return full * gain.view(rows, 1, 1), alone * gain.view(sources, channels, 1, 1)


def _filters(lags: Tensor, channels: slice) -> Tensor:
    """Filters `[K, K, L]` from K of the channels `[R, 2R, L]` to the same of the estimates."""
    inputs = lags[channels, channels]
    products = lags[channels, slice(channels.start + len(lags), channels.stop + len(lags))]
    count, _, length = inputs.shape
    solution = solve(inputs.contiguous(), products.permute(2, 0, 1).reshape(length * count, count))
    return solution.view(length, count, count).permute(1, 2, 0)


def ratio_db(above: Tensor, below: Tensor) -> Tensor:
    """Convert the ratio of two energies to dB; +inf where `below` is 0."""
    infinite = torch.full_like(above, torch.inf)
    return torch.where(below == 0, infinite, 10 * torch.log10(above / below))


def fft_size(least_samples: int) -> int:
    """Return the smallest multiple of 1024 with no prime factor above 5 that holds so many samples."""
    if least_samples <= _FFT_STEP:
        return max(2, 1 << (least_samples - 1).bit_length())
    return _FFT_STEP * next_fast_len(-(-least_samples // _FFT_STEP), real=True)


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


def _table(track: Track, rows: int, windows: int) -> Tensor:
    """Make room for so many numbers per source and window: one by one they would scatter over memory and pin it."""
    return torch.empty(rows, track.shape[0], windows, dtype=torch.float64, device=track.device)


def score_sdr(track: Track, window_samples: int, hop_samples: int) -> Tensor:
    """Compute the SDR of BSSEval v4 alone, which needs no filter: dB, float64 `[S, W]`."""
    times = _table(track, 3, track.count_windows(window_samples, hop_samples))
    for index, piece in enumerate(track.windows(window_samples, hop_samples)):
        times[..., index] = _time_energies(piece)
    signal, error, silent = times
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
    windows = track.count_windows(window_samples, hop_samples)
    times, spectra = _table(track, 3, windows), _table(track, 5, windows)
    # Pieces are small: several threads for one save little, and where others keep the processor busy they cost much.
    with one_thread() as threads:
        threads = threads if track.device.type == "cpu" else 1
        projector = Projector(track, min(window_samples, track.shape[2]), threads)

        def score(piece: Piece) -> tuple[Tensor, Tensor]:
            split = torch.full((), torch.nan) if projector.silent else projector.energies(piece)
            return _time_energies(piece), split

        for index, (energies, split) in enumerate(
            side_by_side(score, track.windows(window_samples, hop_samples), threads)
        ):
            times[..., index], spectra[..., index] = energies, split
    signal, error, silent = times
    own, spatial, interference, everything, artefacts = spectra
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
