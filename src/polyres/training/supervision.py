"""Deep supervision: which resolutions' own estimates can be held against the true stems."""

from __future__ import annotations

from torch import Tensor

from polyres.core.errors import ConfigError
from polyres.models.separator import SeparatorConfig
from polyres.nn.fusion import FusionShape, allowed_table

PARTS_KINDS = ("sum", "unet_notes")
"""Output fusions that do not start as an average of the branches."""


def branch_shares(config: SeparatorConfig) -> Tensor:
    """Say how much each resolution's own estimate counts, where such estimates are whole stems.

    Args:
        config: of the separator.

    Returns:
        `[R, S]`, each column summing to 1: a source's weight is shared equally among the resolutions it may use.

    Raises:
        ConfigError: if a branch gives a part of the stems only, so that it must not equal them.
    """
    kind = config.output.kind
    advice = "set loss.branch_weight to 0"
    if config.wave_branch:
        raise ConfigError(
            f"loss.branch_weight needs branches that give whole stems, but the wave branch adds to them; {advice} or "
            "model.wave_branch to false"
        )
    # Under a mask head `sum` divides by the number of branches.
    if kind in PARTS_KINDS and not (kind == "sum" and config.head == "mask"):
        raise ConfigError(
            f"loss.branch_weight needs branches that give whole stems, but output fusion {kind!r} puts stems together "
            f"from parts; {advice} or choose another model.output.kind"
        )
    shape = FusionShape(config.n_fft, config.sources, config.audio_channels, config.sample_rate_hz)
    allowed = allowed_table(config.output, shape).T.float()
    return allowed / allowed.sum(dim=0, keepdim=True)
