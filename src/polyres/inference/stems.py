"""Which stems to compute, and how the wanted ones follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from polyres.core.catalogue import unknown_name_message
from polyres.core.errors import ConfigError, UnknownNameError
from polyres.inference.options import SeparateOptions
from polyres.ops.levels import spread_residual

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

    def apply(self, estimates: Tensor, mix: Tensor | None) -> Tensor:
        """Make the wanted stems.

        Args:
            estimates: `[K, C, T]`, one entry per computed source.
            mix: `[C, T]`; needed where `needs_mix` is true.

        Returns:
            `[len(names), C, T]`.
        """
        if mix is not None and self.consistency == "difference":
            return torch.stack([estimates[0], mix - estimates[0]])
        if mix is not None and self.consistency == "spread":
            estimates = spread_residual(estimates, mix)
        return torch.stack([estimates[list(group)].sum(dim=0) for group in self.groups])


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
