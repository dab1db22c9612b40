"""Weight files of separators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from polyres.core.errors import ConfigError, WeightsError
from polyres.separation.model import Separator, SeparatorConfig
from polyres.weights.files import (
    FORMAT,
    METADATA_KEY,
    build_for,
    checked_facts,
    read_about,
    read_tensors,
    weights_file,
    write_weights,
)

KIND = "separator"


@dataclass(frozen=True)
class WeightsInfo:
    """What a weight file says about itself.

    Args:
        config: of the model.
        card: free text and numbers about data, training and scores.
    """

    config: SeparatorConfig
    card: dict[str, Any]


def save_separator(
    model: Separator, path: str | Path, card: Mapping[str, Any] | None = None, dtype: Literal["fp16", "fp32"] = "fp16"
) -> Path:
    """Write a separator with its config and card; an older file is replaced only when the new one is complete.

    Args:
        model: what to save.
        path: the file, or an existing folder that gets `best.safetensors`.
        card: values that JSON can hold: data, recipe, scores.
        dtype: of the tensors on disk.

    Returns:
        The file written.

    Raises:
        WeightsError: when a tensor is not finite or does not fit into the dtype, or the card is not JSON.
        OutputError: when the file cannot be written.
    """
    about = {"format": FORMAT, "kind": KIND, "config": model.config.to_dict(), "card": dict(card or {})}
    return write_weights(model, path, about, dtype)


def load_separator_weights(path: str | Path) -> Separator:
    """Read a separator written by `save_separator`.

    Args:
        path: the file, or a run folder with `best.safetensors`.

    Returns:
        The separator, float32, in evaluation mode.

    Raises:
        WeightsError: when the file is missing, cut, of another kind, or its tensors do not fit its config.
    """
    source = weights_file(path)
    info = read_info(source)
    tensors = read_tensors(source)
    return build_for(lambda: Separator(info.config), tensors, source).eval()


def read_info(path: str | Path) -> WeightsInfo:
    """Read config and card without reading any tensor.

    Args:
        path: the file, or a run folder with `best.safetensors`.

    Returns:
        The config and the card.

    Raises:
        WeightsError: when the file is missing, not readable, or not a separator of this format.
    """
    source = weights_file(path)
    about = read_about(source)
    if not about:
        raise WeightsError(f"{source} has no {METADATA_KEY!r} metadata; give a file written by polyres")
    if about.get("kind") != KIND:
        raise WeightsError(f"{source} holds a model of kind {about.get('kind')!r:.80}; a {KIND!r} is needed")
    values, card = checked_facts(about, source)
    try:
        return WeightsInfo(SeparatorConfig.from_dict(values), card)
    except ConfigError as error:
        raise WeightsError(f"{source}: its config is not usable: {error}") from error


def read_card(path: str | Path) -> dict[str, Any]:
    """Read the card without reading any tensor; see `read_info`."""
    return read_info(path).card
