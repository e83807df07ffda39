"""What a run's training has seen so far: losses, tokens, evaluations, the best one. Saved with every checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Ledger:
    """Counts over the whole run, interruptions included; but for times and attempts equal to an undisturbed run's.

    history: a dict a line of metrics.jsonl. tokens: real tokens, padding apart. padded: tokens computed.
    batches: sum modulo 2⁶⁴ of a hash of every (step, row) trained on: the order inside a step and the split into
    micro-batches or processes do not matter, so two methods that saw the same batches have the same number.
    train_seconds: of all attempts, with the evaluations while they train. attempts: of each, when it `started`, its
    `commit`, and the `seconds` of the phases before its training; where the clock stopped at a kill, what came after
    the last checkpoint is missing.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    epoch_loss_sum: float = 0.0
    epoch_steps: int = 0
    tokens: int = 0
    padded: int = 0
    batches: int = 0
    train_seconds: float = 0.0
    best: dict[str, Any] | None = None
    without_better: int = 0
    attempts: list[dict[str, Any]] = field(default_factory=list)

    def saw(self, rows: Iterable[tuple[bytes, int]], computed: int, step: int) -> None:
        """Count a micro-batch of optimiser step `step`: content and tokens of each row, tokens computed in all."""
        self.padded += computed
        for content, tokens in rows:
            self.tokens += tokens
            digest = hashlib.blake2b(content + step.to_bytes(8, "little"), digest_size=8).digest()
            self.batches = (self.batches + int.from_bytes(digest, "little")) % 2**64

    def counts(self) -> list[int]:
        """What `saw` counted, to be added up over processes."""
        return [self.tokens, self.padded, self.batches]

    def add(self, counts: Sequence[int]) -> None:
        """Take over what other ledgers counted: their `counts`, or a sum of them."""
        self.tokens += counts[0]
        self.padded += counts[1]
        self.batches = (self.batches + counts[2]) % 2**64

    def saw_losses(self, losses: list[float]) -> None:
        """Add the losses of finished optimiser steps to the epoch's mean."""
        for loss in losses:  # one by one: the sum must not depend on how the steps were grouped
            self.epoch_loss_sum += loss
        self.epoch_steps += len(losses)

    def close_epoch(self) -> float | None:
        """The mean training loss since the last call; None where no step was taken."""
        mean = self.epoch_loss_sum / self.epoch_steps if self.epoch_steps else None
        self.epoch_loss_sum, self.epoch_steps = 0.0, 0
        return mean

    def evaluations(self) -> list[dict[str, Any]]:
        """The lines of `history` that are evaluations, in order."""
        return [line for line in self.history if line["kind"] == "evaluation"]

    def to_json(self) -> dict[str, Any]:
        """Plain values; floats survive JSON exactly."""
        return asdict(self)


def pending_to_list(pending: list[Tensor]) -> list[float]:
    """Read a list of scalar losses with a single synchronisation of the device."""
    return torch.stack(pending).double().tolist() if pending else []
