"""Augmentations that move what is there: shifts, crops, and exchange between items."""

from __future__ import annotations

import torch
from torch import Tensor

from polyres.core.errors import InputError
from polyres.data.augment_base import AUGMENTATIONS, draw_chosen
from polyres.data.augment_config import AugmentConfig


@AUGMENTATIONS.register("remix", "exchange stems between the items of a batch")
def remix(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Permute each chosen source within every group of items, independently of the other sources and groups."""
    batch, sources = stems.shape[:2]
    groups = remix_groups(batch, config.remix.group_size)
    columns = []
    chosen = torch.rand(sources, generator=generator) < config.remix.probability
    for source in range(sources):
        order = torch.cat([group[torch.randperm(len(group), generator=generator)] for group in groups])
        columns.append(order if chosen[source] else torch.arange(batch))
    order = torch.stack(columns, dim=1).to(stems.device)
    return stems[order, torch.arange(sources, device=stems.device)]


def remix_groups(batch: int, group_size: int | None) -> tuple[Tensor, ...]:
    """Cut the items of a batch into runs that exchange stems.

    Args:
        batch: items, 1 or more.
        group_size: items that a group has at least, if the batch has as many; None for one group.

    Returns:
        Indices of every group; floor(batch / group_size) groups, at least one, of sizes that differ by one at most.
    """
    return torch.tensor_split(torch.arange(batch), max(1, batch // (group_size or batch)))


@AUGMENTATIONS.register("shift", "move each stem a little in time")
def shift(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Move each chosen stem later or earlier; zeros move in and nothing wraps around."""
    length = stems.shape[-1]
    limit = min(config.shift.max_samples, length)
    offsets = torch.randint(-limit, limit + 1, stems.shape[:2], generator=generator)
    chosen = draw_chosen(stems, config.shift.probability, generator)
    moved = stems.clone()
    for item, source in chosen.nonzero().tolist():
        offset = int(offsets[item, source])
        kept = length - abs(offset)
        moved[item, source] = 0.0
        start_to, start_from = max(offset, 0), max(-offset, 0)
        moved[item, source, :, start_to : start_to + kept] = stems[item, source, :, start_from : start_from + kept]
    return moved


@AUGMENTATIONS.register("crop", "cut a shorter segment, each stem at its own place")
def crop(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Cut every stem to the segment less the shift, each chosen one from a random place, the others from the start."""
    settings = config.crop
    spare = crop_samples(config)
    length = stems.shape[-1] - spare
    if length < 1:
        raise InputError(
            f"segments of {stems.shape[-1]} samples leave nothing after crop.shift_s = {settings.shift_s:g} s "
            f"({spare} samples); read longer segments or lower it"
        )
    if spare == 0:
        return stems
    offsets = torch.randint(spare, stems.shape[:2], generator=generator)
    offsets = offsets * draw_chosen(stems, settings.probability, generator).cpu()
    if settings.same:
        offsets = offsets[:, :1].expand_as(offsets)
    items = [
        torch.stack([stem[:, start : start + length] for stem, start in zip(item, starts, strict=True)])
        for item, starts in zip(stems, offsets.tolist(), strict=True)
    ]
    return torch.stack(items)


def crop_samples(config: AugmentConfig) -> int:
    """Return by how many samples `crop` shortens a segment."""
    return round(config.crop.shift_s * config.sample_rate_hz)
