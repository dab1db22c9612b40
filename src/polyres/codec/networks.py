"""Networks around codecs (latent enhancers, mel refiners), and weight files of these and of codecs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from polyres.codec.bandwidth import BandwidthConfig, BandwidthExtender
from polyres.core.config import Config
from polyres.core.errors import ConfigError, InputError, WeightsError
from polyres.weights.files import FORMAT, build_for, checked_facts, read_about, read_tensors, write_weights
from polyres.weights.places import weights_file

_KERNEL = 3


class ResidualConfig(Config):
    """Size of a residual network."""

    channels: int = Field(default=1, ge=1)  # of the picture: those of the latent, or 1 for mel spectra
    width: int = Field(default=32, ge=1)  # channels inside
    depth: int = Field(default=6, ge=1, le=10_000)  # residual blocks
    dilations: tuple[int, ...] = Field(default=(1, 2, 4), min_length=1)  # over time, by block; repeated as needed
    informed: bool = False  # whether the network also sees the original picture, which no decoder has


class _Block(nn.Module):
    """Two convolutions over time and frequency, added to what comes in."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, _KERNEL, padding=(dilation, 1), dilation=(dilation, 1))
        self.second = nn.Conv2d(width, width, 1)
        self.act = nn.GELU()

    def forward(self, value: Tensor) -> Tensor:
        return value + self.second(self.act(self.first(self.act(value))))


class ResidualNetwork(nn.Module):
    """Predicts what to add to latents or mel spectra; zero before training.

    Without norms over time, so that what it says of a frame does not depend on the length of the signal; a channel
    tells it where on the frequency axis it is.
    """

    def __init__(self, config: ResidualConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        seen = config.channels * (2 if config.informed else 1) + 1
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # not those of accelerators
            self.first = nn.Conv2d(seen, config.width, _KERNEL, padding=1)
            dilations = (config.dilations[index % len(config.dilations)] for index in range(config.depth))
            self.blocks = nn.Sequential(*(_Block(config.width, dilation) for dilation in dilations))
            self.last = nn.Conv2d(config.width, config.channels, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    @property
    def context_frames(self) -> int:
        """How many frames on each side a frame of the result depends on."""
        dilations = self.config.dilations
        return 1 + sum(dilations[index % len(dilations)] for index in range(self.config.depth))

    def forward(self, coarse: Tensor, original: Tensor | None = None) -> Tensor:
        """Predict what to add to latents `[B, D, T, F]` or log-mel spectra `[B, N, M]`; informed networks see the
        original.
        """
        if (original is not None) != self.config.informed:
            wanted = "needs the original" if self.config.informed else "is blind and must not see the original"
            raise InputError(f"this network {wanted}; it was trained so (informed: {self.config.informed})")
        flat = coarse.ndim == 3
        picture = coarse[:, None] if flat else coarse
        if picture.ndim != 4 or picture.shape[1] != self.config.channels:
            raise InputError(
                f"a picture of shape {list(coarse.shape)} does not fit a network for {self.config.channels} channels"
            )
        seen = [picture]
        if original is not None:
            seen.append((original[:, None] if flat else original) - picture)
        place = torch.linspace(-1, 1, picture.shape[-1], device=picture.device, dtype=picture.dtype)
        seen.append(place.expand(len(picture), 1, *picture.shape[-2:]))
        added = self.last(self.blocks(self.first(torch.cat(seen, dim=1))))
        return added[:, 0] if flat else added


@dataclass(frozen=True)
class _Kind:
    """How a kind of network is built."""

    config: type[Config]
    network: type[nn.Module]


KINDS: dict[str, _Kind] = {
    "latent_enhancer": _Kind(ResidualConfig, ResidualNetwork),
    "mel_refiner": _Kind(ResidualConfig, ResidualNetwork),
    "bandwidth": _Kind(BandwidthConfig, BandwidthExtender),
}
"""What the weight file of a network may hold."""
CODEC_KIND = "codec"
CodecModule = TypeVar("CodecModule", bound=nn.Module)


@dataclass(frozen=True)
class Network:
    """A network and what its file says of it."""

    kind: str  # of `KINDS`
    module: nn.Module  # the network, float32, in evaluation mode
    card: dict[str, Any]  # data, training, scores; the codec it was trained behind under `codec`


def build_network(kind: str, config: Mapping[str, Any], seed: int = 0) -> nn.Module:
    """Build a network with its first weights."""
    if kind not in KINDS:
        raise ConfigError(f"unknown kind of network {kind!r}; known: {', '.join(KINDS)}")
    return KINDS[kind].network(KINDS[kind].config.from_dict(dict(config)), seed)


def save_network(
    kind: str,
    module: nn.Module,
    path: str | Path,
    card: Mapping[str, Any] | None = None,
    dtype: Literal["fp16", "fp32"] = "fp32",
) -> Path:
    """Write a network with its config and card; an older file is replaced only when the new one is complete."""
    about = {"format": FORMAT, "kind": kind, "config": module.config.to_dict(), "card": dict(card or {})}
    return write_weights(module, path, about, dtype)


def load_network(path: str | Path, kinds: tuple[str, ...] = tuple(KINDS)) -> Network:
    """Read a network written by `save_network`.

    Args:
        path: the file, or a run folder with `best.safetensors`.

    Raises:
        WeightsError: when the file is missing, damaged, of another kind, or its tensors do not fit its config.
    """
    source = weights_file(path)
    about = read_about(source)
    kind = about.get("kind")
    if kind not in kinds:
        raise WeightsError(
            f"{source} holds {kind or 'something else'!s:.80}, not a network of kind {' or '.join(kinds)}"
        )
    config, card = checked_facts(about, source)
    module = build_for(lambda: build_network(str(kind), config), read_tensors(source), source)
    return Network(str(kind), module.eval(), card)


def save_codec_weights(
    model: nn.Module,
    codec: str,
    path: str | Path,
    card: Mapping[str, Any] | None = None,
    dtype: Literal["fp16", "fp32"] = "fp16",
) -> Path:
    """Write the weights of a codec, replacing an older file when the new one is complete."""
    facts = {
        "format": FORMAT,
        "kind": CODEC_KIND,
        "codec": codec,
        "config": model.config.to_dict(),
        "card": dict(card or {}),
    }
    return write_weights(model, path, facts, dtype)


def read_codec_facts(path: str | Path, codec: str) -> dict[str, Any]:
    """Read `config` and `card` of a codec file or run folder without reading any tensor."""
    source = weights_file(path)
    about = read_about(source)
    kind, name = about.get("kind"), about.get("codec")
    if kind != CODEC_KIND or name != codec:
        raise WeightsError(f"{source} holds {kind!r:.80} {name!r:.80}; a codec {codec!r} is needed")
    config, card = checked_facts(about, source)
    return {"config": config, "card": card}


def load_codec_weights(path: str | Path, codec: str, build: Callable[[dict[str, Any]], CodecModule]) -> CodecModule:
    """Read a codec written by `save_codec_weights`, built from its config, for evaluation."""
    source = weights_file(path)
    config = read_codec_facts(source, codec)["config"]
    return build_for(lambda: build(config), read_tensors(source), source).eval()
