"""Training `polyres_wave`: the recipe, and the task that the solver runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from polyres.codec.registry import build_codec
from polyres.codec.tasks.enhance import MixtureData, Pool
from polyres.codec.wave.arithmetic_coding import PROBABILITY_ONE
from polyres.codec.wave.codec import WaveCodec, WaveCodecConfig, save_wave_codec
from polyres.codec.wave.floor import LEVEL_WIDTH, STEPS_DB, floor_power, floor_symbols, levels_of
from polyres.codec.wave.layer import Plan, choose_modes, gathered, rotated
from polyres.codec.wave.refiner import Critic, CriticConfig
from polyres.codec.wave.step import LAST_WIDTH, MODE_WIDTH, Selection, Tables, context_counts, last_unit, select, shapes
from polyres.core.errors import TrainingError, WeightsError
from polyres.datasets.stem_files import most_active_excerpt
from polyres.datasets.stems import StemsConfig
from polyres.datasets.tracks import load_layout_track
from polyres.dsp.mdct import lapped, unlapped
from polyres.metrics.reconstruction.levels import matched
from polyres.metrics.reconstruction.spectra import log_spectral_distance, metric_magnitude
from polyres.nn.losses import LossConfig, WeightedLoss
from polyres.training.config import SolverConfig
from polyres.training.loading import Prepare
from polyres.training.task import Forward, TrackValidConfig
from polyres.weights.files import fill

PLANES = 5
"""Original, carried, noise, scale and random numbers for the latent: what a batch `[B, 5, C, T]` holds."""

SNR_WORTH = 0.25
"""In the score a decibel of SNR counts this much of one of log-spectral distance."""


class CodecTrainConfig(SolverConfig):
    """A recipe: which codec is trained, on what, and how."""

    task: Literal["polyres_wave"] = "polyres_wave"  # what is trained
    model: WaveCodecConfig  # of the codec; it needs a refiner
    data_dir: str | None = None  # what the roots are relative to
    data: StemsConfig  # mixtures are sums of its stems
    pool_items: int = Field(default=400, ge=1)  # segments that are coded once and used again and again
    table_items: int = Field(default=100, ge=1)  # of these, to count probabilities on without `init`
    loss: LossConfig = LossConfig(terms={"l1": 1.0, "stft": 1.0})  # distances between waves
    kl_weight: float = Field(default=1e-3, ge=0)  # how much the divergence of the latent counts
    critic: CriticConfig | None = None  # adversarial terms; none where None
    init: str | None = None  # weights to start from
    valid: TrackValidConfig = TrackValidConfig()  # on what it is validated

    @model_validator(mode="after")
    def _fits_together(self) -> CodecTrainConfig:
        """Refuse data that the codec cannot take."""
        for key in ("sample_rate_hz", "audio_channels"):
            wanted, given = getattr(self.model, key), getattr(self.data, key)
            if wanted != given:
                raise ValueError(f"data.{key} is {given!r} but model.{key} is {wanted!r}; make them equal")
        if self.model.refiner is None or self.model.synthesis != "refined":
            raise ValueError("model.synthesis must be 'refined' with a model.refiner; there is nothing else to train")
        if self.data.segment_samples % self.model.layout.step_samples:
            raise ValueError(f"data.segment_samples must be a multiple of {self.model.layout.step_samples}")
        return self


class CodecInTraining(nn.Module):
    """The codec and its critic, whose parameters one optimiser moves."""

    def __init__(self, codec: WaveCodec, critic: Critic | None) -> None:
        """Put both together; `codec` must have a refiner."""
        super().__init__()
        self.codec = codec
        self.critic = critic

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """Refine a batch `[B, 5, C, T]` of `PLANES`; in training also return `kl` and the critic's terms."""
        refiner = self.codec.refiner
        if refiner is None:
            raise TrainingError("the codec has no refiner; there is nothing to train")
        original, carried, noise, scale, draws = batch.unbind(dim=1)
        scale = scale[:, :1]
        posterior = refiner.encode(original, carried, scale)
        latent = posterior.mean
        if self.training:
            numbers = draws.flatten(1)[:, : latent[0].numel()].reshape(latent.shape)
            latent = latent + (0.5 * posterior.log_variance).exp() * numbers
        found = {"estimate": carried + noise + refiner(carried, noise, scale, latent)}
        if self.training:
            found["kl"] = posterior.divergence()
            if self.critic is not None:
                found |= self.critic.terms(found["estimate"], original)._asdict()
        return found


def coded_planes(codec: WaveCodec, waves: Tensor) -> Tensor:
    """Code waves `[B, C, T]` to the refiner's inputs `[B, 4, C, T]`: original, carried, noise, scale."""
    with torch.no_grad():
        latents = codec.encode(waves)
        carried, noise = codec.parts({name: value.half().float() for name, value in latents.items()})
        scale = codec.scale(latents["coefficients"]).expand_as(waves)
    return torch.stack([waves, carried, noise, scale], dim=1)


def _coded(codec: WaveCodec, wave: Tensor) -> Tensor:
    """Code a mixture `[C, T]` to planes `[4, C, T]`."""
    return coded_planes(codec, wave[None])[0]


def with_draws(planes: Tensor, generator: torch.Generator) -> Tensor:
    """Add random numbers to planes `[B, 4, C, T]`, and turn polarity at random."""
    signs = torch.randint(0, 2, (len(planes), 1, 1, 1), generator=generator) * 2 - 1
    signed = torch.cat([planes[:, :3] * signs, planes[:, 3:]], dim=1)
    draws = torch.randn(planes[:, :1].shape, generator=generator)
    return torch.cat([signed, draws], dim=1)


class CodecTask:
    """Trains the refiner and the latent of a waveform codec; the probabilities of its layer are counted first."""

    warnings: tuple[str, ...] = ()

    def __init__(self, config: CodecTrainConfig) -> None:
        """Find the data and count probabilities."""
        self.config = config
        self.data = MixtureData(config)
        self._loss = WeightedLoss(config.loss, 1)
        self._codec = self._first_codec()
        self._planes: list[Tensor] | None = None

    def _first_codec(self) -> WaveCodec:
        """Build the codec, with the weights of `init` or probabilities counted on the data."""
        config = self.config
        codec = WaveCodec(config.model, seed=config.seed)
        if config.init is None:
            count = min(config.table_items, config.pool_items)
            waves = (self.data.source[index].sum(dim=0).numpy() for index in range(count))
            codec.set_tables(fit_tables(waves, codec.plan))
            return codec
        try:
            fill(codec, build_codec(config.init).state_dict(), config.init)
        except WeightsError as error:
            raise TrainingError(f"init is {config.init!r}: {error}") from error
        return codec

    def build_model(self) -> CodecInTraining:
        """Return the codec and, where the recipe has one, its critic."""
        critic, config = None, self.config
        if config.critic is not None:
            critic = Critic(config.critic.n_fft, config.model.audio_channels, config.critic.channels, config.seed)
        return CodecInTraining(self._codec, critic)

    def build_source(self) -> Pool:
        """Return the pool of coded segments."""
        return Pool(self.data.source, self.config.pool_items, partial(_coded, self._codec))

    def build_prepare(self) -> Prepare:
        """Return what adds random numbers to a batch."""
        return partial(with_draws)

    def losses(self, forward: Forward, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare refined waves with the originals; `batch` is `[B, 5, C, T]`."""
        found, config = forward(batch), self.config
        total, terms = self._loss.to(batch.device)(found["estimate"][:, None], batch[:, :1])
        total = total + config.kl_weight * found["kl"]
        terms = {**terms, "kl": found["kl"].detach()}
        if config.critic is not None:
            total, terms = config.critic.added(total, terms, found)
        return total, terms

    @torch.no_grad()
    def validate(self, forward: Forward) -> dict[str, float]:
        """Return SNR in dB, log-spectral distance in dB and their score on excerpts of the validation tracks."""
        if self._planes is None:
            self._planes = [self._excerpt(track) for track in self.data.files]
        found = [self._scores(forward(planes)["estimate"][0].double().cpu(), planes) for planes in self._planes]
        if not found:
            return {}
        return {name: float(np.mean([scores[name] for scores in found])) for name in found[0]}

    def _excerpt(self, track: Any) -> Tensor:
        """Code the most active part of a track: `[1, 5, C, T]`."""
        config, model = self.config, self.config.model
        stems = load_layout_track(track, config.data.sources, model.sample_rate_hz, model.audio_channels)
        step, seconds = model.layout.step_samples, config.valid.max_seconds or 20.0
        length = max(step, int(seconds * model.sample_rate_hz) // step * step)
        wave = most_active_excerpt(stems, length, model.sample_rate_hz).sum(dim=0)
        wave = torch.nn.functional.pad(wave, (0, -wave.shape[-1] % step))
        planes = coded_planes(self._codec, wave[None])
        return torch.cat([planes, torch.zeros_like(planes[:, :1])], dim=1)

    def _scores(self, estimate: Tensor, planes: Tensor) -> dict[str, float]:
        """Score one excerpt."""
        wave, rate = planes[0, 0].double(), self.config.model.sample_rate_hz
        ratio = wave.square().sum() / (wave - estimate).square().sum().clamp_min(1e-20)
        snr_db = float(10 * torch.log10(ratio.clamp_min(1e-10)))
        given = metric_magnitude(matched(wave, estimate), rate)
        lsd_db = 10 * float(log_spectral_distance(metric_magnitude(wave, rate), given))
        return {"score": SNR_WORTH * snr_db - lsd_db, "snr_db": snr_db, "lsd_db": lsd_db}

    def describe(self, model: CodecInTraining) -> dict[str, Any]:
        """Return the weights of the resolutions."""
        weights = model.codec.refiner.fusion.weights() if model.codec.refiner is not None else None
        return {} if weights is None else {"fusion": {"output": weights.tolist()}}

    def gradient_norms(self, model: CodecInTraining) -> dict[str, float]:
        """Return the L2 norms of the gradients of codec and critic."""
        parts: dict[str, list[Tensor]] = {}
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                parts.setdefault(name.partition(".")[0], []).append(parameter.grad.detach().norm())
        return {name: float(torch.stack(norms).norm()) for name, norms in parts.items()}

    def export(self, model: CodecInTraining, path: Path, card: Mapping[str, Any]) -> None:
        """Write weights that `polyres.load_codec` reads; the critic stays behind."""
        save_wave_codec(model.codec, path, card, dtype="fp32")


Array = np.ndarray
KEPT_SHARE = 0.8
"""Coefficients kept of the scalars of a step; the rest says where they are."""


def fit_tables(waves: Iterable[Array], plan: Plan, prior: float = 4.0) -> Tables:
    """Count the decisions in coded waves `[C, T]`: probabilities in units of 1 / 2048."""
    layout = plan.layout
    counts = {name: np.zeros((*size, 2)) for name, size in shapes(len(layout.splits)).items()}
    for wave in waves:
        steps = wave.shape[-1] // layout.step_samples
        if steps == 0:
            continue
        turned = rotated(wave[:, : steps * layout.step_samples].astype(np.float64))
        cut = turned.reshape(len(wave), steps, layout.step_samples)
        modes = [choose_modes(cut[:, step], layout, int(KEPT_SHARE * plan.budget)) for step in range(steps)]
        frames = gathered(lapped(turned, layout.block_sizes(np.concatenate(modes))), np.concatenate(modes), layout)
        thresholds, rest = [], []
        for step, own in enumerate(modes):
            own_frames = frames[step * layout.frames : (step + 1) * layout.frames]
            selection = select(own_frames, int(KEPT_SHARE * plan.budget))
            _count_step(selection, own, counts)
            thresholds.append(2.0**selection.log2)
            rest += [
                np.where(classes > 0, 0.0, frame) for frame, classes in zip(own_frames, selection.classes, strict=True)
            ]
        left_out = unlapped([frame[:, block] for frame in rest for block in range(frame.shape[1])])
        power = floor_power(left_out, plan.floor_block, plan.floor_bands).reshape(
            len(wave), steps, -1, plan.floor_bands
        )
        for step, unit in enumerate(thresholds):
            for channel in power[:, step]:
                for level, rough, expected in floor_symbols(levels_of(channel, unit, STEPS_DB[1])):
                    _count_symbol(counts["floor"][rough, expected], level, LEVEL_WIDTH)
    return Tables(*(_probabilities(counts[name], prior) for name in Tables._fields))


def _count_step(selection: Selection, modes: Array, counts: dict[str, Array]) -> None:
    """Add the decisions of a step."""
    if selection.count == 0:
        return
    context_counts(selection, modes, counts["significance"])
    before = 1 << MODE_WIDTH
    for mode, classes in zip(modes.tolist(), selection.classes, strict=True):
        _count_symbol(counts["modes"][before], mode, MODE_WIDTH)
        _count_symbol(counts["last"][mode], last_unit(classes), LAST_WIDTH)
        before = mode


def _count_symbol(row: Array, symbol: int, width: int) -> None:
    """Add the bits of a symbol to a row of nodes `[2**width, 2]`."""
    node = 1
    for place in reversed(range(width)):
        bit = symbol >> place & 1
        row[node, bit] += 1
        node = 2 * node + bit


def _probabilities(counts: Array, prior: float) -> Array:
    """Turn counts `[..., 2]` into probabilities of a 1; the average of a row stands in for what was seldom seen."""
    rows = counts.sum(axis=-2, keepdims=True) + 0.5
    expected = prior * rows / rows.sum(axis=-1, keepdims=True)
    share = (counts + expected)[..., 1] / (counts + expected).sum(axis=-1)
    return np.clip(np.round(PROBABILITY_ONE * share), 1, PROBABILITY_ONE - 1).astype(np.int64)
