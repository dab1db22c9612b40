"""What all augmentations share: the catalogue, and how stems and amounts are drawn."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from polyres.core.catalogue import Catalogue
from polyres.data.augment_config import AugmentConfig

Augmentation = Callable[[Tensor, AugmentConfig, torch.Generator], Tensor]
AUGMENTATIONS: Catalogue[Tensor] = Catalogue("augmentation")
"""Functions of stems, config and generator that return new stems and leave the given ones as they are."""

_SEEDS = 1 << 31


def draw_uniform(
    shape: tuple[int, ...], bounds: tuple[float, float], like: Tensor, generator: torch.Generator
) -> Tensor:
    """Draw numbers between two bounds, on the device and in the type of `like`."""
    drawn = torch.rand(shape, generator=generator) * (bounds[1] - bounds[0]) + bounds[0]
    return drawn.to(like)


def draw_chosen(stems: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Draw which stems `[B, S]` are changed."""
    return (torch.rand(stems.shape[:2], generator=generator) < probability).to(stems.device)


def change_chosen(
    stems: Tensor, probability: float, generator: torch.Generator, change: Callable[[Tensor, torch.Generator], Tensor]
) -> Tensor:
    """Change the chosen stems one by one, each with a generator of its own, and do nothing for the others.

    What a stem needs at random thus depends neither on how many are changed before it nor on how much those draw.

    Args:
        stems: `[B, S, C, T]`; left as it is.
        probability: of each stem's being changed, 0 to 1.
        generator: chooses the stems and seeds their generators.
        change: maps float32 `[C, T]` on the CPU, and a generator, to the same shape; a silent stem is not handed over.

    Returns:
        `[B, S, C, T]`; `stems` itself where nothing changes.
    """
    chosen = draw_chosen(stems, probability, generator)
    seeds = torch.randint(_SEEDS, stems.shape[:2], generator=generator)
    audible = (stems != 0).flatten(2).any(dim=2)
    picked = (chosen & audible).nonzero().tolist()
    if not picked:
        return stems
    result = stems.clone()
    for item, source in picked:
        own = torch.Generator().manual_seed(int(seeds[item, source]))
        result[item, source] = change(stems[item, source].to("cpu", torch.float32), own).to(stems)
    return result
