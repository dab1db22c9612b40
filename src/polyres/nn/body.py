"""What lies between the transforms of a separator: kinds of branches and of what joins them, by name.

A body builds one branch per resolution, and what runs once on the fused features. That of HTDemucs is here; others
are in `band_split.py` and `tfc_tdf.py`. All register here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn

from polyres.core.catalogue import Catalogue
from polyres.core.config import Config
from polyres.core.errors import ConfigError
from polyres.dsp.stft import Inverse, frame_count, reference_index
from polyres.nn.branches import Branch, FrequencyBranch, UNetShape

BAND_TABLE = (
    (8, 86.1328125),
    (8, 172.265625),
    (6, 344.53125),
    (6, 689.0625),
    (4, 1378.125),
    (3, 2756.25),
)
"""35 bands up to 22 050 Hz that are whole bins of every n_fft from 512 (at 44.1 kHz)."""


class BodyConfig(Config):
    """Kind of the branches, and sizes that only some kinds have.

    `bands`: of `band_split`: (number of bands, width of each in Hz), lowest first; the last band goes to the top.
    `feed_forward`: of `band_split`: width of the feed-forward part of each block over `channels`; 0 leaves it out.
    """

    kind: str = "unet"  # `unet` (strided convolutions over frequency), `band_split` or `tfc_tdf`
    bands: tuple[tuple[PositiveInt, PositiveFloat], ...] = BAND_TABLE
    frame_hop: PositiveInt = 1024  # of `band_split`: distance of the frames that all resolutions share, in samples
    blocks: PositiveInt = 4  # of `band_split`: blocks of time and band mixing; of `tfc_tdf`: layers per level
    time_mixing: str = "gru"  # of `band_split`: `gru`, `conv` or a kind of attention
    band_mixing: str = "mlp"  # of `band_split`: `mlp` or a kind of attention
    feed_forward: NonNegativeFloat = 2.0
    mask_channels: PositiveInt = 64  # of `band_split`: hidden width per band and source before the masks
    subbands: PositiveInt = 4  # of `tfc_tdf`: parts of the spectrum that become channels
    squeeze: PositiveInt = 8  # of `tfc_tdf`: bins over the hidden width of the dense layer along frequency


@dataclass(frozen=True)
class BodyShape:
    """What a body must know of its model."""

    n_fft: tuple[int, ...]  # window lengths of the branches, R of them
    hops: tuple[int, ...]  # frame distances of the branches in samples
    served: tuple[tuple[int, ...], ...]  # positions of the sources that each resolution may be used for; all by default
    sources: int
    audio_channels: int
    sample_rate_hz: int
    masking: bool  # complex ratio masks on the mixture's spectrogram instead of mapping to the sources' spectrograms
    inverse: Inverse  # inverse STFT, see `polyres.dsp.stft.istft`
    unet: UNetShape
    embedding: tuple[float, float, bool]  # (gain, boost, smooth) of the U-Net's frequency embedding


class Body(ABC):
    """Plan of a body, which is checked when it is made and then builds the parts.

    `shape`: what it must know of its model. Raises ConfigError on sizes that do not go together.
    """

    def __init__(self, config: BodyConfig, shape: BodyShape) -> None:
        self.config, self.shape = config, shape
        self.check()

    @property
    @abstractmethod
    def width(self) -> int:
        """Channels D of the bottleneck features."""

    @abstractmethod
    def check(self) -> None:
        """Refuse sizes that do not go together."""

    @abstractmethod
    def bins(self, index: int) -> int:
        """Cells along frequency of the bottleneck features of a resolution."""

    def edges_hz(self) -> tuple[float, ...]:
        """Edges between the cells along frequency of the shared bottleneck."""
        count = self.bins(self.reference)
        return tuple(self.shape.sample_rate_hz / 2 * cell / count for cell in range(1, count))

    @abstractmethod
    def frames(self, index: int, length_samples: int) -> int:
        """Cells along time of the bottleneck features of a resolution."""

    @abstractmethod
    def branch(self, index: int) -> Branch:
        """Build the branch of a resolution."""

    def mixer(self) -> nn.Module | None:
        """Build what transforms the fused features `[B, D, F, N]`, if there is such a thing."""
        return None

    @property
    def reference(self) -> int:
        """Position of the resolution whose grid carries the shared bottleneck."""
        return reference_index(self.shape.n_fft)

    def grid(self, length_samples: int) -> tuple[int, int]:
        """Cells along frequency and time of the shared bottleneck."""
        return self.bins(self.reference), self.frames(self.reference, length_samples)


BODY: Catalogue[Body] = Catalogue("body")


@BODY.register("unet", summary="strided convolutions over frequency, residual dilated ones over time")
class UNetBody(Body):
    """Branches of Hybrid Demucs, one U-Net per resolution, joined by the bottleneck alone."""

    @property
    def width(self) -> int:
        """Channels D of the bottleneck features."""
        return self.shape.unet.widths()[-1]

    def check(self) -> None:
        """Refuse kernels, norms and window lengths that do not fit the layers."""
        unet = self.shape.unet
        for n_fft in self.shape.n_fft:
            if (n_fft // 2) % unet.stride**unet.depth:
                raise ConfigError(
                    f"n_fft {n_fft} has {n_fft // 2} bins; with {unet.depth} layers of stride {unet.stride} "
                    f"n_fft must be a multiple of {2 * unet.stride**unet.depth}"
                )
        if unet.kernel_size < unet.stride or (unet.kernel_size - unet.stride) % 2:
            raise ConfigError(
                f"kernel_size {unet.kernel_size} must be stride {unet.stride} or more, by an even number of samples"
            )
        widths = [self.shape.sources * self.shape.audio_channels, *unet.widths()]
        for width in widths[unet.norm_starts :] if unet.norm_starts < unet.depth else []:
            if width % unet.norm_groups:
                raise ConfigError(
                    f"norm_groups {unet.norm_groups} does not divide the {width} channels of a layer with norms"
                )

    def bins(self, index: int) -> int:
        """Cells along frequency of the bottleneck features of a resolution."""
        return self.shape.n_fft[index] // 2 // self.shape.unet.stride**self.shape.unet.depth

    def frames(self, index: int, length_samples: int) -> int:
        """Cells along time of the bottleneck features of a resolution."""
        return frame_count(length_samples, self.shape.hops[index])

    def branch(self, index: int) -> Branch:
        shape = self.shape
        return FrequencyBranch(
            shape.n_fft[index],
            shape.hops[index],
            shape.unet,
            shape.sources,
            shape.audio_channels,
            shape.masking,
            shape.inverse,
            shape.embedding,
        )
