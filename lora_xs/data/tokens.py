"""Tokenised rows, made once and kept by content: the rows, the tokenizer and the length, never a path or a name."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from lora_xs.atomic import replace_file
from lora_xs.cache import cache_root
from lora_xs.data.rows import TaskRows, content_hash, lengths_of, table_of

logger = logging.getLogger(__name__)

FORMAT = 1  # of a kept file; a change of meaning below must raise it
BATCH = 1000  # rows given to the tokenizer at once


@dataclass(frozen=True)
class Tokenized:
    """Unpadded splits with `input_ids`, `attention_mask`, `token_type_ids` if the tokenizer makes them, and `labels`.

    By split: `truncated`, the rows that were longer than the limit, and `tokens`, after truncation and with the
    special ones. `identity` is a hash of the content of both splits.
    """

    train: Dataset
    validation: Dataset
    truncated: dict[str, int]
    tokens: dict[str, int]
    identity: str


def tokenize_rows(
    rows: TaskRows, tokenizer: PreTrainedTokenizerBase, max_length: int, cache: Path | None = None
) -> Tokenized:
    """Both splits as token ids, at most `max_length` a row (special tokens included, the longer text cut first).

    `cache` is the folder to keep them in, `cache_root("data")` where None. An entry is one checked file a split,
    written at once; a damaged one is made again, and a folder that cannot be written only costs the time.
    """
    splits, counts, identity = tokenized_splits(str(FORMAT), rows, tokenizer, max_length, cache, _tokenize)
    return Tokenized(
        train=splits["train"],
        validation=splits["validation"],
        truncated=counts["truncated"],
        tokens={name: int(lengths_of(dataset).sum()) for name, dataset in splits.items()},
        identity=identity,
    )


class Splits(Protocol):
    """Rows of two splits."""

    @property
    def train(self) -> Dataset: ...
    @property
    def validation(self) -> Dataset: ...


def tokenized_splits(
    kind: str,
    rows: Splits,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    cache: Path | None,
    tokenize: Callable[[pa.Table, PreTrainedTokenizerBase, int], pa.Table],
) -> tuple[dict[str, Dataset], dict[str, dict[str, int]], str]:
    """Both splits as `tokenize` makes them (a table that `describe` made), its counts by name and split, and a hash.

    kind: what `tokenize` does, in words that change with its meaning; they are part of the key of what is kept. `cache`
    is the folder to keep it in, `cache_root("data")` where None. The hash is that of the content of both splits.
    """
    folder = cache or cache_root("data")
    spelling = tokenizer_hash(tokenizer)

    def split(dataset: Dataset) -> pa.Table:
        table = table_of(dataset)
        key = f"{kind} {content_hash(table)} {spelling} {max_length}"
        return kept_table(key, folder, lambda: tokenize(table, tokenizer, max_length))

    tables = {"train": split(rows.train), "validation": split(rows.validation)}
    said = {name: _described(table) for name, table in tables.items()}
    contents = {name: kept.pop("content") for name, kept in said.items()}
    datasets = {name: Dataset(table, fingerprint=contents[name][:16]) for name, table in tables.items()}
    counts = {count: {name: int(kept[count]) for name, kept in said.items()} for count in said["train"]}
    return datasets, counts, hashlib.sha256("".join(contents.values()).encode()).hexdigest()


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """64 hex digits over all that decides a tokenizer's output: its serialised form (vocabulary included), special
    tokens, sides and the library's version. Not its path, and not the padding and truncation set by the last call.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    serialised: object
    if backend is not None:
        serialised = _unset_serialised(backend)
    else:
        settings = {
            name: value
            for name, value in tokenizer.init_kwargs.items()
            if isinstance(value, (bool, int)) or (isinstance(value, str) and not name.endswith(("_path", "_file")))
        }
        serialised = [type(tokenizer).__name__, tokenizer.get_vocab(), settings]
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    state = [tokenizers.__version__, serialised, tokenizer.model_input_names, tokenizer.truncation_side, special]
    return hashlib.sha256(json.dumps(state, sort_keys=True, default=str).encode()).hexdigest()


def _unset_serialised(backend: tokenizers.Tokenizer) -> str:
    padding, truncation = backend.padding, backend.truncation
    backend.no_padding()
    backend.no_truncation()
    serialised: str = backend.to_str()
    if padding is not None:
        backend.enable_padding(**padding)
    if truncation is not None:
        backend.enable_truncation(**truncation)
    return serialised


def kept_table(key: str, folder: Path | None, make: Callable[[], pa.Table]) -> pa.Table:
    """The table `make` gives, kept as one checked Parquet file under `folder` (None: not kept).

    `key` says in words all that decides the content. The table's metadata `lora_xs` is JSON with its `content` hash: an
    entry whose hash does not hold is made again, and a folder that cannot be written only costs the time.
    """
    path = folder / "tokens" / f"{hashlib.sha256(key.encode()).hexdigest()}.parquet" if folder else None
    if path and path.is_file():
        try:
            table = pq.ParquetFile(path).read()
            if content_hash(table) == json.loads(table.schema.metadata[b"lora_xs"])["content"]:
                return table
            problem: object = "its content hash does not hold"
        except (pa.ArrowException, OSError, TypeError, KeyError, ValueError) as error:
            problem = error
        logger.warning("%s is damaged (%s) and is made again", path, problem)
    table = make()
    if path:
        try:
            replace_file(path, lambda partial: pq.write_table(table, partial))
        except OSError as error:
            logger.warning("tokens are not kept: %s", error)
    return table


def _described(table: pa.Table) -> dict[str, Any]:
    """What the metadata of a kept table says of it."""
    found: dict[str, Any] = json.loads(table.schema.metadata[b"lora_xs"])
    return found


def describe(table: pa.Table, **counts: int) -> pa.Table:
    """The table with metadata `kept_table` can check: its content hash, and these counts."""
    return table.replace_schema_metadata({"lora_xs": json.dumps({"content": content_hash(table), **counts})})


def _tokenize(rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
    names = [name for name in ("text_a", "text_b") if name in rows.column_names]
    tables, truncated = [], 0
    for batch in rows.to_batches(BATCH):
        texts = [batch.column(name).to_pylist() for name in names]
        # Tokenised whole first: that is how the rows that are cut can be counted with any tokenizer.
        encoded = dict(tokenizer(*texts, truncation=False, padding=False, verbose=False))
        for index, ids in enumerate(encoded["input_ids"]):
            if len(ids) > max_length:
                truncated += 1
                row = [column[index] for column in texts]
                for name, cut in tokenizer(*row, truncation=True, max_length=max_length, verbose=False).items():
                    encoded[name][index] = cut
        columns = {
            name: pa.array(lists, pa.list_(pa.int32() if name == "input_ids" else pa.int8()))
            for name, lists in encoded.items()
        }
        tables.append(pa.table({**columns, "labels": batch.column("label")}))
    return describe(pa.concat_tables(tables).combine_chunks(), truncated=truncated)
