"""A codec of stages: coarse codec, enhancer, detail network, post filters and bandwidth extension, in this order."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from polyres.codec.bandwidth import BandwidthExtender
from polyres.codec.base import MEL, Codec, CodecConfig, CodecPicture, Latents, Speaker, check_codec_wave
from polyres.codec.enhance.context import EnhanceContext, MelStatistics
from polyres.codec.enhance.enhancers import ENHANCERS, enhance, enhance_wave
from polyres.codec.latent import Latent
from polyres.codec.networks import ResidualNetwork, load_network
from polyres.codec.post_filter import WINDOW_S, post_filter
from polyres.codec.registry import build_codec, is_known, is_stages_file, split_variant
from polyres.codec.staged.config import (
    EMBEDDED_BAND,
    EMBEDDED_BAND_FILE,
    FILE_SETTINGS,
    STAGE_SETTINGS,
    EnhancerStage,
    Stages,
    is_stages,
    read_stages,
    split_settings,
    with_stages,
)
from polyres.core.errors import ConfigError, WeightsError
from polyres.dsp.mel import MelConfig

AVERAGES = ("mel_mean", "mel_std", "mel_level")
"""Side information of codecs that send averages: of every band `[C, M]` twice, and of all `[C]`."""

logger = logging.getLogger("polyres")


class StagedConfig(CodecConfig):
    """Settings of the coarse codec and of the stages behind it."""

    stages: Stages  # all stages


class StagedCodec(Codec):
    """Codes as another codec does, and does more to what it decodes; latents are those of that codec."""

    config: StagedConfig
    free_settings: ClassVar[tuple[str, ...]] = STAGE_SETTINGS

    def __init__(self, inner: Codec, stages: Stages, name: str) -> None:
        """Load the weights of all stages."""
        super().__init__()
        self.inner, self.name = inner, name
        for field in ("sample_rate_hz", "audio_channels", "hop_samples", "window_samples", "phase_sensitive"):
            setattr(self, field, getattr(inner, field))
        self.level = inner.level  # type: ignore[misc]
        self.joins_features = inner.joins_features  # type: ignore[misc]
        self.code_settings = inner.code_settings  # type: ignore[misc]
        self.target: MelStatistics | None = None
        self._take(stages)

    def _take(self, stages: Stages) -> None:
        """Check stages, load their weights, and go by them from now on."""
        stages = stages.checked()
        _check_stages(stages, self.inner)
        self.network, self.detail = _networks(stages, self.inner.name)
        self.band = _band(stages, self.inner)
        slots = self.inner.config.to_dict()
        self.config = StagedConfig(
            front_end=slots["front_end"],
            autoencoder=slots["autoencoder"],
            synthesis=slots["synthesis"],
            enhancer=stages.enhancer.name if stages.enhancer else slots["enhancer"],
            post_filter="+".join(post.name for post in stages.post_filters) or slots["post_filter"],
            stages=stages,
        )
        self.context_samples = self.inner.context_samples + self._further_context(stages)

    def _further_context(self, stages: Stages) -> int:
        """Samples that stages look at around what the coarse codec needs, in whole steps."""
        samples = 0
        if self.detail is not None:
            samples += self.detail.context_frames * self.picture.mel_config.hop_length
        if stages.post_filters:
            samples += len(stages.post_filters) * round(2 * WINDOW_S * self.sample_rate_hz)
        if stages.enhancer is not None and not has_mel(self.inner):
            samples += self.picture.mel_config.n_fft
        return -(-samples // self.hop_samples) * self.hop_samples

    @property
    def picture(self) -> CodecPicture:
        """The coarse codec as a picture."""
        return CodecPicture(self.inner)

    def extender(self) -> BandwidthExtender | None:
        return self.band

    @property
    def sends_averages(self) -> bool:
        """Whether the enhancer matches averages of the original, which then are sent with latents."""
        stage = self.config.stages.enhancer
        return stage is not None and "target" in ENHANCERS.build(stage.name).needs

    def told(self, side: Mapping[str, Tensor]) -> StagedCodec:
        if not self.sends_averages or (self.target is not None and AVERAGES[0] not in side):
            return self
        if AVERAGES[0] not in side:
            name = cast(EnhancerStage, self.config.stages.enhancer).name
            raise WeightsError(
                f"the latent holds no averages for {name!r} to match; encode the audio again with {self.name}"
            )
        twin = copy(self)
        mean, std, level = (side[key].float().to(self.device) for key in AVERAGES)
        twin.target = MelStatistics(mean, std, level, informed=True)
        return twin

    def mel(self, wave: Tensor) -> Tensor:
        """Log-mel spectrogram `[B, 1, N, M]` of waves `[B, C, T]`, on which averages are taken."""
        return self.picture.mel(wave)[:, None]

    def code_state(self) -> Mapping[str, Tensor]:
        """Weights that latents depend on: those of the coarse codec."""
        return self.inner.code_state()

    def configure(self, settings: Mapping[str, Any]) -> None:
        own, rest = split_settings(settings)
        if rest:
            self.inner = self.inner.reconfigured(rest)
        stages = self.config.stages
        self._take(with_stages(stages.with_values({"settings": {**stages.settings, **rest}}), own))

    def encode(self, wave: Tensor) -> Latents:
        return self.inner.encode(wave)

    def decode(self, latents: Latents, length_samples: int) -> Tensor:
        if self.joins_features:
            return self.from_features(self.to_features(latents), length_samples)
        return self._finished(self.inner.decode(latents, length_samples))

    def enhance(self, latents: Latents) -> Latents:
        """Change latents by the enhancer, where it works on latents."""
        latents, stage = self.inner.enhance(latents), self.config.stages.enhancer
        if stage is None or ENHANCERS.build(stage.name).domain != "latent":
            return latents
        ((name, latent),) = latents.items()
        context = self._context(lambda z: self.inner.to_features({name: z})[MEL][:, 0])
        return {name: enhance(stage.name, latent, stage.strength, context)}

    def to_features(self, latents: Latents) -> Latents:
        """Decode latents to mel spectra, enhanced and refined, where the coarse codec has any."""
        features = self.inner.to_features(latents)
        return self._refined(features) if self.joins_features else features

    def _refined(self, features: Latents) -> Latents:
        stages = self.config.stages
        if MEL not in features:
            return features
        mel = features[MEL][:, 0]
        if stages.enhancer is not None and ENHANCERS.build(stages.enhancer.name).domain == "mel":
            mel = enhance(stages.enhancer.name, mel, stages.enhancer.strength, self._context(None))
        if stages.detail is not None and self.detail is not None:
            mel = mel + stages.detail.strength * self.detail(mel)
        return {**features, MEL: mel[:, None]}

    def speaker(self) -> Speaker:
        speak = self.inner.speaker()
        return lambda features, span: self._finished(speak(features, span))

    def from_features(self, features: Latents, length_samples: int) -> Tensor:
        """Make waves of features, and filter them."""
        return self._finished(self.inner.from_features(features, length_samples))

    def _finished(self, wave: Tensor) -> Tensor:
        """Do what is done to waves."""
        stages = self.config.stages
        if stages.enhancer is not None and not has_mel(self.inner):
            wave = enhance_wave(stages.enhancer.name, wave, stages.enhancer.strength, self._context(None))
        for post in stages.post_filters:
            wave = post_filter(post.name, wave, self.sample_rate_hz, post.strength)
        return wave

    def stages(self, wave: Tensor) -> dict[str, Tensor]:
        check_codec_wave(wave, self)
        latents = self.encode(wave)
        alone = len(latents) == 1
        found = {("latent" if alone else name): value for name, value in latents.items()}
        enhanced = self.enhance(latents)
        for name, value in enhanced.items():
            if value is not latents[name]:
                found["latent_enhanced" if alone else f"{name}_enhanced"] = value
        if self.joins_features:
            coarse = self.inner.to_features(enhanced)
            found |= {f"{name}_coarse": value for name, value in coarse.items()}
            features = self._refined(coarse)
            found |= {f"{name}_decoded": value for name, value in features.items()}
            found["wave_unfiltered"] = self.inner.from_features(features, wave.shape[-1])
        else:
            found["wave_unfiltered"] = self.inner.decode(enhanced, wave.shape[-1])
        found["wave"] = self._finished(found["wave_unfiltered"])
        return found

    def _context(self, decode: Any) -> EnhanceContext:
        return EnhanceContext(
            seed=self.config.stages.seed,
            decode=decode,
            mel=self.picture.mel_config,
            target=self.target,
            network=self.network,
        )


def has_mel(codec: Codec) -> bool:
    """Say whether a codec decodes to mel spectra on the way."""
    return codec.joins_features and isinstance(getattr(codec.config, "mel", None), MelConfig)


def _check_stages(stages: Stages, inner: Codec) -> None:
    """Refuse stages that a codec has no place for."""
    stage = stages.enhancer
    if stage is not None and not has_mel(inner) and ENHANCERS.build(stage.name).domain == "latent":
        usable = [name for name in ENHANCERS.names() if _changes_waves(name)]
        raise ConfigError(
            f"enhancer {stage.name!r} changes latents over time and frequency; those of {inner.name} are no such "
            f"picture; it can be given {' or '.join(usable)}"
        )
    if stages.detail is not None and not has_mel(inner):
        raise ConfigError(
            f"detail refines decoded mel spectra; {inner.name} decodes to none; leave detail out, or name a codec "
            "that does, such as audioldm2"
        )


def _changes_waves(name: str) -> bool:
    entry = ENHANCERS.build(name)
    return entry.domain == "mel" and not {"network", "reference_mel"} & set(entry.needs)


def _networks(stages: Stages, codec: str) -> tuple[nn.Module | None, ResidualNetwork | None]:
    """Load the networks of the enhancer and of the detail."""
    enhancer = detail = None
    if stages.enhancer is not None and stages.enhancer.network is not None:
        kind = "latent_enhancer" if ENHANCERS.build(stages.enhancer.name).domain == "latent" else "mel_refiner"
        enhancer = _network(stages.enhancer.network, kind, codec)
    if stages.detail is not None:
        detail = _network(stages.detail.weights, "mel_refiner", codec)
        if detail.config.informed:
            raise ConfigError(
                f"{stages.detail.weights} sees the original, which no decoder has; train one with "
                "network.informed=false, or try it with 'polyres enhance --network refine_informed=…'"
            )
    return enhancer, detail


def _network(path: str, kind: str, codec: str) -> ResidualNetwork:
    found = load_network(path, (kind,))
    behind = str(found.card.get("codec", codec))
    if Path(behind).name.partition(":")[0] != Path(codec).name.partition(":")[0]:
        logger.warning("%s was trained behind %s, not behind %s", path, behind, codec)
    return cast(ResidualNetwork, found.module)


def _band(stages: Stages, inner: Codec) -> BandwidthExtender | None:
    """Load the bandwidth extension, and refuse one that has nothing to add."""
    if stages.bandwidth is None:
        return None
    embedded = stages.bandwidth == EMBEDDED_BAND
    network = cast(
        BandwidthExtender, load_network(EMBEDDED_BAND_FILE if embedded else stages.bandwidth, ("bandwidth",)).module
    )
    cutoff_hz, rate_hz = network.config.cutoff_hz, network.config.sample_rate_hz
    if inner.sample_rate_hz >= rate_hz or cutoff_hz > inner.sample_rate_hz / 2:
        raise ConfigError(
            f"bandwidth: {inner.name} gives {inner.sample_rate_hz / 2:g} Hz of band, but these weights go from "
            f"{cutoff_hz:g} to {rate_hz / 2:g} Hz; leave bandwidth out, or train one for that codec"
        )
    return network


MOST_FILES = 16
"""Most files of stages that name each other."""


def staged(
    inner: Codec, settings: Mapping[str, Any], suffix: str = "", inner_settings: Mapping[str, Any] | None = None
) -> StagedCodec:
    """Return a codec with the given stages on the same weights; stages that it has already are changed."""
    if isinstance(inner, StagedCodec):
        return StagedCodec(inner.inner, with_stages(inner.config.stages, settings), inner.name + suffix)
    first = Stages(codec=inner.name, settings=dict(inner_settings or {})).located(Path.cwd())
    return StagedCodec(inner, with_stages(first, settings), inner.name + suffix)


def read_staged(path: Path) -> StagedCodec:
    """Read a codec of stages from a YAML file; its name is the path."""
    _refuse_circles(path)
    return build_staged(read_stages(path), str(path))


def _refuse_circles(path: Path) -> None:
    """Refuse a file whose codec is, or leads back to, itself."""
    way: list[Path] = []
    while is_stages_file(path):
        way.append(path.resolve())
        if way[-1] in way[:-1] or len(way) > MOST_FILES:
            named = " -> ".join(file.name for file in way)
            what = "in a circle" if way[-1] in way[:-1] else f"of more than {MOST_FILES}"
            raise ConfigError(f"{path}: codecs {what} ({named}); name a codec of the catalogue or a weight file in one")
        path = Path(os.path.expanduser(split_variant(read_stages(path).codec)[0]))


def build_staged(stages: Stages, name: str) -> StagedCodec:
    """Load the coarse codec and put all stages behind it."""
    inner = build_codec(stages.codec, "cpu", stages.settings)
    return StagedCodec(inner, stages, name)


def codec_of_latent(latent: Latent) -> Codec:
    """Load the codec that a latent names, with the settings that the latent holds of it."""
    try:
        if is_stages(latent.config):
            stages = Stages.from_dict(latent.config["stages"])
            _refuse_files(latent, stages)
            return build_staged(stages, latent.codec)
        _refuse_files(latent, Stages(codec=latent.codec))
        codec = build_codec(latent.codec)
        given, own = latent.config, codec.config.to_dict()
        settings = {key: given[key] for key in codec.free_settings if key in given and given[key] != own.get(key)}
        _refuse_files(latent, Stages(codec=latent.codec, settings=settings))
        return build_codec(latent.codec, settings=settings)
    except ConfigError as error:
        raise latent.damaged(f"its config: {error}") from error


def _refuse_files(latent: Latent, stages: Stages) -> None:
    named = [] if is_known(stages.codec) else [stages.codec]
    named += [*stages.weight_files, *(str(stages.settings[key]) for key in FILE_SETTINGS if stages.settings.get(key))]
    outside = [name for name in named if name != EMBEDDED_BAND]
    if outside:
        raise WeightsError(
            f"{latent.where} was coded with {outside[0]!r:.200}, which is no codec of the catalogue, and a latent "
            "opens no files; name the codec's file, folder or YAML with --codec"
        )
