"""Codecs of stages out of YAML files, latents, or other codecs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyres.codec.base import Codec
from polyres.codec.latent import Latent
from polyres.codec.registry import build_codec, is_known, is_stages_file, split_variant
from polyres.codec.staged.codec import StagedCodec
from polyres.codec.staged.config import EMBEDDED_BAND, FILE_SETTINGS, Stages, is_stages, read_stages, with_stages
from polyres.core.errors import ConfigError, WeightsError

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
    """Load the codec that a latent names, with the settings that the latent holds of it.

    A latent may name entries of the catalogue and nothing else: whoever sent it does not choose files to be opened.
    """
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
