"""The one separator class: parallel STFT branches, an optional wave branch, a shared bottleneck, a fused output."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Annotated, Literal, cast, overload

import torch
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)
from torch import Tensor, nn
from torch.nn import functional as F

from polyres.audio.track_files import SOURCES
from polyres.core.catalogue import unknown_name_message
from polyres.core.config import Config
from polyres.core.errors import ConfigError, InputError, UnknownNameError
from polyres.dsp.stft import Inverse, check_sizes, resample_grid
from polyres.nn import band_split, tfc_tdf  # noqa: F401  (they register their parts)
from polyres.nn.attention import ATTENTION
from polyres.nn.body import BODY, Body, BodyConfig, BodyShape
from polyres.nn.branches import Branch, UNetShape, WaveBranch, WaveState
from polyres.nn.fusion import networks  # noqa: F401  (it registers its parts)
from polyres.nn.fusion.base import (
    BOTTLENECK_FUSION,
    OUTPUT_FUSION,
    FusionConfig,
    FusionShape,
    allowed_table,
    check_settings,
)
from polyres.nn.layers import rescale_convolutions, start_at_zero
from polyres.nn.transformer import CrossTransformer, TransformerConfig

MUSIC_SOURCES = SOURCES


class SeparatorConfig(Config):
    """Everything that defines a separator.

    `segment_samples`: length the model is meant for; longer audio is cut into overlapping segments. `pad_to_segment`:
    in evaluation, pad shorter input with zeros up to segment_samples (as official weights expect). `body`: kind of the
    branches; those below `channels`, `growth` and `depth` are sizes of `unet` alone. `head`: `mapping` (decoder
    channels are the spectrogram) or `mask` (complex ratio mask, starts as mixture / S).
    """

    sources: tuple[str, ...] = MUSIC_SOURCES  # names of the stems, in the order of the output
    audio_channels: PositiveInt = 2
    sample_rate_hz: PositiveInt = 44100
    segment_samples: PositiveInt = 343980
    pad_to_segment: bool = False
    n_fft: tuple[int, ...] = (4096,)  # window length of every branch in samples; one branch each
    hop_ratio: Annotated[int, Field(ge=2)] = 4  # hop_length = n_fft / hop_ratio, 2 or 4 (or more)
    hop_length: PositiveInt | None = None  # one fixed hop in samples for all branches, instead of hop_ratio
    body: BodyConfig = BodyConfig()
    channels: PositiveInt = 48  # width of the outermost layer, or of `band_split` throughout
    growth: Annotated[float, Field(ge=1)] = 2  # width factor from layer to layer
    depth: PositiveInt = 4  # layers per U-Net, or levels of `tfc_tdf`
    kernel_size: PositiveInt = 8
    stride: PositiveInt = 4
    context: NonNegativeInt = 1  # decoder convolutions see this many neighbours on each side
    norm_starts: NonNegativeInt = 4
    norm_groups: PositiveInt = 4
    dconv_mode: Literal[0, 1, 2, 3] = 1  # residual dilated convolutions: 0 nowhere, 1 encoder, 2 decoder, 3 both
    dconv_depth: NonNegativeInt = 2
    dconv_compress: PositiveInt = 8
    dconv_init: float = 1e-3
    embedding_gain: float = 0.2  # gain of the frequency embedding; 0 leaves it out
    embedding_boost: PositiveFloat = 10.0  # factor between stored and used embedding
    embedding_smooth: bool = True  # start the embedding as a random walk
    rescale: NonNegativeFloat = 0.1  # reference deviation for the starting weights; 0 leaves them
    wave_branch: bool = True
    head: Literal["mapping", "mask"] = "mapping"
    inverse: Inverse = "exact"  # inverse STFT, `exact` or `demucs`
    bottleneck: FusionConfig = FusionConfig(kind="weights")  # fusion of the branches' bottleneck features
    transformer: TransformerConfig = TransformerConfig()
    output: FusionConfig = FusionConfig(kind="weights")

    @field_validator("sources", "n_fft")
    @classmethod
    def _distinct(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("one or more distinct values")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> SeparatorConfig:
        self._check_transforms()
        check_settings(BOTTLENECK_FUSION, self.bottleneck)
        check_settings(OUTPUT_FUSION, self.output)
        if self.body.kind not in BODY:
            raise UnknownNameError(unknown_name_message("body", self.body.kind, BODY.names()))
        body = self.plan()
        if self.wave_branch and self.body.kind != "unet":
            raise ConfigError(f"body {self.body.kind!r} has no wave branch; set wave_branch to false")
        if self.transformer.kind == "none":
            return self
        if self.transformer.kind not in ATTENTION:
            known = [*ATTENTION.names(), "none"]
            raise UnknownNameError(unknown_name_message("transformer", self.transformer.kind, known))
        width = self.transformer.bottom_channels or body.width
        if width % 4 or width % self.transformer.heads:
            raise ConfigError(
                f"token width {width} must be a multiple of 4 and of transformer.heads {self.transformer.heads}"
            )
        return self

    def _check_transforms(self) -> None:
        for n_fft in self.n_fft:
            try:
                check_sizes(n_fft, self.hop_of(n_fft))
            except InputError as error:
                raise ConfigError(str(error)) from error

    def hop_of(self, n_fft: int) -> int:
        """Hop length in samples of the branch with this window length."""
        return self.hop_length or n_fft // self.hop_ratio

    def plan(self) -> Body:
        """The body: what builds the branches."""
        shape = FusionShape(self.n_fft, self.sources, self.audio_channels, self.sample_rate_hz)
        allowed = allowed_table(self.output, shape)
        about = BodyShape(
            self.n_fft,
            tuple(self.hop_of(n_fft) for n_fft in self.n_fft),
            tuple(tuple(column.nonzero().flatten().tolist()) for column in allowed.T),
            len(self.sources),
            self.audio_channels,
            self.sample_rate_hz,
            self.head == "mask",
            self.inverse,
            self.unet_shape(),
            (self.embedding_gain, self.embedding_boost, self.embedding_smooth),
        )
        return BODY.build(self.body.kind, self.body, about)

    def unet_shape(self) -> UNetShape:
        """The part of the sizes that the branches share."""
        return UNetShape(*(getattr(self, field.name) for field in fields(UNetShape)))


class Separator(nn.Module):
    """Splits a mixture into sources by listening at several time-frequency resolutions at once.

    With one resolution this is HTDemucs.

    `seed`: of the starting weights; the global random state is left as it was.

    Source: Rouard, Massa, Défossez 2023 (one resolution); fusion of several resolutions as docs/ARCHITECTURE.md says.
    """

    def __init__(self, config: SeparatorConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed the accelerators
            self._build()

    def _build(self) -> None:
        config, self.body = self.config, self.config.plan()
        body = self.body
        channels, masking = config.audio_channels, config.head == "mask"
        self.branches = nn.ModuleList(body.branch(index) for index in range(len(config.n_fft)))
        self.wave: WaveBranch | None = None
        if config.wave_branch:
            self.wave = WaveBranch(config.unet_shape(), len(config.sources), channels, masking)
        self.mixer, width = body.mixer(), body.width
        self.transformer: CrossTransformer | None = None
        if config.transformer.kind != "none":
            self.transformer = CrossTransformer(config.transformer, width, config.wave_branch)
        if config.rescale:
            rescale_convolutions(self, config.rescale)
        if masking:
            self._start_as_equal_shares()
        about = FusionShape(config.n_fft, config.sources, width, config.sample_rate_hz, bins=body.bins(body.reference))
        self.bottleneck = BOTTLENECK_FUSION.build(config.bottleneck.kind, config.bottleneck, about)
        about = FusionShape(config.n_fft, config.sources, channels, config.sample_rate_hz, masking)
        self.output = OUTPUT_FUSION.build(config.output.kind, config.output, about)

    def _start_as_equal_shares(self) -> None:
        for branch in (*self._branches(), self.wave):
            if branch is not None:
                start_at_zero(branch.last)

    def _branches(self) -> Sequence[Branch]:
        return cast("Sequence[Branch]", self.branches)

    @property
    def sources(self) -> tuple[str, ...]:
        return self.config.sources

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate of the audio the model expects."""
        return self.config.sample_rate_hz

    @property
    def audio_channels(self) -> int:
        """Number of audio channels the model expects."""
        return self.config.audio_channels

    @property
    def segment_samples(self) -> int:
        """Length in samples the model is meant for."""
        return self.config.segment_samples

    def fusion_weights(self) -> dict[str, Tensor]:
        """Weights `[S, R]` of every stage that has them, by stage name (`bottleneck`, `output`)."""
        stages = {"bottleneck": self.bottleneck.weights(), "output": self.output.weights()}
        return {name: weights.detach() for name, weights in stages.items() if weights is not None}

    @overload
    def forward(
        self, mix: Tensor, active: Collection[int] | None = ..., return_branches: Literal[False] = ...
    ) -> Tensor: ...

    @overload
    def forward(
        self, mix: Tensor, active: Collection[int] | None = ..., *, return_branches: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self, mix: Tensor, active: Collection[int] | None = None, return_branches: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Separate a batch of mixtures.

        `mix`: `[B, C, T]`, T >= 1. `active`: positions in `config.n_fft` of the resolutions to use; None means all,
        empty leaves silence (plus the wave branch where there is one). `return_branches`: also return every
        resolution's own estimate. Returns `[B, S, C, T]`, or that and `[B, R, S, C, T]` (zeros for resolutions switched
        off). Raises InputError on a wrong shape or an unknown resolution.
        """
        self._check(mix, active)
        length = mix.shape[-1]
        if self.config.pad_to_segment and not self.training and length < self.segment_samples:
            mix = F.pad(mix, (0, self.segment_samples - length))
        chosen = sorted(range(len(self.branches)) if active is None else set(active))
        fused, waves = self._separate(mix, chosen)
        fused = fused[..., :length]
        if not return_branches:
            return fused
        return fused, waves[..., :length]

    def _check(self, mix: Tensor, active: Collection[int] | None) -> None:
        if mix.dim() != 3 or mix.shape[1] != self.audio_channels or mix.shape[2] < 1:
            raise InputError(
                f"the mixture has shape {list(mix.shape)}; "
                f"[batch, {self.audio_channels} channels, 1 or more samples] is needed"
            )
        unknown = [index for index in active or () if not 0 <= index < len(self.branches)]
        if unknown:
            raise InputError(f"active names resolution {unknown[0]}; this model has 0 to {len(self.branches) - 1}")

    def _separate(self, mix: Tensor, chosen: list[int]) -> tuple[Tensor, Tensor]:
        branches = self._branches()
        encoded = {index: branches[index].encode(mix) for index in chosen}
        wave: Tensor | None = None
        wave_state: WaveState | None = None
        if self.wave is not None:
            wave, wave_state = self.wave.encode(mix)
        features, wave = self._share({index: h for index, (h, _) in encoded.items()}, wave, mix)
        estimates = {i: branches[i].decode(features[i], encoded[i][1], mix.shape[-1]) for i in chosen}
        fused = silence = mix.new_zeros(mix.shape[0], len(self.sources), *mix.shape[1:])
        waves = self._stack(estimates, silence)
        if chosen:  # a fusion with biases would make sound of nothing
            # Samples keep full precision: half would cost more than all that the fusions learn.
            with torch.autocast(mix.device.type, enabled=False):
                fused = self.output(waves, self._active(chosen, mix))
        if self.wave is not None and wave is not None and wave_state is not None:
            fused = fused + self.wave.decode(wave, wave_state)
        return fused, waves

    def _share(
        self, features: dict[int, Tensor], wave: Tensor | None, mix: Tensor
    ) -> tuple[dict[int, Tensor], Tensor | None]:
        """Fuse the bottlenecks on the reference grid, transform them once, and hand the result back to each branch."""
        size = self.body.grid(mix.shape[-1])
        on_grid = {index: resample_grid(h, size) for index, h in features.items()}
        stacked = self._stack(on_grid, mix.new_zeros(mix.shape[0], self.body.width, *size))
        x = self.bottleneck(stacked, self._active(list(features), mix))
        if self.mixer is not None:
            x = self.mixer(x)
        if self.transformer is not None:
            x, wave = self.transformer(x, wave)
        shared = {
            index: x if h is on_grid[index] else h + resample_grid(x - on_grid[index], (h.shape[-2], h.shape[-1]))
            for index, h in features.items()
        }
        return shared, wave

    def _stack(self, present: dict[int, Tensor], absent: Tensor) -> Tensor:
        return torch.stack([present.get(index, absent) for index in range(len(self.branches))], dim=1)

    def _active(self, chosen: list[int], like: Tensor) -> Tensor:
        active = torch.zeros(len(self.branches), device=like.device)
        active[chosen] = 1
        return active
