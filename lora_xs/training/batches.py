"""The order of training rows: optimiser batches drawn by seed and epoch alone, each sorted by length inside.

Which rows share an optimiser step depends on nothing but seed, epoch, batch size and the number of rows: not on the
method, the number of processes or the micro-batch. Sorting inside a batch lets micro-batches hold rows of like length,
so that little padding is computed, while the step stays the same sum over the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class BatchOrder(Sampler[int]):
    """Row indices, `batch_size` at a time from a seeded permutation, the longest of each batch first.

    lengths: tokens of each row. `set_epoch` chooses the permutation; accelerate calls it before every epoch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed = list(lengths), batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of `epoch`, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        for start in range(0, len(order), self.batch_size):
            yield from sorted(order[start : start + self.batch_size], key=lambda row: -self.lengths[row])
