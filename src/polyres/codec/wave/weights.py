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
    """Write the weights of a codec; an older file is replaced only when the new one is complete.

    Args:
        model: what to save.
        about: `codec`, the name of its kind, and `config`, as plain values.
        path: the file, or an existing folder that gets `best.safetensors`.
        card: values that JSON can hold: data, recipe, scores.
        dtype: of the tensors on disk.

    Returns:
        The file written.

    Raises:
        WeightsError: when a tensor is not finite, or the card is not JSON.
        OutputError: when the file cannot be written.
    """
    facts = {"format": FORMAT, "kind": KIND, **about, "card": dict(card or {})}
    return write_weights(model, path, facts, dtype)


def read_codec_facts(path: str | Path, codec: str) -> dict[str, Any]:
    """Read config and card of a codec file without reading any tensor.

    Args:
        path: the file, or a run folder with `best.safetensors`.
        codec: the kind it must be of.

    Returns:
        `config` and `card`, plain values.

    Raises:
        WeightsError: when the file is missing, cut, of another kind or format.
    """
    source = weights_file(path)
    about = read_about(source)
    kind, name = about.get("kind"), about.get("codec")
    if kind != KIND or name != codec:
        raise WeightsError(f"{source} holds {kind!r:.80} {name!r:.80}; a codec {codec!r} is needed")
    config, card = checked_facts(about, source)
    return {"config": config, "card": card}
