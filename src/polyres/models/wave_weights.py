"""Weight files of `polyres_wave`: one safetensors file whose metadata holds the config and a card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import nn

from polyres.core.errors import WeightsError
from polyres.models.weights import METADATA_KEY, one_line, read_metadata, weights_file, write_weights

FORMAT = 1
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
    try:
        about = json.loads(read_metadata(source).get(METADATA_KEY, "{}"))
        found, kind, name = (about.get(key) for key in ("format", "kind", "codec"))
    except (ValueError, AttributeError) as error:
        raise WeightsError(f"{source}: its metadata is damaged ({one_line(error)}); get the file again") from error
    if kind != KIND or name != codec:
        raise WeightsError(f"{source} holds {kind!r} {name!r}; a codec {codec!r} is needed")
    if found != FORMAT:
        raise WeightsError(f"{source} has format {found!r}; this version reads format {FORMAT}; update polyres")
    if not isinstance(about.get("config"), dict) or not isinstance(about.get("card"), dict):
        raise WeightsError(f"{source}: its metadata lacks the config or the card; get the file again")
    return {"config": about["config"], "card": about["card"]}
