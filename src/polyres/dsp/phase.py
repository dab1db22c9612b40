"""Reconstruct waves from magnitude spectrograms by named phase methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.core.catalogue import Catalogue
from polyres.core.errors import ConfigError, InputError
from polyres.dsp.framing import FrameTransform, Framing
from polyres.dsp.pghi import integrate_phase

MOMENTUM = 0.99
"""Acceleration of fast Griffin-Lim."""

RHO = 0.1
"""Weight of the former estimate against consistency in ADMM."""

# Energy of a bin that has no phase.
_TINY = 1e-30

Hold = Callable[[Tensor], Tensor]
"""Takes waves `[B, T]` between two iterations, gives them with what is known of them in its place."""

Refine = Callable[[Tensor, Tensor, FrameTransform, int, Hold], Tensor]
"""Takes magnitudes and start spectra `[B, N, F]`, the transform, the iterations and what is to be held; gives waves
`[B, T]`."""


@dataclass(frozen=True)
class PhaseMethod:
    """A phase method: its initial phase and its refinement."""

    refine: Refine
    from_slopes: bool = False
    """Start from the phase that the slopes of the magnitude imply, not from a random one."""


PHASE_METHODS: Catalogue[PhaseMethod] = Catalogue("phase method")


def reconstruct_phase(
    magnitude: Tensor,
    method: str,
    n_fft: int,
    hop_length: int,
    iterations: int = 32,
    seed: int = 0,
    length_samples: int | None = None,
    phase: Tensor | None = None,
) -> Tensor:
    """Find a wave with given magnitudes, as `torch.stft` gives them with center=True and a periodic Hann window.

    `magnitude`: `[..., F, N]`, >= 0, F = n_fft // 2 + 1; `iterations`: rounds of refinement, >= 0; `pghi` makes none;
    returns `[..., T]`, on the device of the magnitudes. Items of a batch do not depend on each other.
    """
    if length_samples is None:
        frames = magnitude.shape[-1] if magnitude.ndim else 0
        length_samples = max(0, hop_length * (frames - 1) + n_fft % 2)
    return reconstruct_framed(
        magnitude, method, Framing.centred(n_fft, hop_length, length_samples), iterations, seed, phase
    )


def reconstruct_framed(
    magnitude: Tensor,
    method: str,
    framing: Framing,
    iterations: int = 32,
    seed: int = 0,
    phase: Tensor | None = None,
    before: Tensor | None = None,
) -> Tensor:
    """Find a wave with given magnitudes of any framing.

    With `before`, the wave goes on from one that is known already: it follows that one as closely as the magnitudes
    allow, so that fading from one to the other in their last common samples leaves no seam.

    Args:
        magnitude: `[..., F, N]`, >= 0.
        framing: the frames that the magnitudes belong to.
        iterations: rounds of refinement, >= 0; `pghi` makes none.
        phase: start phases in radians, same shape as magnitude, in place of random ones.
        before: `[..., K]`, the first samples of the wave, K up to its length; may be empty.

    Returns:
        `[..., T]`, on the device of the magnitudes. Items of a batch do not depend on each other.

    Raises:
        InputError: on magnitudes that are no magnitudes of such frames.
        UnknownNameError: on an unknown method.
        ConfigError: on a negative number of iterations, or a start phase for a method that makes its own.
    """
    chosen = PHASE_METHODS.build(method)
    if iterations < 0:
        raise ConfigError(f"iterations is {iterations}; 0 or more is needed")
    if phase is not None and chosen.from_slopes:
        raise ConfigError(f"phase method {method!r} makes its own start phase; leave `phase` out or use griffin_lim")
    _check_magnitude(magnitude, phase, framing)
    if before is not None:
        _check_before(before, magnitude, framing)
    dtype = magnitude.dtype if magnitude.dtype == torch.float64 else torch.float32
    flat = _frames_first(magnitude).to(dtype)
    turns = None if phase is None else _frames_first(phase).to(flat) / (2 * torch.pi)
    noise = torch.rand(framing.frames, framing.bins, generator=torch.Generator().manual_seed(seed)).to(flat)
    transform = FrameTransform(framing, dtype, flat.device)
    # One item at a time where that is no slower: the result is then the same, bit for bit, in every batch.
    step = 1 if flat.device.type == "cpu" else max(1, len(flat))
    heard = flat.new_zeros(len(flat), 0) if before is None else before.reshape(len(flat), -1).to(flat)
    waves = []
    for first in range(0, len(flat), step):
        part = flat[first : first + step]
        peak = part.amax(dim=(1, 2), keepdim=True)
        scale = torch.where(peak > 0, peak, 1)
        part, there = part / scale, heard[first : first + step] / scale[:, 0]
        given = noise.expand_as(part) if turns is None else turns[first : first + step]
        start = _start(chosen, part, given, there, transform)
        wave = chosen.refine(part, _polar(part, start), transform, iterations, partial(_held, there))
        waves.append(wave * scale[:, 0])
    wave = torch.cat(waves) if waves else flat.new_zeros(0, framing.length_samples)
    return wave.reshape(*magnitude.shape[:-2], framing.length_samples)


def _check_magnitude(magnitude: Tensor, phase: Tensor | None, framing: Framing) -> None:
    """Refuse tensors that cannot be magnitudes of the frames."""
    shape = tuple(magnitude.shape)
    if not magnitude.dtype.is_floating_point:
        raise InputError(f"magnitudes are {magnitude.dtype}; real floating-point numbers are needed (spectrum.abs())")
    if magnitude.ndim < 2 or shape[-2] != framing.bins:
        raise InputError(
            f"magnitudes have shape {shape}; [..., F, N] with F = n_fft // 2 + 1 = {framing.bins} bins is needed "
            f"for n_fft {framing.n_fft}"
        )
    if shape[-1] != framing.frames:
        raise InputError(
            f"magnitudes have {shape[-1]} frames; {framing.length_samples} samples make {framing.frames} frames "
            f"of hop_length {framing.hop_length}"
        )
    if not bool(torch.isfinite(magnitude).all()):
        raise InputError("magnitudes hold NaN or infinity; only finite values can be used")
    if magnitude.numel() and float(magnitude.min()) < 0:
        raise InputError(
            f"magnitudes go down to {float(magnitude.min()):g}; they must be >= 0 (not decibels, not logarithms)"
        )
    if phase is not None and phase.shape != magnitude.shape:
        raise InputError(f"start phases have shape {tuple(phase.shape)}; that of the magnitudes, {shape}, is needed")


def _check_before(before: Tensor, magnitude: Tensor, framing: Framing) -> None:
    """Check the known beginning of the wave."""
    if before.shape[:-1] != magnitude.shape[:-2] or before.shape[-1] > framing.length_samples:
        raise InputError(
            f"the wave before has shape {tuple(before.shape)}; {tuple(magnitude.shape[:-2])} and at most "
            f"{framing.length_samples} samples are needed"
        )
    if not bool(torch.isfinite(before).all()):
        raise InputError("the wave before holds NaN or infinity; only finite values can be used")


def _start(method: PhaseMethod, magnitude: Tensor, given: Tensor, before: Tensor, transform: FrameTransform) -> Tensor:
    """Phases in turns to start from: those of what is known of the wave, then those of the method or given ones."""
    known = _known_turns(before, transform)
    if method.from_slopes:
        return integrate_phase(magnitude, transform.framing, given[0], known)
    return torch.cat([known, given[:, known.shape[1] :]], dim=1)


def _known_turns(before: Tensor, transform: FrameTransform) -> Tensor:
    """Phases in turns `[B, n, F]` of the frames that lie in what is known of the wave, `[B, K]`."""
    framing, length = transform.framing, before.shape[-1]
    count = max(0, 1 + (length + framing.pad_samples - framing.n_fft) // framing.hop_length) if length else 0
    count = framing.frames if length == framing.length_samples else min(count, framing.frames)
    if count < 1:
        return before.new_zeros(len(before), 0, framing.bins)
    longer = F.pad(before, (0, framing.length_samples - length))
    return transform.analyse(longer)[:, :count].angle() / (2 * torch.pi)


def _held(known: Tensor, wave: Tensor) -> Tensor:
    """Insert the known samples of a wave."""
    return torch.cat([known, wave[:, known.shape[-1] :]], dim=-1) if known.shape[-1] else wave


def _frames_first(values: Tensor) -> Tensor:
    """Bring `[..., F, N]` to `[B, N, F]`."""
    return values.reshape(-1, *values.shape[-2:]).transpose(1, 2).contiguous()


def _polar(magnitude: Tensor, turns: Tensor) -> Tensor:
    """Join magnitudes with phases in turns."""
    return torch.polar(magnitude, (2 * torch.pi * turns).expand_as(magnitude).contiguous())


def _impose(spectra: Tensor, magnitude: Tensor) -> Tensor:
    """Keep the phase and set the magnitude: the nearest spectra that have it. Magnitudes are 1 at most."""
    real, imaginary = spectra.real, spectra.imag
    energy = real.square().add_(_TINY).addcmul_(imaginary, imaginary)  # twice as fast as abs()
    return spectra * energy.rsqrt_().mul_(magnitude)


def _iterate(magnitude: Tensor, start: Tensor, transform: FrameTransform, iterations: int, hold: Hold) -> Tensor:
    """Project onto the spectra of waves and onto those with the magnitudes, in turn."""
    wave = transform.synthesise(start)
    for _ in range(iterations):
        wave = transform.project(hold(wave), lambda spectra, rows: _impose(spectra, magnitude[:, rows]))
    return wave


def _accelerate(magnitude: Tensor, start: Tensor, transform: FrameTransform, iterations: int, hold: Hold) -> Tensor:
    """Project in turn, each time from a point ahead in the direction of the last step."""
    former = torch.zeros_like(start)
    share = MOMENTUM / (1 + MOMENTUM)

    def update(spectra: Tensor, rows: slice) -> Tensor:
        ahead = torch.sub(spectra, former[:, rows], alpha=share)
        former[:, rows] = spectra
        return _impose(ahead, magnitude[:, rows])

    wave = transform.synthesise(start)
    for _ in range(iterations):
        wave = transform.project(hold(wave), update)
    return wave


def _alternate(magnitude: Tensor, start: Tensor, transform: FrameTransform, iterations: int, hold: Hold) -> Tensor:
    """Solve for magnitude and consistency by the alternating direction method of multipliers."""
    dual = start.clone()  # estimate plus multiplier
    estimate = start

    def update(spectra: Tensor, rows: slice) -> Tensor:
        consistent = (RHO * dual[:, rows] + spectra) / (1 + RHO)
        multiplier = dual[:, rows] - consistent
        estimate = _impose(consistent - multiplier, magnitude[:, rows])
        dual[:, rows] = estimate + multiplier
        return estimate if last else dual[:, rows]

    wave = transform.synthesise(estimate)
    for number in range(iterations):
        last = number == iterations - 1
        wave = transform.project(hold(wave), update)
    return wave


def _keep(magnitude: Tensor, start: Tensor, transform: FrameTransform, iterations: int, hold: Hold) -> Tensor:
    """Take the start spectra as they are."""
    return transform.synthesise(start)


@PHASE_METHODS.register("griffin_lim", "alternating projections from random phases; slow but never gets worse")
def griffin_lim() -> PhaseMethod:
    """Build the Griffin-Lim algorithm.

    Source: Griffin & Lim, "Signal estimation from modified short-time Fourier transform", IEEE TASSP 1984.
    """
    return PhaseMethod(_iterate)


@PHASE_METHODS.register("fast_griffin_lim", "Griffin-Lim with momentum 0.99")
def fast_griffin_lim() -> PhaseMethod:
    """Build the accelerated Griffin-Lim algorithm.

    Source: Perraudin, Balazs & Søndergaard, "A fast Griffin-Lim algorithm", WASPAA 2013.
    """
    return PhaseMethod(_accelerate)


@PHASE_METHODS.register("admm", "alternating direction method of multipliers from random phases")
def admm() -> PhaseMethod:
    """Build phase recovery by ADMM.

    Source: Masuyama, Yatabe & Oikawa, "Griffin-Lim like phase recovery via alternating direction method of
    multipliers", IEEE Signal Processing Letters 2019.
    """
    return PhaseMethod(_alternate)


@PHASE_METHODS.register("pghi", "phase gradient heap integration: no iterations, as good as 32 of fast Griffin-Lim")
def pghi() -> PhaseMethod:
    """Build phase gradient heap integration alone.

    Source: Průša, Balazs & Søndergaard, "A noniterative method for reconstruction of phase from STFT magnitude",
        IEEE/ACM TASLP 2017.
    """
    return PhaseMethod(_keep, from_slopes=True)


@PHASE_METHODS.register("pghi+fgla", "fast Griffin-Lim that starts from phase gradient heap integration; the best")
def pghi_fgla() -> PhaseMethod:
    """Build fast Griffin-Lim from the phases of phase gradient heap integration."""
    return PhaseMethod(_accelerate, from_slopes=True)
