from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from polyres.core.errors import InputError
from polyres.datasets.augment.time import remix_groups
from tests.datasets.augment.cases import RATE_HZ, batch, only, rows, run


def numbered(items: int, sources: int, channels: int = 2, length: int = 3) -> Tensor:
    """Stems whose every sample says which item and source it is from."""
    number = torch.arange(items)[:, None] * 100 + torch.arange(sources)
    return number[..., None, None].expand(-1, -1, channels, length).float().clone()


@given(
    items=st.integers(1, 13),
    sources=st.integers(1, 4),
    group_size=st.none() | st.integers(1, 15),
    seed=st.integers(0, 1000),
)
def test_remix_keeps_every_stem_under_its_source_and_in_its_group(
    items: int, sources: int, group_size: int | None, seed: int
) -> None:
    stems = numbered(items, sources)
    mixed = run(stems, only("remix", group_size=group_size), seed)
    assert (mixed == mixed[..., :1, :1]).all()
    for group in remix_groups(items, group_size):
        for source in range(sources):
            assert sorted(mixed[group, source, 0, 0].tolist()) == stems[group, source, 0, 0].tolist()


def test_remix_gives_every_source_an_order_of_its_own() -> None:
    mixed = run(numbered(6, 4), only("remix"))[:, :, 0, 0] - torch.arange(4)
    assert len({tuple(order) for order in mixed.T.tolist()}) > 1


def test_remix_reaches_every_order_in_a_group_equally_often() -> None:
    seen = torch.zeros(3, 3)
    for seed in range(600):
        items = (run(numbered(6, 1), only("remix", group_size=3), seed)[:3, 0, 0, 0] / 100).long()
        seen[torch.arange(3), items] += 1
    assert (seen / 600 - 1 / 3).abs().max() < 0.08


@given(batch_size=st.integers(1, 100), group_size=st.none() | st.integers(1, 110))
def test_groups_are_full_and_nearly_equal(batch_size: int, group_size: int | None) -> None:
    groups = [group.tolist() for group in remix_groups(batch_size, group_size)]
    sizes = [len(group) for group in groups]
    assert [item for group in groups for item in group] == list(range(batch_size))
    assert max(sizes) - min(sizes) <= 1
    if group_size is None or group_size >= batch_size:
        assert sizes == [batch_size]
    else:
        assert len(sizes) == batch_size // group_size
        assert min(sizes) >= group_size
        assert batch_size % group_size or set(sizes) == {group_size}


@given(length=st.integers(1, 60), limit=st.integers(1, 80), seed=st.integers(0, 100))
def test_shift_moves_and_fills_with_zeros(length: int, limit: int, seed: int) -> None:
    stems = batch(2, 2, 1, length)
    for before, after in zip(rows(stems), rows(run(stems, only("shift", max_samples=limit), seed)), strict=True):
        padded = torch.nn.functional.pad(before, (length, length))
        moved = [padded[:, start : start + length] for start in range(2 * length + 1)]
        offsets = [length - start for start, wave in enumerate(moved) if torch.equal(wave, after)]
        assert offsets
        assert min(abs(offset) for offset in offsets) <= limit


@given(
    spare=st.integers(1, 40),
    length=st.integers(1, 50),
    probability=st.floats(0, 1),
    same=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_crop_cuts_each_stem_from_one_place(spare: int, length: int, probability: float, same: bool, seed: int) -> None:
    stems = torch.arange(spare + length).float().expand(3, 4, 2, -1)
    after = run(stems, only("crop", probability, shift_s=spare / RATE_HZ, same=same), seed)
    starts = after[..., :1]
    assert torch.equal(after, starts + torch.arange(length))
    assert starts.min() >= 0
    assert starts.max() < spare
    assert (starts == starts[:, :, :1]).all()
    assert not same or (starts == starts[:, :1]).all()


def test_crop_uses_all_places_and_none_with_probability_0() -> None:
    stems = torch.arange(104).float().expand(40, 4, 1, -1)
    starts = run(stems, only("crop", shift_s=4 / RATE_HZ))[..., 0]
    assert torch.bincount(starts.flatten().long(), minlength=4).min() > 20
    assert (starts != starts[:, :1]).any()
    assert torch.equal(run(stems, only("crop", 0.0, shift_s=4 / RATE_HZ)), stems[..., :100])
    assert torch.equal(run(stems, only("crop", shift_s=0.0)), stems)


def test_crop_refuses_segments_that_are_too_short() -> None:
    with pytest.raises(
        InputError,
        match=r"segments of 8000 samples leave nothing after crop.shift_s = 1 s \(8000 samples\); read longer",
    ):
        run(batch(1, 1, 1, 8000), only("crop", shift_s=1.0))
