"""Hann-windowed frames of a reflected signal, and the wave whose frames come closest to given ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.core.errors import InputError

Update = Callable[[Tensor, slice], Tensor]
"""Takes spectra `[B, n, F]` of the frames in a slice, gives the spectra to go on with."""

# Bins handled at a time on a CPU, so that their spectra stay in its cache.
_CPU_BLOCK_BINS = 1 << 16

# Share of the largest window energy below which a sample counts as not reached by any window.
_REACH = 1e-8


@dataclass(frozen=True)
class Framing:
    """Where the frames of a signal lie: it is reflected at both ends, and every frame has a periodic Hann window."""

    n_fft: int  # transform length in samples, >= 4
    hop_length: int  # distance between frames in samples, 1 to the window length less 1
    pad_samples: int  # samples reflected at each end; less than length_samples
    length_samples: int  # of the signal
    win_length: int | None = None  # window length in samples, 4 to n_fft, in the middle of the frame; n_fft where None

    def __post_init__(self) -> None:
        """Refuse parameters that cannot be framed or not be inverted."""
        if self.n_fft < 4:
            raise InputError(f"n_fft is {self.n_fft}; 4 or more is needed")
        if not 4 <= self.window_samples <= self.n_fft:
            raise InputError(f"win_length is {self.window_samples}; 4 to n_fft {self.n_fft} is possible")
        if not 1 <= self.hop_length < self.window_samples:
            raise InputError(
                f"hop_length is {self.hop_length}; 1 to {self.window_samples - 1} is possible with windows of "
                f"{self.window_samples}, since samples between two windows would be lost"
            )
        shortest = max(self.pad_samples + 1, self.n_fft - 2 * self.pad_samples)
        if self.length_samples < shortest:
            raise InputError(
                f"a signal of {self.length_samples} samples cannot be reflected by {self.pad_samples} samples and cut "
                f"into frames of {self.n_fft}; at least {shortest} samples are needed"
            )

    @staticmethod
    def centred(n_fft: int, hop_length: int, length_samples: int, win_length: int | None = None) -> Framing:
        """Place frame k around sample k * hop, as a centred `torch.stft`: 1 + T // hop frames if n_fft is even."""
        return Framing(n_fft, hop_length, n_fft // 2, length_samples, win_length)

    @staticmethod
    def between(n_fft: int, hop_length: int, length_samples: int, win_length: int | None = None) -> Framing:
        """Place frame k around sample (k + 1/2) * hop, as HiFi-GAN and AudioLDM do: T // hop frames."""
        if (n_fft - hop_length) % 2:
            raise InputError(f"n_fft {n_fft} less hop_length {hop_length} is odd; frames between hops need it even")
        return Framing(n_fft, hop_length, (n_fft - hop_length) // 2, length_samples, win_length)

    @property
    def window_samples(self) -> int:
        """Length of the window."""
        return self.n_fft if self.win_length is None else self.win_length

    @property
    def window_start(self) -> int:
        """Place of the window in the frame."""
        return (self.n_fft - self.window_samples) // 2

    @property
    def frames(self) -> int:
        """Number of frames N."""
        return 1 + (self.length_samples + 2 * self.pad_samples - self.n_fft) // self.hop_length

    @property
    def bins(self) -> int:
        """Number of frequency bins F."""
        return self.n_fft // 2 + 1


class FrameTransform:
    """Spectra of frames and back, for tensors of one type on one device."""

    def __init__(self, framing: Framing, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        """Prepare the window and the energy that each sample gets from all windows.

        `framing`: where the frames lie; `dtype`: of the waves, float32 or float64.
        """
        self.framing = framing
        size, start = framing.window_samples, framing.window_start
        hann = torch.hann_window(size, dtype=dtype, device=device)
        self._window = F.pad(hann, (start, framing.n_fft - size - start))
        self._parts = -(-framing.n_fft // framing.hop_length)
        energy = self._empty_sum(self._window.double()[None])
        self._overlap(energy, self._window.double().square().expand(1, framing.frames, -1), slice(0, framing.frames))
        folded = self._fold(energy)
        self._gain = torch.where(folded > _REACH * folded.max(), 1 / folded, 0).to(dtype)

    def analyse(self, wave: Tensor) -> Tensor:
        """Transform every frame.

        `wave`: `[B, T]`. Returns complex `[B, N, F]`: what `torch.stft` gives, with frames before bins.
        """
        cut = self._cut(wave)
        return torch.cat([torch.fft.rfft(cut[:, rows] * self._window) for rows in self._blocks(wave)], dim=1)

    def synthesise(self, spectra: Tensor) -> Tensor:
        """Find the wave whose frames come closest to given spectra in the least-squares sense.

        Exact for the spectra of a wave, to its first and last sample. What is reflected counts as well, so that
        `analyse(synthesise(.))` is an orthogonal projection. Samples that no window reaches are 0.

        `spectra`: complex `[B, N, F]`. Returns `[B, T]`.

        Source: Griffin & Lim, "Signal estimation from modified short-time Fourier transform", IEEE TASSP 1984.
        """
        total = self._empty_sum(spectra.real)
        for rows in self._blocks(total):
            self._add(total, spectra[:, rows], rows)
        return self._fold(total) * self._gain

    def project(self, wave: Tensor, update: Update) -> Tensor:
        """Analyse, change the spectra and synthesise, block of frames by block of frames.

        `wave`: `[B, T]`; `update`: changes the spectra `[B, n, F]` of the frames in a slice; called once per frame, in
        order; returns `[B, T]`, the same as synthesise(update(analyse(wave))).
        """
        cut, total = self._cut(wave), self._empty_sum(wave)
        for rows in self._blocks(wave):
            self._add(total, update(torch.fft.rfft(cut[:, rows] * self._window), rows), rows)
        return self._fold(total) * self._gain

    def _blocks(self, like: Tensor) -> Iterator[slice]:
        """Return slices of frames; all at once on a GPU."""
        frames = self.framing.frames
        step = max(1, _CPU_BLOCK_BINS // self.framing.bins) if like.device.type == "cpu" else frames
        return (slice(start, min(start + step, frames)) for start in range(0, frames, step))

    def _cut(self, wave: Tensor) -> Tensor:
        """Return overlapping views `[B, N, n_fft]` of the reflected wave."""
        framing = self.framing
        padded = F.pad(wave, (framing.pad_samples, framing.pad_samples), mode="reflect")
        return padded.unfold(-1, framing.n_fft, framing.hop_length)

    def _empty_sum(self, like: Tensor) -> Tensor:
        """Return an empty sum `[B, N + parts, hop]`, one row per hop of the reflected wave."""
        return like.new_zeros(like.shape[0], self.framing.frames + self._parts, self.framing.hop_length)

    def _add(self, total: Tensor, spectra: Tensor, rows: slice) -> None:
        """Add the windowed signals of frames at their places."""
        self._overlap(total, torch.fft.irfft(spectra, n=self.framing.n_fft).mul_(self._window), rows)

    def _overlap(self, total: Tensor, pieces: Tensor, rows: slice) -> None:
        """Add pieces `[B, n, n_fft]` at the places of the frames in a slice."""
        hop = self.framing.hop_length
        for part in range(self._parts):
            piece = pieces[..., part * hop : (part + 1) * hop]
            total[:, rows.start + part : rows.stop + part, : piece.shape[-1]] += piece

    def _fold(self, total: Tensor) -> Tensor:
        """Add the reflected ends to the samples that they repeat: `[B, T]`."""
        pad, length = self.framing.pad_samples, self.framing.length_samples
        flat = total.flatten(1)
        flat = F.pad(flat, (0, max(0, length + 2 * pad - flat.shape[1])))
        wave = flat[:, pad : pad + length].clone()
        wave[:, 1 : pad + 1] += flat[:, :pad].flip(-1)
        wave[:, length - 1 - pad : length - 1] += flat[:, pad + length : length + 2 * pad].flip(-1)
        return wave
