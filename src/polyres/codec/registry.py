"""Codecs by name or path."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from polyres.codec.audioldm2.parts import LICENCE, REPOSITORIES, has_both_parts
from polyres.codec.base import CODEC_FILES, CODECS, Codec
from polyres.core.catalogue import unknown_name_message
from polyres.core.errors import UnknownNameError, WeightsError
from polyres.weights.files import checked_facts, count_parameters, read_about
from polyres.weights.hub import from_hub_cache
from polyres.weights.places import EMBEDDED_FOLDER, weights_file

DEFAULT = "default"
EMBEDDED = "polyres_wave"
WIDE = "wide"
"""Variant of every codec of 16 kHz: the band above is made up."""
_MODULES = ("polyres.codec.audioldm2.codec", "polyres.codec.wave.codec", "polyres.codec.mel.codec")


def codec_names() -> list[str]:
    """Names of all codecs that can be loaded by name."""
    _register()
    return CODECS.names()


def codec_summary(name: str) -> str:
    """One line on a codec.

    Raises:
        UnknownNameError: for a name that is not known.
    """
    _register()
    return CODECS.summary(name)


def build_codec(
    name_or_path: str | Path = DEFAULT, device: str | torch.device = "cpu", settings: Mapping[str, Any] | None = None
) -> Codec:
    """Load a codec by name, or from a file or folder."""
    name, variant = split_variant(EMBEDDED if str(name_or_path) == DEFAULT else str(name_or_path))
    _register(name)
    if variant == WIDE:
        codec, variant = _widened(build_codec(name)), ""
    elif name in CODECS:
        codec = CODECS.build(name)
    elif name == EMBEDDED:
        raise WeightsError(f"{EMBEDDED} is not part of this installation; install polyres again, or name another codec")
    elif _looks_like_path(name):
        codec = _from_path(name)
    else:
        raise UnknownNameError(unknown_name_message("codec", name, [DEFAULT, *CODECS.names()]))
    if variant:
        codec.use_variant(variant)
    if settings:
        codec = _set(codec, settings)
    return codec.to(device).eval()


def _widened(codec: Codec) -> Codec:
    """Put the bandwidth extension of the package after a codec."""
    from polyres.codec.staged.codec import staged

    return staged(codec, {"bandwidth": "default"}, f":{WIDE}")


def _set(codec: Codec, settings: Mapping[str, Any]) -> Codec:
    """Change settings of a codec; what it has no place for becomes a stage after it."""
    from polyres.codec.staged.codec import staged
    from polyres.codec.staged.config import STAGE_SETTINGS

    after = {key: value for key, value in settings.items() if key in STAGE_SETTINGS and key not in codec.free_settings}
    if own := {key: value for key, value in settings.items() if key not in after}:
        codec.configure(own)
    return staged(codec, after, inner_settings=own) if after else codec


def is_known(name: str) -> bool:
    """Say whether a codec, or NAME:VARIANT, is one of the catalogue, whatever files there are."""
    plain = name.partition(":")[0]
    _register(plain)
    return name == DEFAULT or plain in CODECS


def split_variant(given: str) -> tuple[str, str]:
    """Split NAME:VARIANT or PATH:VARIANT; a path may hold colons of its own."""
    if is_known(given):
        name, _, variant = given.partition(":")
        return name, variant
    name, colon, variant = given.rpartition(":")
    is_both = colon and not os.path.exists(os.path.expanduser(given)) and len(name) > 1 and os.sep not in variant
    return (name, variant) if is_both else (given, "")


def is_stages_file(path: Path) -> bool:
    """Say whether a path is that of a YAML file, which describes a codec of stages."""
    return path.suffix.lower() in (".yaml", ".yml") and os.path.isfile(path)


def _register(name: str | None = None) -> None:
    """Load the modules of the codecs, which enter themselves into the catalogues, until one has entered a name."""
    for module in _MODULES:
        if name not in CODECS and find_spec(module) is not None:
            import_module(module)


def _looks_like_path(name: str) -> bool:
    return (
        os.path.exists(os.path.expanduser(name)) or os.sep in name or name.endswith((".safetensors", ".yaml", ".yml"))
    )


def _from_path(given: str) -> Codec:
    path = Path(os.path.expanduser(given))
    if is_stages_file(path):
        from polyres.codec.staged.codec import read_staged

        return read_staged(path)
    if any(os.path.isdir(path / part) for part in ("vae", "vocoder")):
        return CODEC_FILES.build("audioldm2", path)
    if not os.path.exists(path):
        raise WeightsError(f"there is no codec at {path}; check the path")
    about = read_about(weights_file(path))
    kind = about.get("codec") if about.get("kind") == "codec" else None
    if not isinstance(kind, str) or kind not in CODEC_FILES:
        raise WeightsError(
            f"{path} holds no codec; give a codec file of polyres, or a folder with 'vae' and 'vocoder' of AudioLDM2"
        )
    return CODEC_FILES.build(kind, path)


@dataclass(frozen=True)
class CodecInfo:
    """A codec known by name."""

    name: str  # as users write it
    summary: str  # rate, band and channels
    parameters: int  # number of parameters; 0 where not known
    licence: str  # of the weights
    source: str  # where they come from
    present: bool  # whether they are here already


def known_codecs() -> list[CodecInfo]:
    """List the codecs that can be loaded by name, in the order of `codec_names`."""
    return [_info(name) for name in codec_names()]


def _info(name: str) -> CodecInfo:
    """Say what is known of one."""
    summary = codec_summary(name)
    if name in REPOSITORIES:
        repository = REPOSITORIES[name]
        return CodecInfo(name, summary, 0, LICENCE, f"https://huggingface.co/{repository}", _downloaded(repository))
    path = EMBEDDED_FOLDER / f"{name.replace('_', '-')}.safetensors"
    if path.is_file():
        card = checked_facts(read_about(path), path)[1]
        return CodecInfo(name, summary, count_parameters(path), str(card.get("licence", "MIT")), "polyres", True)
    made = name.endswith("_tiny")
    return CodecInfo(name, summary, 0, "MIT", "made on the fly" if made else "missing in this installation", made)


def _downloaded(repository: str) -> bool:
    """Whether both parts are whole in the cache of the Hub's client."""
    config = from_hub_cache(repository, "vae/config.json")
    return config is not None and has_both_parts(config.parent.parent)
