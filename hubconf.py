"""Models for `torch.hub.load`: `torch.hub.load("OWNER/polyres", "separator", name="default")`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polyres.separation.load import LoadedSeparator

dependencies = ["av", "numpy", "pydantic", "safetensors", "scipy", "soundfile", "soxr", "torch", "yaml"]

_SOURCE = str(Path(__file__).parent / "src")


def separator(name: str = "default", device: str = "auto", precision: str = "auto") -> LoadedSeparator:
    """Load a separator; see `polyres.load_separator`.

    Args:
        name: a name from `polyres models`, or the path of a weights file or folder.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "fp32" or "bf16".

    Returns:
        The separator; `separate(wave, sample_rate_hz)` gives stem name to `[C, T]`.
    """
    if _SOURCE not in sys.path:
        sys.path.append(_SOURCE)  # an installed polyres comes first
    import polyres

    return polyres.load_separator(name, device, precision)
