"""What training saw is counted the same however a batch was split."""

from __future__ import annotations

import json

import torch

from lora_xs.training.labels import row_contents
from lora_xs.training.ledger import Ledger


def batch(rows: list[list[int]], width: int) -> dict:
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.tensor([sum(r) % 2 for r in rows])}


ROWS = [[5, 6, 7], [8, 9], [3], [4, 4, 4, 4]]


def test_batch_digest_does_not_depend_on_padding_split_or_order_within_a_step() -> None:
    whole, split, other = Ledger(), Ledger(), Ledger()
    whole.saw(row_contents(batch(ROWS, 4)), 16, 7)
    split.saw(row_contents(batch(ROWS[2:], 9)), 18, 7)
    split.saw(row_contents(batch(ROWS[:2], 5)), 10, 7)
    assert (whole.batches, whole.tokens) == (split.batches, split.tokens) == (whole.batches, 10)
    other.saw(row_contents(batch(ROWS, 4)), 16, 8)
    assert other.batches != whole.batches


def test_epoch_loss_is_the_same_number_however_the_steps_were_read() -> None:
    losses = [0.1 * i for i in range(1, 8)]
    one, two = Ledger(), Ledger()
    one.saw_losses(losses)
    for at in range(0, 7, 3):
        two.saw_losses(losses[at : at + 3])
    assert one.close_epoch() == two.close_epoch()
    assert one.close_epoch() is None


def test_a_ledger_survives_json_exactly() -> None:
    ledger = Ledger(history=[{"kind": "train", "loss": 0.1 + 0.2}], epoch_loss_sum=1 / 3, batches=2**64 - 1)
    assert Ledger(**json.loads(json.dumps(ledger.to_json()))) == ledger
