"""Log-mel front ends, AudioLDM2's exactly and configurable ones, and linear magnitudes from mel spectrograms."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from polyres.core.catalogue import Catalogue
from polyres.core.config import Config
from polyres.core.errors import ConfigError, InputError
from polyres.dsp.framing import FrameTransform, Framing

EMPTY_FILTER_SHARE = 1 / 16
"""Share of the mel filters that may fall between two frequency bins and stay empty."""

# Slaney's scale: linear below 1000 Hz (15 mels), then 27 mels for every factor of 6.4.
_SLANEY_HZ_PER_MEL, _SLANEY_KNEE_HZ, _SLANEY_STEP = 200.0 / 3, 1000.0, 27.0


class MelConfig(Config):
    """Settings of a log-mel front end. The defaults are AudioLDM2's at 16 kHz.

    Frames are placed `between` hops (T // hop frames, as HiFi-GAN and AudioLDM train) or `centred` on multiples of
    the hop (1 + T // hop frames, as librosa). Magnitudes are taken to the `power`, weighted by triangular filters
    on the `slaney` or `htk` scale, with equal areas (`norm` slaney) or equal heights (`none`), and their natural
    logarithm is taken, no smaller than that of `floor`.
    """

    sample_rate_hz: int = Field(default=16000, ge=1)
    n_fft: int = Field(default=1024, ge=4)
    win_length: int = Field(default=1024, ge=4)
    hop_length: int = Field(default=160, ge=1)
    mel_bins: int = Field(default=64, ge=1)
    min_hz: float = Field(default=0.0, ge=0)
    max_hz: float = Field(default=8000.0, gt=0)
    scale: Literal["slaney", "htk"] = "slaney"
    norm: Literal["slaney", "none"] = "slaney"
    power: Literal[1, 2] = 1
    floor: float = Field(default=1e-5, gt=0)
    framing: Literal["between", "centred"] = "between"

    @model_validator(mode="after")
    def _fits(self) -> MelConfig:
        """Refuse settings that contradict each other."""
        nyquist_hz = self.sample_rate_hz / 2
        if self.max_hz > nyquist_hz:
            raise ValueError(
                f"max_hz {self.max_hz:g} is above {nyquist_hz:g} Hz, the highest frequency that a sample rate of "
                f"{self.sample_rate_hz} Hz holds; lower max_hz or raise sample_rate_hz"
            )
        if self.min_hz >= self.max_hz:
            raise ValueError(f"min_hz {self.min_hz:g} must be below max_hz {self.max_hz:g}")
        if self.n_fft < self.win_length:
            raise ValueError(f"n_fft {self.n_fft} is smaller than win_length {self.win_length}; raise n_fft to it")
        if self.hop_length >= self.win_length:
            raise ValueError(
                f"hop_length {self.hop_length} must be smaller than win_length {self.win_length}, "
                "or samples between two windows are lost"
            )
        if self.framing == "between" and (self.n_fft - self.hop_length) % 2:
            raise ValueError(
                f"n_fft {self.n_fft} less hop_length {self.hop_length} is odd; framing 'between' needs it even"
            )
        empty = int((_filters(self).amax(dim=1) == 0).sum())
        if empty > EMPTY_FILTER_SHARE * self.mel_bins:
            raise ValueError(
                f"{empty} of {self.mel_bins} mel filters lie between two frequency bins "
                f"{self.sample_rate_hz / self.n_fft:.3g} Hz apart and stay empty; lower mel_bins or raise n_fft"
            )
        return self


def mel_from_hz(frequency_hz: Tensor, scale: Literal["slaney", "htk"] = "slaney") -> Tensor:
    """Convert frequencies to mels.

    `frequency_hz`: any shape, >= 0; `scale`: `slaney` (Auditory Toolbox) or `htk`.

    Source: Slaney, "Auditory Toolbox", 1998; Young et al., "The HTK Book".
    """
    if scale == "htk":
        return 2595 * torch.log10(1 + frequency_hz / 700)
    knee = _SLANEY_KNEE_HZ / _SLANEY_HZ_PER_MEL
    above = frequency_hz.clamp_min(_SLANEY_KNEE_HZ) / _SLANEY_KNEE_HZ
    log = knee + _SLANEY_STEP * above.log() / torch.tensor(6.4, dtype=frequency_hz.dtype).log()
    return torch.where(frequency_hz < _SLANEY_KNEE_HZ, frequency_hz / _SLANEY_HZ_PER_MEL, log)


def hz_from_mel(mel: Tensor, scale: Literal["slaney", "htk"] = "slaney") -> Tensor:
    """Convert mels to frequencies; undoes `mel_from_hz`.

    `mel`: any shape, >= 0; `scale`: `slaney` or `htk`. Returns frequencies in Hz, same shape.
    """
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    knee = _SLANEY_KNEE_HZ / _SLANEY_HZ_PER_MEL
    above = _SLANEY_KNEE_HZ * 6.4 ** ((mel.clamp_min(knee) - knee) / _SLANEY_STEP)
    return torch.where(mel < knee, mel * _SLANEY_HZ_PER_MEL, above)


def mel_filterbank(config: MelConfig) -> Tensor:
    """Triangular filters, each from the middle of the one below to the middle of the one above.

    Returns `[M, F]` float64, M mel bins, F = n_fft // 2 + 1 frequency bins.
    """
    return _filters(config).clone()


@lru_cache(maxsize=16)
def _filters(config: MelConfig) -> Tensor:
    """Compute the filters once per front end."""
    ends = mel_from_hz(torch.tensor([config.min_hz, config.max_hz], dtype=torch.float64), config.scale)
    steps = torch.arange(config.mel_bins + 2, dtype=torch.float64) / (config.mel_bins + 1)
    edges = hz_from_mel(ends[0] + (ends[1] - ends[0]) * steps, config.scale)[:, None]
    bins = torch.arange(config.n_fft // 2 + 1, dtype=torch.float64) * (config.sample_rate_hz / config.n_fft)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    filters = torch.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)).clamp_min(0)
    return filters * (2 / (high - low)) if config.norm == "slaney" else filters


AUDIOLDM2_16K = MelConfig()
"""AudioLDM2 (also -large, -music and its vocoder): 100 frames per second of 64 mels up to 8 kHz."""


def mel_framing(config: MelConfig, length_samples: int) -> Framing:
    """Return the framing of a front end.

    Returns the framing, which `reconstruct_framed` understands. Raises InputError when the signal is too short.
    """
    place = Framing.between if config.framing == "between" else Framing.centred
    return place(config.n_fft, config.hop_length, length_samples, config.win_length)


def linear_magnitude(wave: Tensor, config: MelConfig) -> Tensor:
    """Magnitudes of the frames of a front end, before its filters.

    `wave`: `[..., T]`, float32 or float64, at the front end's sample rate. Returns `[..., F, N]`, as the phase methods
    take them. Raises InputError when the signal is too short, not real, or holds NaN or infinity.
    """
    _check_wave(wave)
    flat = wave.reshape(-1, wave.shape[-1])
    framing = mel_framing(config, wave.shape[-1])
    magnitude = FrameTransform(framing, wave.dtype, wave.device).analyse(flat).abs()
    return magnitude.transpose(1, 2).reshape(*wave.shape[:-1], framing.bins, framing.frames)


def mel_spectrogram(wave: Tensor, config: MelConfig) -> Tensor:
    """Mel spectrogram before the logarithm.

    `wave`: `[..., T]`, float32 or float64, at the front end's sample rate; returns `[..., N, M]`, >= 0; frames before
    mel bins.
    """
    return mel_of_magnitude(linear_magnitude(wave, config), config)


def mel_of_magnitude(magnitude: Tensor, config: MelConfig) -> Tensor:
    """Weight magnitudes with the filters of a front end.

    `magnitude`: `[..., F, N]`, >= 0. Returns `[..., N, M]`, >= 0. Raises InputError when F does not fit.
    """
    if magnitude.ndim < 2 or magnitude.shape[-2] != config.n_fft // 2 + 1:
        raise InputError(
            f"magnitudes have shape {tuple(magnitude.shape)}; [..., F, N] with F = {config.n_fft // 2 + 1} bins is "
            f"needed for n_fft {config.n_fft}"
        )
    filters = _filters(config).to(magnitude)
    return magnitude.transpose(-1, -2).pow(config.power) @ filters.T


def log_mel(wave: Tensor, config: MelConfig) -> Tensor:
    """Natural logarithm of the mel spectrogram, no smaller than that of the floor.

    The wave is taken as it is: level, mean and length are the caller's (`level_of`).

    `wave`: `[..., T]`, float32 or float64, at the front end's sample rate. Returns `[..., N, M]`; frames before mel
    bins. Raises InputError when the signal is too short, not real, or holds NaN or infinity.
    """
    return mel_spectrogram(wave, config).clamp_min(config.floor).log()


def audioldm2_log_mel(wave_16k: Tensor) -> Tensor:
    """Front end of AudioLDM2: what its autoencoder and its vocoder were trained on.

    Its training set has the mean removed and the peak at 0.5 (`level_of`). Its autoencoder takes
    `[B, 1, frames, 64]`, frames a multiple of 4: pad the wave with zeros for that, not the result, where 0 is loud.

    `wave_16k`: `[..., T]` at 16 kHz, T >= 433. Returns `[..., T // 160, 64]`, natural logarithm, >= log(1e-5) =
    -11.513. Raises InputError when the signal is too short, not real, or holds NaN or infinity.

    Source: AudioLDM-training-finetuning, utilities/data/dataset.py; settings of its 16k_64 autoencoder.
    """
    return log_mel(wave_16k, AUDIOLDM2_16K)


def require_front_end(config: MelConfig, trained: MelConfig, weights: str) -> None:
    """Refuse a front end that weights were not trained with.

    `trained`: the one that the weights were trained with. Raises ConfigError when they differ; names every setting that
    does.
    """
    given, needed = config.to_dict(), trained.to_dict()
    wrong = [f"{key} {given[key]} (needs {needed[key]})" for key in needed if given[key] != needed[key]]
    if wrong:
        raise ConfigError(
            f"{weights} cannot be used with {', '.join(wrong)}: its weights read every mel bin and frame by the "
            "meaning it had in training; use its own front end, or train a model with these settings"
        )


def _check_wave(wave: Tensor) -> None:
    """Refuse invalid audio."""
    if wave.ndim < 1 or wave.dtype not in (torch.float32, torch.float64):
        raise InputError(
            f"the wave has shape {tuple(wave.shape)} and type {wave.dtype}; [..., T] float32 or float64 is needed"
        )
    if not bool(torch.isfinite(wave).all()):
        raise InputError("the wave holds NaN or infinity; only finite samples can be used")


def mel_centres_hz(config: MelConfig) -> Tensor:
    """Return the middle frequencies of the filters of a front end. Returns `[M]` float64 in Hz."""
    ends = mel_from_hz(torch.tensor([config.min_hz, config.max_hz], dtype=torch.float64), config.scale)
    steps = torch.arange(1, config.mel_bins + 1, dtype=torch.float64) / (config.mel_bins + 1)
    return hz_from_mel(ends[0] + (ends[1] - ends[0]) * steps, config.scale)


MEL_CONTROLS: Catalogue[Tensor] = Catalogue("wrong front end")
"""Each takes waves `[..., T]` at 16 kHz and gives what is then mistaken for AudioLDM2's log-mel spectrogram."""

_TOP_DB = 80.0


@MEL_CONTROLS.register("decibel_front_end", "power in decibels below the file's peak, over 20")
def decibel_front_end(wave_16k: Tensor, config: MelConfig = AUDIOLDM2_16K) -> Tensor:
    """Take mel power in decibels, divided by 20: wrong in four ways.

    The weights expect the natural logarithm of magnitudes. Here power is summed instead of magnitude; the loudest
    bin of the file becomes 0, so that its level is lost; everything 80 dB below that is cut off; and the range is
    -4 to 0 where -11.5 to about 0.6 is meant. The vocoder reads -4 as a magnitude of 0.018, which is 65 dB above
    its floor: pauses come out as hiss.

    `wave_16k`: `[..., T]` at 16 kHz, T >= 433; `config`: the front end whose filters are used. Returns `[..., N, M]`,
    -4 to 0. Raises InputError when the signal is too short, not real, or holds NaN or infinity.
    """
    power = mel_spectrogram(wave_16k, config.model_copy(update={"power": 2}))
    peak = power.amax(dim=(-2, -1), keepdim=True).clamp_min(1e-10)
    level_db = 10 * (power.clamp_min(1e-10) / peak).log10()
    return level_db.clamp_min(-_TOP_DB) / 20


@MEL_CONTROLS.register("transposed_layout", "mel bins where frames belong")
def transposed_layout(wave_16k: Tensor) -> Tensor:
    """Take the right values in the wrong layout, mel bins before frames, cut or filled up to the right shape.

    The autoencoder takes `[B, 1, frames, 64]`. It is convolutional in both axes and does not complain about
    `[B, 1, 64, frames]`; what comes out is noise. Here 64 frames at a time are turned over, so that the shape is
    the right one and nothing but the layout is wrong.

    `wave_16k`: `[..., T]` at 16 kHz, T >= 433. Returns `[..., N, 64]`, every block of 64 frames transposed; a shorter
    block at the end is left as it is. Raises InputError when the signal is too short, not real, or holds NaN or
    infinity.
    """
    right = audioldm2_log_mel(wave_16k)
    size = right.shape[-1]
    whole = right.shape[-2] // size * size
    squares = right[..., :whole, :].reshape(*right.shape[:-2], -1, size, size)
    blocks = squares.transpose(-1, -2).flatten(-3, -2)
    return torch.cat([blocks, right[..., whole:, :]], dim=-2)


NNLS_ITERATIONS = 60
"""Rounds of `nnls`; the mels then fit to about 1e-4 in their logarithm."""

SMOOTH_ROUNDS = 20
"""Rounds of `smooth`: more fit the mels better, fewer are smoother."""

MelInverse = Callable[[Tensor, Tensor], Tensor]
"""Takes mels `[K, M]` and filters `[M, F]` with rows of length 1; gives `[K, F]`, >= 0."""

MEL_INVERSES: Catalogue[MelInverse] = Catalogue("mel inverse")


def mel_to_linear(mel: Tensor, config: MelConfig, method: str = "nnls") -> Tensor:
    """Find magnitudes whose mel spectrogram is the given one, or comes close to it.

    `mel`: `[..., N, M]`, >= 0, before the logarithm; returns `[..., F, N]`, >= 0, as the phase methods take them. Bins
    that no filter reaches are 0.
    """
    solve = MEL_INVERSES.build(method)
    _check_mel(mel, config)
    if float(mel.min() if mel.numel() else 0) < 0:
        raise InputError(f"mels go down to {float(mel.min()):g}; they must be >= 0 (use log_mel_to_linear for logs)")
    filters = mel_filterbank(config).to(mel)
    length = filters.norm(dim=1).clamp_min(torch.finfo(mel.dtype).tiny)
    flat = mel.reshape(-1, mel.shape[-1])
    # Frames one by one in scale: soft ones are solved as well as loud ones.
    peak = flat.amax(dim=1, keepdim=True)
    scale = torch.where(peak > 0, peak, 1)
    heard = length > torch.finfo(mel.dtype).tiny
    solved = solve((flat / scale / length)[:, heard], (filters / length[:, None])[heard]) * scale
    solved = solved * (filters.sum(dim=0) > 0)  # the pseudo-inverse leaves rounding errors elsewhere
    if config.power == 2:
        solved = solved.sqrt()
    return solved.reshape(*mel.shape[:-1], -1).transpose(-1, -2)


def log_mel_to_linear(log_mel: Tensor, config: MelConfig, method: str = "nnls") -> Tensor:
    """Find magnitudes for a log-mel spectrogram.

    `log_mel`: `[..., N, M]`, natural logarithm; `config`: the front end that made it. Returns `[..., F, N]`, >= 0, as
    the phase methods take them. Raises InputError on a tensor that is no such mel spectrogram; UnknownNameError on an
    unknown method.
    """
    _check_mel(log_mel, config)
    return mel_to_linear(log_mel.exp(), config, method)


def _check_mel(mel: Tensor, config: MelConfig) -> None:
    """Refuse tensors that cannot be spectrograms of the front end."""
    if mel.ndim < 2 or mel.shape[-1] != config.mel_bins or not mel.dtype.is_floating_point:
        hint = " (frames come before mel bins; transpose it?)" if config.mel_bins in mel.shape[:-1] else ""
        raise InputError(
            f"mels have shape {tuple(mel.shape)} and type {mel.dtype}; "
            f"[..., N, {config.mel_bins}] of floats is needed{hint}"
        )
    if not bool(torch.isfinite(mel).all()):
        raise InputError("mels hold NaN or infinity; only finite values can be used")


@MEL_INVERSES.register("pinv", "pseudo-inverse, negative values cut off; fastest, and the least exact")
def _build_pinv() -> MelInverse:
    """Build the solution of least energy, cut off at 0."""
    return lambda mel, filters: (mel @ torch.linalg.pinv(filters).T).clamp_min(0)


@MEL_INVERSES.register("nnls", "non-negative least squares; fits the mels exactly where anything does")
def _build_nnls() -> MelInverse:
    """Build projected gradient descent with momentum from the pseudo-inverse.

    Source: Beck & Teboulle, "A fast iterative shrinkage-thresholding algorithm", SIAM J. Imaging Sciences 2009.
    """

    def solve(mel: Tensor, filters: Tensor) -> Tensor:
        step = 1 / float(torch.linalg.matrix_norm(filters, 2) ** 2)
        former: Tensor = (mel @ torch.linalg.pinv(filters).T).clamp_min(0)
        ahead = former
        speed = 1.0
        for _ in range(NNLS_ITERATIONS):
            here = (ahead - step * ((ahead @ filters.T - mel) @ filters)).clamp_min(0)
            faster = (1 + (1 + 4 * speed * speed) ** 0.5) / 2
            ahead = here + (speed - 1) / faster * (here - former)
            former, speed = here, faster
        return former

    return solve


@MEL_INVERSES.register("smooth", "scaled up from a flat spectrum and stopped early; no holes between filters")
def _build_smooth() -> MelInverse:
    """Build multiplicative fitting from a flat spectrum: early stopping is what keeps it smooth.

    Source: Richardson 1972 and Lucy 1974; Lee & Seung, "Algorithms for non-negative matrix factorization", 2001.
    """

    def solve(mel: Tensor, filters: Tensor) -> Tensor:
        tiny = torch.finfo(mel.dtype).tiny
        weight = filters.sum(dim=0)
        inverse = torch.where(weight > 0, 1 / weight.clamp_min(tiny), 0)
        guess = (weight > 0).to(mel).expand(mel.shape[0], -1)
        for _ in range(SMOOTH_ROUNDS):
            guess = guess * (((mel / (guess @ filters.T).clamp_min(tiny)) @ filters) * inverse)
        return guess

    return solve
