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
    write_weights,
)
from polyres.weights.places import weights_file

KIND = "separator"


@dataclass(frozen=True)
class WeightsInfo:
    """What a weight file says about itself."""

    config: SeparatorConfig
    card: dict[str, Any]


def save_separator(
    model: Separator, path: str | Path, card: Mapping[str, Any] | None = None, dtype: Literal["fp16", "fp32"] = "fp16"
) -> Path:
    """Write a separator with its config and card; an older file is replaced only when the new one is complete."""
    about = {"format": FORMAT, "kind": KIND, "config": model.config.to_dict(), "card": dict(card or {})}
    return write_weights(model, path, about, dtype)


def load_separator_weights(path: str | Path) -> Separator:
    """Read a separator written by `save_separator`."""
    source = weights_file(path)
    info = read_info(source)
    tensors = read_tensors(source)
    return build_for(lambda: Separator(info.config), tensors, source).eval()


def read_info(path: str | Path) -> WeightsInfo:
    """Read config and card without reading any tensor."""
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
