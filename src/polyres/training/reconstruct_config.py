"""Recipes for what makes reconstructions better: enhancers, refiners, bandwidth extension, autoencoders."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from polyres.data.datasets import StemsConfig
from polyres.nn.bandwidth import BandwidthConfig
from polyres.nn.refine import ResidualConfig
from polyres.training.config import SolverConfig
from polyres.training.separation import TrackValidConfig

TaskName = Literal["learned_enhancer", "refiner", "bandwidth", "autoencoder"]


class ReconstructConfig(SolverConfig):
    """A recipe: what is trained behind, in or after which codec, on what.

    `learned_enhancer` adds to latents, `refiner` to decoded mel spectra (with `network.informed` it also sees the
    original, which no decoder has), `bandwidth` makes the band above a cutoff, `autoencoder` fine-tunes the codec's
    own autoencoder of mel spectra for reconstruction. Training data are mixtures: sums of the stems of the data.

    Args:
        task: what is trained.
        codec: name or path; not for bandwidth.
        network: of learned_enhancer and refiner; its channels are those of the codec.
        bandwidth: of bandwidth.
        high_weight: how much the bands above 4 kHz count once more.
        perceptual_weight: of autoencoder: distance of features of its own encoder as it was before training.
        kl_weight: of autoencoder: divergence of latents from the standard normal distribution.
        stft_n_fft: of bandwidth: windows of the spectral loss.
        tilt_db_per_octave: of bandwidth: steepest slope above 1 kHz that music is tilted by; 0 leaves it as it is.
        init: trained weights to start from.
    """

    task: TaskName
    codec: str = "audioldm2"
    network: ResidualConfig = ResidualConfig()
    bandwidth: BandwidthConfig = BandwidthConfig()
    high_weight: float = Field(default=1.0, ge=0)
    perceptual_weight: float = Field(default=0.1, ge=0)
    kl_weight: float = Field(default=1e-4, ge=0)
    stft_n_fft: tuple[int, ...] = Field(default=(512, 1024, 2048), min_length=1)
    tilt_db_per_octave: float = Field(default=0.0, ge=0, le=24)
    data_dir: str | None = None
    data: StemsConfig
    init: str | None = None
    valid: TrackValidConfig = TrackValidConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> ReconstructConfig:
        """Refuse data of another rate than what is made of it."""
        if self.task == "bandwidth" and self.data.sample_rate_hz != self.bandwidth.sample_rate_hz:
            raise ValueError(
                f"data.sample_rate_hz is {self.data.sample_rate_hz} but bandwidth.sample_rate_hz is "
                f"{self.bandwidth.sample_rate_hz}; make them equal"
            )
        if self.task != "refiner" and self.network.informed:
            raise ValueError("network.informed is for refiner alone; a latent is enhanced without the original")
        if self.task == "autoencoder" and self.init is not None:
            raise ValueError("an autoencoder starts from the weights of its codec; name them in codec, not in init")
        return self
