from __future__ import annotations

from functools import partial
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.errors import TrainingError
from polyres.training.loading import StepBatches, StepSampler, endless_batches, seeded_generator


@given(items=st.integers(1, 9), batch=st.integers(1, 12), start=st.integers(0, 20), seed=st.integers(0, 5))
def test_batches_depend_on_their_number_alone(items: int, batch: int, start: int, seed: int):
    from_zero = list(islice(StepSampler(items, batch, seed), start + 3))
    from_there = list(islice(StepSampler(items, batch, seed, start), 3))
    assert from_zero[start:] == from_there


@given(items=st.integers(1, 9), batch=st.integers(1, 4), ranks=st.integers(1, 4), start=st.integers(0, 5))
def test_processes_share_the_batches_of_one(items: int, batch: int, ranks: int, start: int):
    alone = list(islice(StepSampler(items, batch * ranks, 7, start), 4))
    shares = [islice(StepSampler(items, batch, 7, start * ranks + rank, every=ranks), 4) for rank in range(ranks)]
    for whole, parts in zip(alone, zip(*shares, strict=True), strict=True):
        assert [key[1:] for key in whole] == [key[1:] for part in parts for key in part]


@given(items=st.integers(1, 9), batch=st.integers(1, 12))
def test_every_pass_takes_each_item_once(items: int, batch: int):
    keys = [key for b in islice(StepSampler(items, batch, 0), 3 * items) for key in b]
    for epoch in range(3):
        assert sorted(index for _, e, index in keys if e == epoch) == list(range(items))
    assert [number for number, _, _ in keys] == [i // batch for i in range(len(keys))]


def test_passes_and_seeds_have_their_own_order():
    def order(seed: int, epoch: int) -> list[int]:
        return [index for b in islice(StepSampler(50, 50, seed), epoch + 1) for _, e, index in b if e == epoch]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_generators_differ_by_seed_purpose_and_number():
    draws = {
        torch.rand(1, generator=seeded_generator(seed, purpose, number)).item()
        for seed in range(4)
        for purpose in ("order", "prepare")
        for number in range(4)
    }
    assert len(draws) == 32
    first, again = (torch.rand(3, generator=seeded_generator(1, "order", 2)) for _ in range(2))
    assert first.equal(again)


def test_empty_data_is_refused():
    with pytest.raises(TrainingError, match=r"training data set has no segments; check data.roots"):
        StepSampler(0, 4, 0)


class Counting:
    """Items that say which pass and index they are."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return 5

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([self.epoch, index])


def test_batches_are_stacked_and_prepared_with_the_generator_of_their_number():
    def prepare(batch, generator):
        return torch.cat([batch, torch.randint(1000, (len(batch), 1), generator=generator)], dim=1)

    batches = StepBatches(Counting(), prepare, seed=3)
    found = list(islice(endless_batches(batches, StepSampler(5, 2, 3), 0, False), 6))
    for number, (batch, keys) in enumerate(zip(found, islice(StepSampler(5, 2, 3), 6), strict=True)):
        assert batch[:, :2].tolist() == [[epoch, index] for _, epoch, index in keys]
        expected = torch.randint(1000, (2, 1), generator=seeded_generator(3, "prepare", number))
        assert batch[:, 2:].equal(expected)


@pytest.mark.slow
def test_workers_give_the_same_batches_as_none(stems_config):
    from polyres.datasets.augment.config import AugmentConfig
    from polyres.datasets.stems import StemsDataset
    from polyres.separation.training.task import augmented

    batches = StepBatches(StemsDataset(stems_config), partial(augmented, AugmentConfig()), seed=0)
    sampler = StepSampler(stems_config.items_per_epoch, 3, 0)
    alone = list(islice(endless_batches(batches, sampler, 0, False), 5))
    helped = list(islice(endless_batches(batches, sampler, 2, False), 5))
    assert all(a.equal(b) for a, b in zip(alone, helped, strict=True))
    assert not alone[0].equal(alone[1])
