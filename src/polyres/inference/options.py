"""What a user may choose about a separation and about the files it writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from polyres.core.catalogue import unknown_name_message
from polyres.core.errors import ConfigError, UnknownNameError
from polyres.data.wavfile import BitDepth
from polyres.data.writer import FORMATS

BIT_DEPTHS = ("16", "24", "float")
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")
DEFAULT_BLOCK_SAMPLES = 1 << 17


@dataclass(frozen=True)
class SeparateOptions:
    """How to separate.

    Args:
        stems: names of the wanted stems; None for all of the model. Only what they need is computed.
        two_stems: name of one stem; the result is that stem and `no_<stem>`, the sum of all others.
        shifts: number of passes over randomly shifted copies that are averaged; 0 for one pass without a shift.
        seed: seed of the shifts; the same seed gives the same samples.
        overlap: share of a segment that the next one covers again, 0 <= overlap < 1.
        batch: segments per model call; None for a value that suits the device.
        mixture_consistent: make the stems sum to the mixture exactly. With `two_stems` the second stem is then the
            mixture minus the first; otherwise every stem gets an equal part of the difference.
        block_samples: samples read at a time, at the rate of the input.
        offset: where a constant part (DC offset) of the mixture goes: "once", into "other" (else "residual", else the
            last source), so that stems sum to the mixture as far as the model's outputs do; or into "every" stem, as
            demucs does.

    Raises:
        ConfigError: when a value is out of range.
    """

    stems: tuple[str, ...] | None = None
    two_stems: str | None = None
    shifts: int = 0
    seed: int = 0
    overlap: float = 0.25
    batch: int | None = None
    mixture_consistent: bool = False
    block_samples: int = DEFAULT_BLOCK_SAMPLES
    offset: Literal["once", "every"] = "once"

    def __post_init__(self) -> None:
        if self.stems is not None and self.two_stems is not None:
            raise ConfigError("stems and two_stems exclude each other; give one of them")
        if isinstance(self.stems, str):
            raise ConfigError(f"stems {self.stems!r} is one text; give a tuple of names, such as ({self.stems!r},)")
        if self.stems is not None and not self.stems:
            raise ConfigError("stems is empty; name at least one stem or leave it out for all")
        if self.shifts < 0:
            raise ConfigError(f"shifts {self.shifts} is not possible; choose 0 (off) or more")
        if self.seed < 0:
            raise ConfigError(f"seed {self.seed} is not possible; choose 0 or more")
        if not 0.0 <= self.overlap < 1.0:
            raise ConfigError(f"overlap {self.overlap} is not possible; choose 0 <= overlap < 1, such as 0.25")
        if self.batch is not None and self.batch < 1:
            raise ConfigError(f"batch {self.batch} is not possible; choose 1 or more segments per model call")
        if self.block_samples < 1:
            raise ConfigError(f"block_samples {self.block_samples} is not possible; choose 1 or more")
        if self.offset not in ("once", "every"):
            raise ConfigError(f"offset {self.offset!r} is unknown; choose 'once' or 'every'")


@dataclass(frozen=True)
class OutputOptions:
    """How to write the stems of a track.

    Args:
        format: one of wav, flac, mp3, m4a, ogg, opus.
        bit_depth: 16, 24 or "float"; float for wav alone, and without meaning for lossy formats.
        overwrite: write again what is already there.

    Raises:
        UnknownNameError: for a format or bit depth that is not known.
        ConfigError: for a bit depth that the format cannot hold.
    """

    format: str = "wav"
    bit_depth: int | str = 24
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UnknownNameError(unknown_name_message("format", self.format, FORMATS))
        if str(self.bit_depth) not in BIT_DEPTHS:
            raise UnknownNameError(unknown_name_message("bit depth", str(self.bit_depth), BIT_DEPTHS))
        if self.bit_depth == "float" and self.format != "wav":
            raise ConfigError(f"bit depth float is not possible in {self.format}; use --format wav or --bit-depth 24")

    @property
    def samples(self) -> BitDepth:
        """The bit depth as the writer takes it."""
        return "float" if self.bit_depth == "float" else 16 if int(self.bit_depth) == 16 else 24

    @property
    def is_float(self) -> bool:
        """Whether samples above full scale survive."""
        return self.format == "wav" and self.bit_depth == "float"

    @property
    def is_lossy(self) -> bool:
        """Whether the bit depth has no meaning."""
        return self.format not in ("wav", "flac")
