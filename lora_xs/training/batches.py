"""The order of training rows: optimiser batches drawn by seed and epoch alone, each sorted by length inside.

Which rows share an optimiser step depends on nothing but seed, epoch, batch size and the number of rows: not on the
method, the number of processes or the micro-batch. Sorting inside a batch lets micro-batches hold rows of like length,
so that little padding is computed (and rows of one length lie side by side), while the step stays the same sum over the
same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler


def drawn(rows: int, batch_size: int, seed: int, epoch: int) -> Iterator[list[int]]:
    """The optimiser batches of an epoch, in the order their rows were drawn."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(rows, generator=generator).tolist()
    for start in range(0, rows, batch_size):
        yield order[start : start + batch_size]


class BatchOrder(Sampler[Any]):
    """Row indices, `batch_size` at a time from a seeded permutation, the longest of each batch first.

    lengths: tokens of each row. `set_epoch` chooses the permutation; the Trainer calls it before every epoch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed = list(lengths), batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of `epoch`, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches():
            yield from batch

    def batches(self) -> Iterator[list[Any]]:
        """The rows of one optimiser step after the other."""
        for batch in drawn(len(self.lengths), self.batch_size, self.seed, self.epoch):
            yield sorted(batch, key=lambda row: -self.lengths[row])


class Weighted(NamedTuple):
    """A row and the weight of each of its response tokens in the loss of the optimiser step it was drawn for."""

    row: int
    weight: float


class WeightedOrder(BatchOrder):
    """`BatchOrder` of responses. responses: response tokens of each row; group: see `token_weights`."""

    def __init__(
        self, lengths: Sequence[int], responses: Sequence[int], batch_size: int, seed: int, group: int | None
    ) -> None:
        super().__init__(lengths, batch_size, seed)
        self.responses, self.group = list(responses), group

    def batches(self) -> Iterator[list[Any]]:
        for batch in drawn(len(self.lengths), self.batch_size, self.seed, self.epoch):
            weights = token_weights([self.responses[row] for row in batch], self.group)
            pairs = [Weighted(row, weight) for row, weight in zip(batch, weights, strict=True)]
            yield sorted(pairs, key=lambda pair: -self.lengths[pair.row])


def token_weights(responses: Sequence[int], group: int | None) -> list[float]:
    """What one response token of each row weighs in the batch's loss, the weights of all tokens adding up to 1.

    group None: the mean over all response tokens of the batch. Else the mean, over groups of `group` rows in the order
    drawn, of each group's mean over its tokens: what accumulating micro-batches of that size computes, whatever
    micro-batches the hardware holds. A group without a response token is left out (there its mean would be 0 / 0).
    """
    size = group or max(1, len(responses))
    totals = [sum(responses[start : start + size]) for start in range(0, len(responses), size)]
    filled = sum(total > 0 for total in totals)
    return [1.0 / (totals[i // size] * filled) if totals[i // size] else 0.0 for i in range(len(responses))]


class WeightedRows(Dataset[Mapping[str, Any]]):
    """Tokenised prompts and responses, asked for by `Weighted` (or by index, for a weight of 1 a token)."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: Weighted | int) -> Mapping[str, Any]:
        row, weight = item if isinstance(item, Weighted) else (item, 1.0)
        return {**self.rows[row], "weight": weight}


def response_lengths(lengths: np.ndarray, prompts: Sequence[int]) -> np.ndarray:
    """Response tokens of each row: those after its prompt, the first token of a row apart (nothing predicts it)."""
    return np.maximum(lengths - np.maximum(np.asarray(prompts, np.int64), 1), 0)
