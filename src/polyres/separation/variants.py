"""The named separators of the family, rows of one table, and models by anything that names one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyres.core.catalogue import unknown_name_message
from polyres.core.config import Config
from polyres.core.errors import ConfigError, UnknownNameError
from polyres.core.yaml_files import merge, read_yaml
from polyres.nn.body import BodyConfig
from polyres.nn.fusion.base import FusionConfig
from polyres.nn.transformer import TransformerConfig
from polyres.separation.bag import Bag
from polyres.separation.labels import DEFAULT, EMBEDDED
from polyres.separation.model import MUSIC_SOURCES, Separator, SeparatorConfig
from polyres.separation.registry import SUFFIXES, load_model
from polyres.training.run_folder import CONFIG_FILE
from polyres.weights.hub import OFFICIAL, REFUSED
from polyres.weights.places import RUN_FILE

THREE = (2048, 4096, 8192)
FIVE = (1024, 2048, 4096, 8192, 16384)
SEVEN = (512, 1024, 2048, 4096, 8192, 16384, 32768)


def _row(
    n_fft: tuple[int, ...],
    wave_branch: bool,
    transformer: str,
    output: str,
    bottleneck: str = "weights",
    hop_ratio: int = 4,
    hop_length: int | None = None,
) -> SeparatorConfig:
    return SeparatorConfig(
        n_fft=n_fft,
        hop_ratio=hop_ratio,
        hop_length=hop_length,
        channels=24,
        wave_branch=wave_branch,
        bottleneck=FusionConfig(kind=bottleneck),
        transformer=TransformerConfig(kind=transformer),
        output=FusionConfig(kind=output),
    )


def _masked(body: BodyConfig, channels: int, bottleneck: str) -> SeparatorConfig:
    """Two resolutions with masks, at a size for a CPU."""
    return SeparatorConfig(
        n_fft=(2048, 4096),
        hop_ratio=2,
        body=body,
        channels=channels,
        wave_branch=False,
        head="mask",
        bottleneck=FusionConfig(kind=bottleneck),
        transformer=TransformerConfig(kind="none"),
        output=FusionConfig(kind="source_weights"),
    )


VARIANTS: dict[str, SeparatorConfig] = {
    "htdemucs_48": SeparatorConfig(),
    "htdemucs_24": SeparatorConfig(channels=24),
    "n": _row(THREE, True, "linear", "conv"),
    "n5": _row(FIVE, True, "linear", "conv"),
    "nf": _row(FIVE, False, "none", "conv"),
    "w5": _row(FIVE, False, "linear", "weights"),
    "nn": _row(THREE, True, "linear", "source_weights"),
    "2nn": _row(SEVEN, True, "linear", "source_weights", hop_ratio=2),
    "dn": _row(FIVE, True, "linear", "unet"),
    "dnf": _row(FIVE, False, "none", "unet"),
    "mrx": _row((1024, 2048, 8192), False, "none", "sum", "mean", hop_length=256),
    "band_split": _masked(BodyConfig(kind="band_split", blocks=5), 64, "band_weights"),
    "tfc_tdf": _masked(BodyConfig(kind="tfc_tdf", blocks=1), 18, "weights"),
}


def variant(name: str) -> SeparatorConfig:
    """Config of a named variant. `name`: a key of `VARIANTS`. Raises UnknownNameError naming the nearest right name."""
    if name not in VARIANTS:
        raise UnknownNameError(unknown_name_message("variant", name, VARIANTS))
    return VARIANTS[name]


RELEASED = SeparatorConfig(
    dconv_mode=3, inverse="demucs", pad_to_segment=True, transformer=TransformerConfig(bottom_channels=512)
)
RELEASED_6S = SeparatorConfig(
    sources=(*MUSIC_SOURCES, "guitar", "piano"), dconv_mode=3, inverse="demucs", pad_to_segment=True
)
ARCHITECTURES: Mapping[str, SeparatorConfig] = {"released": RELEASED, "released_6s": RELEASED_6S, **VARIANTS}
"""Architectures that need no weights: those of the released HTDemucs weights, and the rows of the table of variants."""

ALL = "all"
"""Stands for every architecture where several models are named."""

YAML_SUFFIXES = (".yaml", ".yml")


def known_subjects() -> tuple[str, ...]:
    """Return the names that `load_subject` takes besides paths."""
    return (*ARCHITECTURES, DEFAULT, EMBEDDED, *OFFICIAL)


def subjects_named(names: Sequence[str]) -> list[str]:
    """Return the models that are named; `all` stands for every architecture.

    `names`: see `load_subject`. Raises UnknownNameError naming the nearest right name.
    """
    named = [one for name in names for one in (ARCHITECTURES if name == ALL else (name,))]
    for name in named:
        check_subject(name)
    return named


def check_subject(name: str) -> None:
    """Refuse what names no model, before any work is done."""
    if name in known_subjects() or name in REFUSED or Path(name).expanduser().exists():
        return
    if "/" not in name and Path(name).suffix not in (*SUFFIXES, *YAML_SUFFIXES):
        raise UnknownNameError(unknown_name_message("model", name, known_subjects()))
    raise UnknownNameError(f"there is no file or folder {name}; check the path, or name one of: {', '.join(VARIANTS)}")


def load_subject(name: str) -> Separator | Bag:
    """Build or load a model; without weights of its own it starts at random."""
    check_subject(name)
    if name in ARCHITECTURES:
        return Separator(ARCHITECTURES[name]).eval()
    path = Path(name).expanduser()
    if path.is_dir() and (path / CONFIG_FILE).exists() and not (path / RUN_FILE).exists():
        return Separator(config_from_yaml(path / CONFIG_FILE)).eval()
    if path.suffix in YAML_SUFFIXES and path.is_file() and "models" not in read_yaml(path):
        return Separator(config_from_yaml(path)).eval()
    return load_model(name)


def config_from_yaml(path: Path) -> SeparatorConfig:
    """Read the model of a recipe, of a run, or a model's own config; how it is trained is not looked at.

    Raises ConfigError when the file cannot be read or names no model.
    """
    values = read_yaml(path)
    try:
        return _model_of(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _model_of(values: Mapping[str, Any]) -> SeparatorConfig:
    if not {"variant", "model", "data"} & set(values):
        return SeparatorConfig.from_dict(values)
    base: Config = SeparatorConfig() if values.get("variant") is None else variant(str(values["variant"]))
    model = values.get("model") or {}
    if not isinstance(model, Mapping):
        raise ConfigError(f"model is {model!r}; a mapping of names to values is needed")
    return SeparatorConfig.from_dict(merge(base.to_dict(), model))
