"""Weight files of `polyres_wave`: one safetensors file whose metadata holds the config and a card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import nn

from polyres.core.errors import WeightsError
from polyres.weights.files import FORMAT, checked_facts, read_about, weights_file, write_weights

KIND = "codec"


def save_codec_weights(
    model: nn.Module,
    about: Mapping[str, Any],
    path: str | Path,
    card: Mapping[str, Any] | None = None,
    dtype: Literal["fp16", "fp32"] = "fp16",
) -> Path:
    """Write the weights of a codec, replacing an older file when the new one is complete."""
    facts = {"format": FORMAT, "kind": KIND, **about, "card": dict(card or {})}
    return write_weights(model, path, facts, dtype)


def read_codec_facts(path: str | Path, codec: str) -> dict[str, Any]:
    """Read `config` and `card` of a codec file or run folder without reading any tensor."""
    source = weights_file(path)
    about = read_about(source)
    kind, name = about.get("kind"), about.get("codec")
    if kind != KIND or name != codec:
        raise WeightsError(f"{source} holds {kind!r:.80} {name!r:.80}; a codec {codec!r} is needed")
    config, card = checked_facts(about, source)
    return {"config": config, "card": card}
