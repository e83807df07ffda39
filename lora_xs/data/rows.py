"""The rows of a task, their content hash and their subsets."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from lora_xs.data.subsets import drawn_rows
from lora_xs.errors import UserError

Kind = Literal["classification", "regression"]


@dataclass(frozen=True)
class TaskRows:
    """Two splits with columns `text_a`, `text_b` (pairs only) and `label` (int64, or float32 for a regression).

    `labels` are the class names by label id, () for a regression. `identity` is JSON-able: `source`, `repo` and
    `revision` or `package` and `version`, `files` (name → sha256), and for each split `rows`, `content` (hash of the
    rows in order, the same whatever the source) and, for classes, `label_counts`.
    """

    train: Dataset
    validation: Dataset
    labels: tuple[str, ...]
    identity: dict[str, Any]

    def limited(self, train_rows: int | None, validation_rows: int | None, seed: int) -> TaskRows:
        """These rows cut down by `limit_rows`, with an identity that is the subset's."""
        train = limit_rows(self.train, train_rows, seed)
        validation = limit_rows(self.validation, validation_rows, seed)
        identity = {**self.identity, **describe_splits(train, validation, self.labels)}
        return replace(self, train=train, validation=validation, identity=identity)


@dataclass
class Columns:
    """Rows on their way in, a list a column; `second` stays empty for single sentences."""

    first: list[str]
    second: list[str]
    label: list[Any]

    @classmethod
    def of(cls, rows: Sequence[tuple[str, str | None, Any]]) -> Columns:
        """Columns of `(text_a, text_b or None, label)` rows."""
        return cls([a for a, _, _ in rows], [b for _, b, _ in rows if b is not None], [label for _, _, label in rows])


def build_rows(
    train: Columns, validation: Columns, kind: Kind, labels: tuple[str, ...], origin: dict[str, Any]
) -> TaskRows:
    """TaskRows of checked columns; `origin` is what the identity says of the source."""
    first, second = _dataset(train, kind), _dataset(validation, kind)
    return TaskRows(first, second, labels, {**origin, **describe_splits(first, second, labels)})


def limit_rows(dataset: Dataset, n: int | None, seed: int) -> Dataset:
    """`n` rows in their old order: `drawn_rows` labelled with the seed. None, or `n` above the number of rows: all of
    them.

    So a subset depends on nothing but `n`, `seed` and the number of rows, and a smaller one lies inside a larger one.
    Raises UserError for `n` below 1.
    """
    if n is None or n >= len(dataset):
        return dataset
    if n < 1:
        raise UserError(f"a subset of {n} rows: at least 1 is needed, or none given for all rows")
    return dataset.select(drawn_rows(str(seed), len(dataset), n))


def table_of(dataset: Dataset) -> pa.Table:
    """The rows a dataset shows, in order: a selection is applied."""
    return dataset.with_format("arrow")[:]


def lengths_of(dataset: Dataset) -> np.ndarray:
    """Tokens of each row, int64 `[rows]`, without making Python lists of them."""
    column = table_of(dataset.select_columns("input_ids")).column("input_ids")
    return np.asarray(pc.list_value_length(column).to_numpy(), np.int64)


def content_hash(table: pa.Table) -> str:
    """64 hex digits over column names and values in order.

    Texts count as UTF-8, integers as int64, floats as float32 (the precision the hub's STS-B has), so neither the
    source nor Arrow's storage of the same rows matters.
    """
    digest = hashlib.sha256()
    for name in sorted(table.column_names):
        column = table.column(name).combine_chunks()
        digest.update(f"{name} {len(column)}\n".encode())
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            digest.update(_numbers(pc.list_value_length(column)))
            digest.update(_numbers(pc.list_flatten(column)))
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            digest.update(_numbers(pc.binary_length(column)))
            digest.update("".join(column.to_pylist()).encode())
        else:
            digest.update(_numbers(column))
    return digest.hexdigest()


def describe_splits(train: Dataset, validation: Dataset, labels: tuple[str, ...] = ()) -> dict[str, Any]:
    """What an identity says of the two splits: `rows`, `content` and, with `labels`, `label_counts`."""
    tables = {"train": table_of(train), "validation": table_of(validation)}
    described: dict[str, Any] = {
        "rows": {split: table.num_rows for split, table in tables.items()},
        "content": {split: content_hash(table) for split, table in tables.items()},
    }
    if labels:
        counts = {split: Counter(table.column("label").to_pylist()) for split, table in tables.items()}
        described["label_counts"] = {
            split: {name: count[label] for label, name in enumerate(labels)} for split, count in counts.items()
        }
    return described


def _numbers(column: pa.Array) -> bytes:
    values = column.to_numpy(zero_copy_only=False)
    return values.astype("<f4" if values.dtype.kind == "f" else "<i8").tobytes()


def _dataset(columns: Columns, kind: Kind) -> Dataset:
    label = pa.array(np.asarray(columns.label, np.float32 if kind == "regression" else np.int64))
    texts = {"text_a": columns.first} | ({"text_b": columns.second} if columns.second else {})
    table = pa.table({name: pa.array(values, pa.large_string()) for name, values in texts.items()} | {"label": label})
    return Dataset(table, fingerprint=content_hash(table)[:16])
