"""Music separation that listens at many time-frequency resolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polyres.codec.load import load_codec
    from polyres.core.process import tune_cpu
    from polyres.separation.load import load_separator

__all__ = ["__version__", "load_separator", "load_codec", "tune_cpu"]  # noqa: RUF022  (in the order to learn them)

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Load the public names on first use, so that `import polyres` stays free of torch."""
    if name == "load_separator":
        from polyres.separation.load import load_separator

        return load_separator
    if name == "load_codec":
        from polyres.codec.load import load_codec

        return load_codec
    if name == "tune_cpu":
        from polyres.core.process import tune_cpu

        return tune_cpu
    raise AttributeError(f"module 'polyres' has no attribute {name!r}; public names: {', '.join(__all__)}")


def __dir__() -> list[str]:
    """List the lazy names beside the ones already loaded."""
    return sorted({*globals(), *__all__})
