"""What is known of the codecs before any of them is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from polyres.models.audioldm2_parts import LICENCE, REPOSITORIES, has_both_parts
from polyres.models.codec_registry import codec_names, codec_summary
from polyres.models.network import from_hub_cache
from polyres.models.weights import checked_facts, count_parameters, read_about

EMBEDDED_FOLDER = Path(__file__).parent / "embedded"


@dataclass(frozen=True)
class CodecInfo:
    """A codec known by name.

    Args:
        name: as users write it.
        summary: rate, band and channels.
        parameters: number of parameters; 0 where not known.
        licence: of the weights.
        source: where they come from.
        present: whether they are here already.
    """

    name: str
    summary: str
    parameters: int
    licence: str
    source: str
    present: bool


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
