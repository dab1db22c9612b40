"""Weight files of codecs and of the networks around them: enhancers, refiners, bandwidth extension."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch import nn

from polyres.codec.bandwidth import BandwidthConfig, BandwidthExtender
from polyres.codec.enhance.residual import ResidualConfig, ResidualNetwork
from polyres.core.config import Config
from polyres.core.errors import ConfigError, WeightsError
from polyres.weights.files import (
    FORMAT,
    build_for,
    checked_facts,
    read_about,
    read_tensors,
    weights_file,
    write_weights,
)


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
    """Write a network with its config and card; an older file is replaced only when the new one is complete.

    Args:
        kind: of `KINDS`.
        module: the network.
        path: the file, or an existing folder that gets `best.safetensors`.
        card: values that JSON can hold.
        dtype: of the tensors on disk.

    Returns:
        The file written.

    Raises:
        WeightsError: when a tensor is not finite, or the card is not JSON.
        OutputError: when the file cannot be written.
    """
    about = {"format": FORMAT, "kind": kind, "config": module.config.to_dict(), "card": dict(card or {})}
    return write_weights(module, path, about, dtype)


def load_network(path: str | Path, kinds: tuple[str, ...] = tuple(KINDS)) -> Network:
    """Read a network written by `save_network`.

    Args:
        path: the file, or a run folder with `best.safetensors`.
        kinds: what is wanted.

    Returns:
        The network.

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
