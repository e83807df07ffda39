"""What training minimises: a sum over rows or response tokens, so that any split of a batch is the same step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

NO_LABEL = -100


def label_loss(logits: Tensor, labels: Tensor, kind: str) -> Tensor:
    """Cross-entropy of classes or squared error of a regression, summed over rows, in fp32.

    logits `[rows, classes]` or `[rows, 1]`; labels `[rows]`.
    """
    logits = logits.float()
    if kind == "regression":
        return nn.functional.mse_loss(logits.squeeze(-1), labels.float(), reduction="sum")
    return nn.functional.cross_entropy(logits, labels, reduction="sum")


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """−log p of each label token, `[rows, kept]`; 0 where the label is NO_LABEL. logits `[rows, kept, vocab]`.

    In fp32, or fp64 for logits in fp64.
    """
    flat = logits.flatten(0, 1)  # [rows · kept, vocab]
    flat = flat if flat.dtype == torch.float64 else flat.float()
    losses = nn.functional.cross_entropy(flat, labels.flatten(), reduction="none", ignore_index=NO_LABEL)
    return losses.view_as(labels)


def response_logits(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """`[rows, kept, vocab]` of a batch without its labels.

    No cache of keys and values: nothing reads it again, and with one the library takes rows laid end to end for one.
    """
    logits: Tensor = model(**inputs, use_cache=False).logits
    return logits


def response_loss(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """Σ weight · (−log p) over the response tokens of a batch of `lora_xs.data.collate.ResponseCollator`.

    The weights say what the whole optimiser step's loss is a mean of, so micro-batches simply add up.
    """
    batch = dict(inputs)
    labels, weights = batch.pop("labels"), batch.pop("label_weights")  # [rows, kept]
    return (token_losses(response_logits(model, batch), labels) * weights).sum()
