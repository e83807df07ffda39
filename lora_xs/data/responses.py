"""Prompts and responses as token ids, with how many of a row's first tokens are prompt and have no loss.

As both papers did it, the whole text is tokenised, then the prompt alone, and the prompt's number of tokens is masked.
Where a tokenizer joins the prompt's last characters with the response's first, the two disagree: such rows are
counted. Nothing is ever masked by the padding token's id, so a row's own end of sequence is learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from lora_xs.data.instruction import InstructionRows
from lora_xs.data.tokens import BATCH, describe, tokenized_splits
from lora_xs.errors import UserError

FORMAT = 1  # of a kept file; a change of meaning below must raise it


@dataclass(frozen=True)
class Responses:
    """Unpadded splits with `input_ids` (list of int32) and `prompt_tokens` (int32: the first so many have no loss).

    By split: `truncated`, rows that lost their tail and end of sequence to the limit; `silent`, rows with no response
    token left; `boundary`, rows whose prompt, tokenised alone, is not the beginning of the whole; `tokens`, after
    truncation and with the special ones. `identity` is a hash of the content of both splits.
    """

    train: Dataset
    validation: Dataset
    truncated: dict[str, int]
    silent: dict[str, int]
    boundary: dict[str, int]
    tokens: dict[str, int]
    identity: str


def tokenize_responses(
    rows: InstructionRows, tokenizer: PreTrainedTokenizerBase, max_length: int, cache: Path | None = None
) -> Responses:
    """Both splits as token ids: prompt and response with the tokenizer's own beginning (BOS where it has one), then
    the end of sequence, cut to `max_length`.

    `cache` is the folder to keep them in, `cache_root("data")` where None; kept as `lora_xs.data.tokens` does.
    Raises UserError for a tokenizer without an end-of-sequence token.
    """
    if tokenizer.eos_token_id is None:
        raise UserError(f"tokenizer {type(tokenizer).__name__} has no end-of-sequence token: responses would never end")
    splits, counts, identity = tokenized_splits(f"responses {FORMAT}", rows, tokenizer, max_length, cache, _tokenize)
    return Responses(splits["train"], splits["validation"], **counts, identity=identity)


def _tokenize(rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
    flat: list[np.ndarray] = []
    lengths: list[int] = []
    masked: list[int] = []
    counts = dict.fromkeys(("truncated", "silent", "boundary", "tokens"), 0)
    for batch in rows.to_batches(BATCH):
        prompts, responses = (batch.column(name).to_pylist() for name in ("prompt", "response"))
        whole = _ids(tokenizer, [prompt + response for prompt, response in zip(prompts, responses, strict=True)])
        alone = _ids(tokenizer, prompts)
        for ids, prompt in zip(whole, alone, strict=True):
            counts["boundary"] += ids[: len(prompt)] != prompt
            ids.append(tokenizer.eos_token_id)
            counts["truncated"] += len(ids) > max_length
            counts["silent"] += len(prompt) >= min(len(ids), max_length)
            flat.append(np.asarray(ids[:max_length], np.int32))
            lengths.append(len(flat[-1]))
            masked.append(min(len(prompt), lengths[-1]))
    counts["tokens"] = sum(lengths)
    ends = pa.array(np.cumsum([0, *lengths]), pa.int32())
    ids_column = pa.ListArray.from_arrays(ends, pa.array(np.concatenate([np.zeros(0, np.int32), *flat]), pa.int32()))
    return describe(pa.table({"input_ids": ids_column, "prompt_tokens": pa.array(masked, pa.int32())}), **counts)


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Token ids of each text as the tokenizer begins one; one that also ends them is refused by `load_tokenizer`."""
    if not texts:
        return []
    made: list[list[int]] = tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
    return made
