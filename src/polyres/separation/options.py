"""Options of a separation, and the stems that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from polyres.audio.sources import DEFAULT_BLOCK_SAMPLES, Block
from polyres.core.catalogue import unknown_name_message
from polyres.core.errors import ConfigError, UnknownNameError
from polyres.dsp.levels import spread_residual


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


Consistency = Literal["none", "spread", "difference"]


@dataclass(frozen=True)
class StemPlan:
    """The way from the sources of a model to the wanted stems.

    Args:
        names: wanted stems, in the order of the result.
        computed: indices of the model's sources that have to be computed, ascending.
        groups: per wanted stem the positions in `computed` that are summed; unused for the last of a "difference".
        consistency: "none", "spread" (residual in equal parts to all computed) or "difference" (last = mix - first).
    """

    names: tuple[str, ...]
    computed: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    consistency: Consistency = "none"

    @property
    def needs_mix(self) -> bool:
        """Whether `apply` looks at the mixture."""
        return self.consistency != "none"

    def apply(self, estimates: Block, mix: Block | None) -> Block:
        """Make the wanted stems.

        Args:
            estimates: `[K, C, T]`, one entry per computed source.
            mix: `[C, T]`; needed where `needs_mix` is true.

        Returns:
            `[len(names), C, T]`.
        """
        if mix is not None and self.consistency == "difference":
            return np.stack([estimates[0], mix - estimates[0]])
        if mix is not None and self.consistency == "spread":
            estimates = spread_residual(estimates, mix)
        return np.stack([estimates[list(group)].sum(axis=0) for group in self.groups])


def plan_stems(sources: Sequence[str], options: SeparateOptions) -> StemPlan:
    """Decide what has to be computed for the wanted stems, and nothing more.

    Args:
        sources: source names of the model.
        options: what the user asked for.

    Returns:
        The plan.

    Raises:
        UnknownNameError: for a stem the model does not have; the message suggests the nearest.
        ConfigError: for `two_stems` with a model of one source, which has no others to sum.
    """
    everything = tuple(range(len(sources)))
    wanted = options.stems if options.two_stems is None else (options.two_stems,)
    for name in wanted or ():
        if name not in sources:
            raise UnknownNameError(unknown_name_message("stem", name, sources))
    if options.two_stems is not None:
        return _two_stems(sources, options.two_stems, options.mixture_consistent)
    names = tuple(dict.fromkeys(wanted)) if wanted is not None else tuple(sources)
    picked = [list(sources).index(name) for name in names]
    computed = everything if options.mixture_consistent else tuple(sorted(picked))
    groups = tuple((computed.index(index),) for index in picked)
    return StemPlan(names, computed, groups, "spread" if options.mixture_consistent else "none")


def _two_stems(sources: Sequence[str], name: str, mixture_consistent: bool) -> StemPlan:
    index = list(sources).index(name)
    names = (name, f"no_{name}")
    if mixture_consistent:
        return StemPlan(names, (index,), ((0,), ()), "difference")
    others = tuple(i for i in range(len(sources)) if i != index)
    if not others:
        raise ConfigError(
            f"two_stems {name!r}: the model has no other stem to sum; add --mixture-consistent for mixture minus stem"
        )
    return StemPlan(names, tuple(range(len(sources))), ((index,), others))
