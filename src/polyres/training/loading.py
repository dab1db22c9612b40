"""Batches that depend on the seed and the step alone, so that a run can go on anywhere."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from polyres.core.errors import PolyresError, TrainingError

Key = tuple[int, int, int]
"""Number of the batch, pass through the data set, index inside it."""

Prepare = Callable[[Tensor, torch.Generator], Tensor]


class SegmentSource(Protocol):
    """A data set whose items depend on the epoch it was told and the index."""

    def __len__(self) -> int:
        """Return the number of items of an epoch."""

    def __getitem__(self, index: int) -> Tensor:
        """Return one item."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next items belong to."""


class StepBatches(Dataset[Tensor]):
    """Whole batches, asked for by the keys of their items, so that workers need not be told the epoch or the step."""

    def __init__(self, source: SegmentSource, prepare: Prepare, seed: int) -> None:
        """Wrap a data set.

        `prepare`: makes a batch `[B, ...]` what is trained on; its randomness comes from the generator it is given.
        """
        self._source, self._prepare, self._seed = source, prepare, seed

    def __getitems__(self, keys: list[Key]) -> Tensor:
        """Return the batch of these keys."""
        items = []
        for _, epoch, index in keys:
            self._source.set_epoch(epoch)
            items.append(self._source[index])
        return self._prepare(torch.stack(items), seeded_generator(self._seed, "prepare", keys[0][0]))


class StepSampler(Sampler[list[Key]]):
    """Endless batches of keys; batch n is a function of seed and n, whatever came before.

    Every pass through the data set is a new permutation; batches run across the border of two passes, so a data set
    smaller than a batch works too.
    """

    def __init__(self, num_items: int, batch_size: int, seed: int, start: int = 0, every: int = 1) -> None:
        if num_items < 1:
            raise TrainingError("the training data set has no segments; check data.roots and the length of the tracks")
        self._num_items, self._batch_size, self._seed = num_items, batch_size, seed
        self._start, self._every = start, every

    def _order(self, epoch: int) -> list[int]:
        """Return the permutation of one pass."""
        generator = seeded_generator(self._seed, "order", epoch)
        return torch.randperm(self._num_items, generator=generator).tolist()

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield batches of keys for ever."""
        epoch, order = -1, []
        for number in count(self._start, self._every):
            batch: list[Key] = []
            for position in range(number * self._batch_size, (number + 1) * self._batch_size):
                if position // self._num_items != epoch:
                    epoch = position // self._num_items
                    order = self._order(epoch)
                batch.append((number, epoch, order[position % self._num_items]))
            yield batch


def seed_of(seed: int, purpose: str, number: int) -> int:
    """Return a seed that belongs to a run, a purpose and a counter, and to nothing else."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seeded_generator(seed: int, purpose: str, number: int) -> torch.Generator:
    """Return a random generator seeded with `seed_of` these."""
    return torch.Generator().manual_seed(seed_of(seed, purpose, number))


def quiet_worker(worker_id: int) -> None:
    """Make a loader process leave the cores to the training and stopping to the main process."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class NoBatchError(TrainingError):
    """The next batch could not be loaded."""


def next_batch(batches: Iterator[Tensor]) -> Tensor:
    """Return the next batch."""
    try:
        return next(batches)
    except PolyresError as error:
        # torch puts the trace of the loading process before the words of the error.
        line = str(error).strip().splitlines()[-1]
        raise NoBatchError(line.partition("Error: ")[2] if line.startswith("polyres.") else line) from error
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise NoBatchError(
            "a process that loads data was killed, perhaps for want of memory; take a smaller num_workers"
        ) from error


def whole(batch: Any) -> Any:
    """Return a batch that needs no putting together."""
    return batch


def endless_batches(batches: StepBatches, sampler: StepSampler, num_workers: int, pin: bool) -> Iterator[Tensor]:
    """Load batches ahead in worker processes that live as long as the iterator."""
    options: dict[str, Any] = {}
    if num_workers > 0:
        methods = torch.multiprocessing.get_all_start_methods()
        # Forking a process whose threads hold locks can hang; a fork server has none.
        options["multiprocessing_context"] = "forkserver" if "forkserver" in methods else "spawn"
        options["prefetch_factor"] = 4
    loader = DataLoader(
        batches,
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=whole,
        worker_init_fn=quiet_worker,
        pin_memory=pin,
        generator=torch.Generator(),  # else it would draw from the global one
        **options,
    )
    return iter(loader)
