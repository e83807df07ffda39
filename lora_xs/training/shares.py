"""What each process of a run computes: its share of every optimiser batch, and of the rows that are scored.

accelerate's samplers repeat rows until all processes have equally many; a repeated row would count twice in the step
or in a score. Here no row is repeated. All processes still take equally many passes, because each pass may end in a sum
over all of them: one that has no row left passes a spare one through the model and counts it as nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from lora_xs.processes import gathered_bytes, place
from lora_xs.training.batches import BatchOrder

IDLE = "idle"
"""In a batch that is only there so that this process takes as many passes as the others."""


class MicroBatches(Sampler[list[Any]]):
    """This process's micro-batches of every optimiser batch of `order`, at most `rows` rows each; empty where idle.

    Rows are dealt out like cards, so every process gets rows of like length, and alone a process gets them all.
    """

    def __init__(self, order: BatchOrder, rows: int, rank: int, ranks: int) -> None:
        self.batch_sampler = order  # under this name the Trainer looks for what has a `set_epoch`
        self.rows, self.rank, self.ranks = rows, rank, ranks

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of `epoch`, counted from 0."""
        self.batch_sampler.set_epoch(epoch)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.batch_sampler), self.batch_sampler.batch_size)
        at_once = self.rows * self.ranks
        return whole * -(-self.batch_sampler.batch_size // at_once) + -(-rest // at_once)

    def __iter__(self) -> Iterator[list[Any]]:
        at_once = self.rows * self.ranks
        for batch in self.batch_sampler.batches():
            for start in range(0, len(batch), at_once):
                yield batch[start : start + at_once][self.rank :: self.ranks]


class ScoredRows(Sampler[list[int]]):
    """This process's batches of the `count` rows to score: every `ranks`-th row from `rank` on; empty where idle."""

    def __init__(self, count: int, batch_size: int, rank: int, ranks: int) -> None:
        self.batch_size = batch_size
        self.own = range(rank, count, ranks)
        self.rounds = -(-len(range(0, count, ranks)) // batch_size)

    def __len__(self) -> int:
        return self.rounds

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, self.rounds * self.batch_size, self.batch_size):
            yield list(self.own[start : start + self.batch_size])


class Spare:
    """A collator that makes an idle batch of no rows, from the first of `rows`."""

    def __init__(self, collate: Callable[[list[Any]], Any], rows: Any) -> None:
        self.collate, self.rows = collate, rows

    def __call__(self, rows: list[Any]) -> dict[str, Any]:
        """The batch of `rows`."""
        return dict(self.collate(rows)) if rows else {**self.collate([self.rows[0]]), IDLE: True}


def of_all(values: np.ndarray, count: int) -> np.ndarray:
    """Of `count` scored rows, in their order, what the processes found: each has its own rows first in `values`."""
    rank, ranks = place()
    if ranks == 1:
        return values
    whole = np.empty((count, *values.shape[1:]), values.dtype)
    for number, part in enumerate(gathered_bytes(values[: len(range(rank, count, ranks))].tobytes())):
        whole[number::ranks] = np.frombuffer(part, values.dtype).reshape(-1, *values.shape[1:])
    return whole
