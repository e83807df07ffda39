"""Rows of token ids into a padded batch."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from lora_xs.errors import UserError


class Collator:
    """Pads to the longest row of the batch, or every row to `max_length` tokens (what the papers' GLUE code did: 128).

    Padding is masked out, so both give the same result up to rounding; the longest row costs less. Gives int64
    `input_ids`, `attention_mask` (and `token_type_ids`) `[rows, tokens]` and `labels` `[rows]`, int64 for classes and
    float32 for a regression.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        pad_to_multiple_of: int | None = None,
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
            pad_to_multiple_of=pad_to_multiple_of,
        )

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The batch of `rows`, as `Tokenized` holds them."""
        return dict(self._pad(rows))
