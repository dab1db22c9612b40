"""The named separators of the family: rows of one table."""

from __future__ import annotations

from polyres.core.catalogue import unknown_name_message
from polyres.core.errors import UnknownNameError
from polyres.nn.body import BodyConfig
from polyres.nn.fusion.base import FusionConfig
from polyres.nn.transformer import TransformerConfig
from polyres.separation.model import SeparatorConfig

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
