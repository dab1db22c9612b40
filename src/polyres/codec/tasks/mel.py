"""Training `polyres_mel`: the autoencoder on mel spectra alone, the vocoder on waves."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from polyres.codec.mel.autoencoder import MelAutoencoder
from polyres.codec.mel.codec import MelCodec, MelVocoder, save_mel_codec
from polyres.codec.registry import build_codec
from polyres.codec.tasks.config import VOCODER, MelTrainConfig
from polyres.codec.tasks.enhance import HIGH_BAND_HZ, MixtureData, MixtureTask, Pool, validated
from polyres.codec.wave.refiner import Critic
from polyres.core.errors import TrainingError, WeightsError
from polyres.dsp.input_level import level_of
from polyres.dsp.mel import linear_magnitude, log_mel, mel_centres_hz
from polyres.metrics.reconstruction.levels import matched
from polyres.metrics.reconstruction.spectra import log_spectral_distance, metric_magnitude, metric_mel
from polyres.nn.losses import WeightedLoss
from polyres.training.loading import Prepare
from polyres.training.task import Forward

_FLOOR = 1e-3  # magnitude below which the logarithm of a spectrum does not count; a full-scale sine has 512


def levelled(mixture: Tensor) -> Tensor:
    """Bring a mixture `[1, T]` to the level of the codec."""
    return level_of(mixture).apply(mixture)


def cropped(batch: Tensor, generator: torch.Generator, length_samples: int, gain_db: float) -> Tensor:
    """Cut mixtures `[B, 1, T]` at random places, and change level and polarity at random."""
    starts = torch.randint(0, batch.shape[-1] - length_samples + 1, (len(batch),), generator=generator)
    crops = torch.stack(
        [one[:, start : start + length_samples] for one, start in zip(batch, starts.tolist(), strict=True)]
    )
    gain = 10 ** (-gain_db / 20 * torch.rand(len(batch), 1, 1, generator=generator))
    return crops * gain * (torch.randint(0, 2, gain.shape, generator=generator) * 2 - 1)


class AutoencoderInTraining(nn.Module):
    """The autoencoder as a model to train."""

    def __init__(self, autoencoder: MelAutoencoder) -> None:
        super().__init__()
        self.part = autoencoder.requires_grad_(True)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Code mel spectra `[B, 1, N, M]`, sampling latents in training; return them decoded, and the divergence."""
        posterior = self.part.encode(mel).latent_dist
        latent = posterior.sample() if self.training else posterior.mode()
        return self.part.decode(latent).sample, posterior.kl().mean() / latent[0].numel()


class VocoderInTraining(nn.Module):
    """The vocoder and its critic, whose parameters one optimiser moves."""

    def __init__(self, vocoder: MelVocoder, critic: Critic | None) -> None:
        super().__init__()
        self.part = vocoder.requires_grad_(True)
        self.critic = critic

    def forward(self, mel: Tensor, original: Tensor | None = None) -> dict[str, Tensor]:
        """Synthesise mel spectra `[B, N, M]`; adds the critic's terms on waves `[B, 1, T]` in training."""
        log_magnitude, phase = self.part.spectrum(mel)
        wave = self.part.wave(torch.polar(self.part.heard(log_magnitude.exp()), phase))[:, None]
        found = {"wave": wave, "log_magnitude": log_magnitude}
        if self.training and self.critic is not None and original is not None:
            found |= self.critic.terms(wave, original)._asdict()
        return found


class MelCodecTask(MixtureTask):
    """Trains one part of a mel codec; the other stays as it is."""

    def __init__(self, config: MelTrainConfig) -> None:
        """Find the data, and measure mel spectra or load the codec to start from."""
        self.config = config
        self.data = MixtureData(config)
        self.source = Pool(self.data.source, config.pool_items, levelled)
        self.codec = self._first_codec().requires_grad_(False)
        self._mel = self.codec.settings.mel
        self._high = mel_centres_hz(self._mel) >= HIGH_BAND_HZ
        self._loss = WeightedLoss(config.loss, 1)

    def _first_codec(self) -> MelCodec:
        """Build the codec, with the weights of `init` or a scaling measured on the data."""
        config = self.config
        if config.init is None:
            codec = MelCodec(config.model, seed=config.seed)
            mels = [
                log_mel(self.source[i], config.model.mel) for i in range(min(config.scaling_items, len(self.source)))
            ]
            codec.autoencoder.scaling.fit(torch.cat(mels, dim=1))
            return codec
        try:
            found = build_codec(config.init)
        except WeightsError as error:
            raise TrainingError(f"init is {config.init!r}: {error}") from error
        if not isinstance(found, MelCodec) or found.settings.mel != config.model.mel:
            raise TrainingError(f"init is {config.init!r}, which is no mel codec with the front end of the recipe")
        return found

    def build_model(self) -> AutoencoderInTraining | VocoderInTraining:
        """Return the part that is trained and, where the recipe has one, a critic."""
        if self.config.task != VOCODER:
            return AutoencoderInTraining(self.codec.autoencoder)
        critic, settings = None, self.config.critic
        if settings is not None:
            critic = Critic(settings.n_fft, 1, settings.channels, self.config.seed)
        return VocoderInTraining(self.codec.vocoder, critic)

    def build_source(self) -> Pool:
        """Return the pool of mixtures."""
        return self.source

    def build_prepare(self) -> Prepare:
        """Return what cuts crops out of a batch."""
        return partial(cropped, length_samples=self.config.crop_samples, gain_db=self.config.gain_db)

    def losses(self, forward: Forward, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare crops `[B, 1, T]` with what the part in training makes of them."""
        return self._vocoder_losses(forward, batch) if self.config.task == VOCODER else self._mel_losses(forward, batch)

    def _mel_losses(self, forward: Forward, wave: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        mel = log_mel(wave, self._mel)
        decoded, divergence = forward(mel)
        apart = (decoded - mel).abs()
        whole = apart.mean()
        high = apart[..., self._high.to(apart.device)].mean() if bool(self._high.any()) else torch.zeros_like(whole)
        total = whole + self.config.high_weight * high + self.config.kl_weight * divergence
        return total, {"log_mel_l1": whole.detach(), "log_mel_l1_high": high.detach(), "kl": divergence.detach()}

    def _vocoder_losses(self, forward: Forward, wave: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        mel = log_mel(wave, self._mel)
        found = forward(self._read(mel), wave)
        total, terms = self._loss.to(wave.device)(found["wave"][:, None], wave[:, None])
        wanted = linear_magnitude(wave[:, 0], self._mel).transpose(1, 2)
        magnitudes = (_log(found["log_magnitude"].exp()) - _log(wanted)).abs().mean()
        mels = (log_mel(found["wave"], self._mel) - mel).abs().mean()
        total = total + config.magnitude_weight * magnitudes + config.mel_weight * mels
        terms = {**terms, "log_magnitude": magnitudes.detach(), "log_mel_l1": mels.detach()}
        if config.critic is not None and "critic" in found:
            total, terms = config.critic.added(total, terms, found)
        return total, terms

    @torch.no_grad()
    def _read(self, mel: Tensor) -> Tensor:
        """Return spectra `[B, N, M]`, the first ones of the batch `[B, 1, N, M]` as the autoencoder decodes them."""
        count = round(self.config.decoded_share * len(mel))
        if count == 0:
            return mel[:, 0]
        autoencoder = self.codec.autoencoder.to(mel.device)
        decoded = autoencoder.decode(autoencoder.encode(mel[:count]).latent_dist.mode()).sample
        return torch.cat([decoded, mel[count:]])[:, 0]

    def validate(self, forward: Forward) -> dict[str, float]:
        """Return mean distances on the validation tracks; the score is the negative of what counts."""
        return validated(self.data.excerpts(), lambda mix: self._validate_one(forward, mix))

    def _validate_one(self, forward: Forward, mix: Tensor) -> dict[str, float]:
        hop = self.codec.hop_samples
        wave = level_of(mix).apply(mix)[..., : min(mix.shape[-1] // hop * hop, self.codec.window_samples)]
        wave = wave.to(next(self.codec.parameters()).device)
        if self.config.task != VOCODER:
            total, terms = self._mel_losses(forward, wave)
            return {"score": -float(total), **{name: float(value) for name, value in terms.items()}}
        mel = log_mel(wave, self._mel)
        scores = self._wave_scores(wave, cast(Tensor, forward(mel[:, 0])["wave"]))
        decoded = self.codec.autoencoder.to(mel.device).decode(self.codec.autoencoder.encode(mel).latent_dist.mode())
        behind = self._wave_scores(wave, forward(decoded.sample[:, 0])["wave"])
        scores |= {f"decoded_{name}": value for name, value in behind.items()}
        return {"score": -sum(scores.values()), **scores}

    def _wave_scores(self, wave: Tensor, spoken: Tensor) -> dict[str, float]:
        """Return log-spectral distance and log-mel difference of waves `[1, 1, T]` at equal level."""
        rate = self.codec.sample_rate_hz
        original = wave[0].double().cpu()
        given = matched(original, spoken[0].double().cpu())
        distance = log_spectral_distance(metric_magnitude(original, rate), metric_magnitude(given, rate))
        mel = metric_mel(rate)
        apart = (log_mel(original, mel) - log_mel(given, mel)).abs().mean()
        return {"lsd": float(distance), "log_mel_l1": float(apart)}

    def export(self, model: nn.Module, path: Path, card: Mapping[str, Any]) -> None:
        """Write the whole codec, which `polyres.load_codec` reads; a critic stays behind."""
        save_mel_codec(self.codec, path, card, dtype="fp32")


def _log(magnitude: Tensor) -> Tensor:
    """Logarithm of magnitudes, flat below the floor."""
    return 0.5 * (magnitude.square() + _FLOOR**2).log()
