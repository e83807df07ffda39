"""Rows of token ids into a batch: labelled texts padded, prompts and responses padded or end to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from lora_xs.errors import UserError
from lora_xs.losses import NO_LABEL


class Collator:
    """Pads to the longest row of the batch, or every row to `max_length` tokens (what the papers' GLUE code did: 128).

    Padding is masked out, so both give the same result up to rounding; the longest row costs less. Gives int64
    `input_ids`, `attention_mask` (and `token_type_ids`) `[rows, tokens]` and `labels` `[rows]`, int64 for classes and
    float32 for a regression.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        padding: Literal["longest", "max_length"] = "longest",
        max_length: int | None = None,
    ) -> None:
        if tokenizer.pad_token is None:
            raise UserError(f"tokenizer {type(tokenizer).__name__} has no padding token; set one before making batches")
        if padding == "max_length" and max_length is None:
            raise UserError("padding=max_length needs the task's max_length")
        self._pad = DataCollatorWithPadding(
            tokenizer,
            padding=padding,
            max_length=max_length if padding == "max_length" else None,
        )

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The batch of `rows`, as `Tokenized` holds them."""
        return dict(self._pad(rows))


class ResponseCollator:
    """Rows of prompt and response into a batch whose logits are computed where a response token follows, nowhere else.

    rows: mappings of `input_ids`, `prompt_tokens` (how many ids have no loss) and `weight` (of each of its response
    tokens in the step's loss). Gives int64 `input_ids`; `attention_mask` of the same shape or, with `padding=free`,
    `position_ids` `[1, all tokens]` of rows laid end to end (attention kernels keep them apart by their positions);
    `logits_to_keep` `[kept]`, the columns with a response token after them in any row; `labels` `[rows, kept]`, the
    token after each, NO_LABEL where there is none; `label_weights` likewise in fp32. Labels follow lengths, never the
    padding token's id: with pad = eos a row's own end of sequence is still learned.
    """

    def __init__(
        self,
        pad_token_id: int,
        *,
        padding: Literal["longest", "max_length", "free"] = "longest",
        max_length: int | None = None,
    ) -> None:
        if padding == "max_length" and max_length is None:
            raise UserError("padding=max_length needs the task's max_length")
        self.pad_token_id, self.padding = pad_token_id, padding
        self.max_length = max_length if padding == "max_length" else None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The batch of `rows`."""
        lengths = [len(row["input_ids"]) for row in rows]
        free = self.padding == "free"
        shape = (1, sum(lengths)) if free else (len(rows), self.max_length or max(lengths))
        ids = torch.full(shape, self.pad_token_id, dtype=torch.int64)
        places = torch.zeros(shape, dtype=torch.int64)  # position_ids, or the mask of what is real
        labels = torch.full(shape, NO_LABEL, dtype=torch.int64)
        weights = torch.zeros(shape, dtype=torch.float32)
        start = 0
        for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            line, span = (0, slice(start, start + length)) if free else (index, slice(0, length))
            row_ids, prompt = torch.as_tensor(row["input_ids"]), max(1, row["prompt_tokens"])
            ids[line, span] = row_ids
            places[line, span] = torch.arange(length) if free else 1
            before = slice(span.start + prompt - 1, span.stop - 1)  # the places whose next token is of the response
            labels[line, before] = row_ids[prompt:]
            weights[line, before] = row["weight"]
            start += length
        kept = (labels != NO_LABEL).any(dim=0).nonzero().squeeze(1)  # [kept]
        if not len(kept):
            kept = torch.zeros(1, dtype=torch.int64)  # a batch of nothing but prompts still has a (zero) loss
        return {
            "input_ids": ids,
            "position_ids" if free else "attention_mask": places,
            "logits_to_keep": kept,
            "labels": labels[:, kept].contiguous(),
            "label_weights": weights[:, kept].contiguous(),
        }
