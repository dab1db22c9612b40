"""Recipes for `polyres_mel`: its autoencoder of mel spectra first, then its vocoder."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from polyres.data.datasets import StemsConfig
from polyres.models.mel_codec import MelCodecConfig
from polyres.nn.losses import LossConfig
from polyres.training.codec import CriticConfig
from polyres.training.config import SolverConfig
from polyres.training.separation import TrackValidConfig

AUTOENCODER, VOCODER = "polyres_mel", "polyres_mel_vocoder"
TASKS = (AUTOENCODER, VOCODER)


class MelTrainConfig(SolverConfig):
    """A recipe: which part of the codec is trained, on what, and how.

    `polyres_mel` trains the autoencoder: absolute difference of log-mel spectra, high bands counted once more, and the
    divergence of latents. `polyres_mel_vocoder` trains the vocoder behind the autoencoder of `init`. Either writes the
    whole codec. Training data are mixtures: sums of the stems of the data, levelled as whole files are.

    Args:
        task: what is trained.
        model: of the codec; what `init` was trained with takes its place where there is an `init`.
        data_dir: what the roots are relative to.
        data: what is mixed.
        pool_items: mixtures that are read once and used again and again, each time another crop of them.
        crop_samples: length of a crop.
        gain_db: crops are made softer by up to so much.
        scaling_items: mixtures on which the scaling of mel spectra is measured.
        high_weight: of the autoencoder: how much bands above 4 kHz count once more.
        kl_weight: of the autoencoder: divergence per number of the latent.
        loss: of the vocoder: distances between waves.
        mel_weight: of the vocoder: absolute difference of log-mel spectra of the waves.
        magnitude_weight: of the vocoder: absolute difference of the logarithms of the magnitudes it wants.
        decoded_share: of the vocoder: share of the crops that it reads as the autoencoder decodes them.
        critic: of the vocoder: adversarial terms; none where None.
        init: a codec file or run folder to start from.
        valid: on what it is validated.
    """

    task: Literal["polyres_mel", "polyres_mel_vocoder"]
    model: MelCodecConfig = MelCodecConfig()
    data_dir: str | None = None
    data: StemsConfig
    pool_items: int = Field(default=300, ge=1)
    crop_samples: int = Field(default=32768, ge=1)
    gain_db: float = Field(default=12.0, ge=0)
    scaling_items: int = Field(default=60, ge=1)
    high_weight: float = Field(default=0.0, ge=0)
    kl_weight: float = Field(default=1e-3, ge=0)
    loss: LossConfig = LossConfig(terms={"stft": 1.0}, stft_n_fft=(512, 1024, 4096))
    mel_weight: float = Field(default=1.0, ge=0)
    magnitude_weight: float = Field(default=0.5, ge=0)
    decoded_share: float = Field(default=0.25, ge=0, le=1)
    critic: CriticConfig | None = None
    init: str | None = None
    valid: TrackValidConfig = TrackValidConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> MelTrainConfig:
        """Refuse data that the codec cannot take."""
        mel, step = self.model.mel, 4 * self.model.mel.hop_length
        if self.data.sample_rate_hz != mel.sample_rate_hz or self.data.audio_channels != 1:
            raise ValueError(
                f"data has {self.data.audio_channels} channels at {self.data.sample_rate_hz} Hz; the codec takes 1 at "
                f"{mel.sample_rate_hz} Hz"
            )
        if self.crop_samples % step or not step <= self.crop_samples <= self.data.segment_samples:
            raise ValueError(
                f"crop_samples is {self.crop_samples}; a multiple of {step} up to data.segment_samples is needed"
            )
        if self.task == AUTOENCODER and self.critic is not None:
            raise ValueError("critic is for polyres_mel_vocoder; an autoencoder of mel spectra makes no waves")
        return self
