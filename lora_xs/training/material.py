"""What a run trains and validates on, ready for a trainer: rows, tokens and the collator, by kind of task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_xs.data.collate import Collator, ResponseCollator
from lora_xs.data.rows import TaskRows, lengths_of
from lora_xs.spec.layout import padding_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lora_xs.data.instruction import InstructionRows
    from lora_xs.spec import RunSpec


@dataclass(frozen=True)
class Material:
    """train, validation: tokenised rows, validation the longest first (no score depends on its order, padding does) and
    None where there is none. facts: what the record's `train` block says of them. identity: their tokens' hash."""

    train: Any
    validation: Any
    collate: Callable[[list[Any]], Any]
    facts: dict[str, Any]
    identity: str


def labelled(spec: RunSpec, rows: TaskRows, tokenizer: PreTrainedTokenizerBase) -> Material:
    """Texts with a label each."""
    import torch

    from lora_xs.data.tokens import tokenize_rows

    tokens = tokenize_rows(rows, tokenizer, spec.task.max_length)
    # free: the model itself lays rows end to end (lora_xs.models.unpadded)
    padding: Any = "max_length" if padding_of(spec, torch.cuda.is_available()) == "max_length" else "longest"
    collate = Collator(tokenizer, padding=padding, max_length=spec.task.max_length)
    facts = {"truncated_rows": tokens.truncated}
    return Material(tokens.train, _longest_first(tokens.validation), collate, facts, tokens.identity)


def responses(spec: RunSpec, rows: InstructionRows, tokenizer: PreTrainedTokenizerBase) -> Material:
    """Prompts with a response each."""
    import torch

    from lora_xs.data.responses import tokenize_responses

    tokens = tokenize_responses(rows, tokenizer, spec.task.max_length)
    pad: Any = tokenizer.pad_token_id
    padding = padding_of(spec, torch.cuda.is_available())
    collate = ResponseCollator(pad, padding=padding, max_length=spec.task.max_length)
    facts = {"truncated_rows": tokens.truncated, "silent_rows": tokens.silent, "boundary_rows": tokens.boundary}
    validation = _longest_first(tokens.validation) if len(tokens.validation) else None
    return Material(tokens.train, validation, collate, facts, tokens.identity)


def _longest_first(rows: Any) -> Any:
    lengths = lengths_of(rows)
    return rows.select(np.lexsort((np.arange(len(lengths)), -lengths)).tolist())
