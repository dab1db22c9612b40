"""Recipes of the training tasks of codecs, and the export of a fine-tuned autoencoder."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from safetensors.torch import save_file

from polyres.codec.bandwidth import BandwidthConfig
from polyres.codec.mel.codec import MelCodecConfig
from polyres.codec.networks import ResidualConfig
from polyres.codec.wave.refiner import CriticConfig
from polyres.core.errors import OutputError
from polyres.datasets.stems import StemsConfig
from polyres.nn.losses import LossConfig
from polyres.training.config import SolverConfig
from polyres.training.task import TrackValidConfig

AUTOENCODER, VOCODER = "polyres_mel", "polyres_mel_vocoder"
TASKS = (AUTOENCODER, VOCODER)


class MelTrainConfig(SolverConfig):
    """A recipe: which part of the codec is trained, on what, and how."""

    task: Literal["polyres_mel", "polyres_mel_vocoder"]  # what is trained
    model: MelCodecConfig = MelCodecConfig()  # of the codec; that of `init` takes its place
    data_dir: str | None = None  # what the roots are relative to
    data: StemsConfig  # what is mixed
    pool_items: int = Field(default=300, ge=1)  # mixtures that are read once and cropped again and again
    crop_samples: int = Field(default=32768, ge=1)  # length of a crop
    gain_db: float = Field(default=12.0, ge=0)  # crops are made softer by up to so much
    scaling_items: int = Field(default=60, ge=1)  # mixtures on which the scaling of mel spectra is measured
    high_weight: float = Field(default=0.0, ge=0)  # of the autoencoder: how much bands above 4 kHz count once more
    kl_weight: float = Field(default=1e-3, ge=0)  # of the autoencoder: divergence per number of the latent
    loss: LossConfig = LossConfig(terms={"stft": 1.0}, stft_n_fft=(512, 1024, 4096))  # of the vocoder, on waves
    mel_weight: float = Field(default=1.0, ge=0)  # of the vocoder: absolute difference of log-mel spectra of the waves
    magnitude_weight: float = Field(default=0.5, ge=0)  # of the vocoder, on log magnitudes
    decoded_share: float = Field(default=0.25, ge=0, le=1)  # of the vocoder: share of crops read as decoded
    critic: CriticConfig | None = None  # of the vocoder: adversarial terms; none where None
    init: str | None = None  # a codec file or run folder to start from
    valid: TrackValidConfig = TrackValidConfig()  # on what it is validated

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


TaskName = Literal["learned_enhancer", "refiner", "bandwidth", "autoencoder"]


OF_ONE_TASK: dict[str, TaskName] = {
    "perceptual_weight": "autoencoder",
    "kl_weight": "autoencoder",
    "stft_n_fft": "bandwidth",
    "tilt_db_per_octave": "bandwidth",
}
"""Settings that one task alone looks at."""


class ReconstructConfig(SolverConfig):
    """A recipe: what is trained behind, in or after which codec, on what."""

    task: TaskName  # what is trained
    codec: str = "audioldm2"  # name or path; not for bandwidth
    network: ResidualConfig = ResidualConfig()  # of learned_enhancer and refiner; its channels are those of the codec
    bandwidth: BandwidthConfig = BandwidthConfig()  # of bandwidth
    high_weight: float = Field(default=1.0, ge=0)  # how much the bands above 4 kHz count once more
    perceptual_weight: float = Field(default=0.1, ge=0)  # of autoencoder: on features of its initial encoder
    kl_weight: float = Field(default=1e-4, ge=0)  # of autoencoder: on the divergence of latents
    stft_n_fft: tuple[int, ...] = Field(default=(512, 1024, 2048), min_length=1)  # of bandwidth, of the spectral loss
    tilt_db_per_octave: float = Field(default=0.0, ge=0, le=24)  # of bandwidth: steepest tilt above 1 kHz
    data_dir: str | None = None
    data: StemsConfig
    init: str | None = None  # trained weights to start from
    valid: TrackValidConfig = TrackValidConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> ReconstructConfig:
        """Refuse data of another rate than what is made of it."""
        if self.task == "bandwidth" and self.data.sample_rate_hz != self.bandwidth.sample_rate_hz:
            raise ValueError(
                f"data.sample_rate_hz is {self.data.sample_rate_hz} but bandwidth.sample_rate_hz is "
                f"{self.bandwidth.sample_rate_hz}; make them equal"
            )
        for name, task in OF_ONE_TASK.items():
            if self.task != task and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for {task} alone and would change nothing for {self.task}; leave it out")
        if self.task != "refiner" and self.network.informed:
            raise ValueError("network.informed is for refiner alone; a latent is enhanced without the original")
        if self.task == "autoencoder" and self.init is not None:
            raise ValueError("an autoencoder starts from the weights of its codec; name them in codec, not in init")
        return self


FOLDER = "codec"


def write_codec(autoencoder: Any, vocoder: Any, path: Path, card: Mapping[str, Any]) -> Path:
    """Write the weights as a file and the whole codec as the folder `codec` beside it."""
    target, spare = path.parent / FOLDER, path.parent / f".{FOLDER}-{secrets.token_hex(4)}.part"
    unfinished = path.with_name(f".{path.name}.part")
    try:
        autoencoder.save_pretrained(spare / "vae")
        vocoder.save_pretrained(spare / "vocoder")
        (spare / "card.json").write_text(json.dumps(dict(card), indent=1, default=str), encoding="utf-8")
        tensors = {name: value.detach().cpu().contiguous() for name, value in autoencoder.state_dict().items()}
        save_file(tensors, unfinished, {"card": json.dumps(dict(card), default=str)})
        shutil.rmtree(target, ignore_errors=True)
        spare.replace(target)
        unfinished.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}; make room or choose another --out"
        ) from error
    finally:
        shutil.rmtree(spare, ignore_errors=True)
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return target
