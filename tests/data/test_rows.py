"""Content hashes and subsets of rows."""

from __future__ import annotations

import pyarrow as pa
import pytest
from datasets import Dataset

from lora_xs.data.rows import Columns, TaskRows, build_rows, content_hash, limit_rows, table_of
from lora_xs.errors import UserError

TABLE = {"text_a": ["a", "bc", "ü"], "label": [0, 1, 1]}


def rows_of(count: int) -> TaskRows:
    split = Columns.of([(f"text {i}", None, i % 2) for i in range(count)])
    return build_rows(split, split, "classification", ("no", "yes"), {"source": "test"})


def test_the_hash_does_not_depend_on_how_arrow_stores_the_rows() -> None:
    expected = content_hash(pa.table(TABLE))
    chunked = pa.concat_tables([pa.table(TABLE).slice(0, 1), pa.table(TABLE).slice(1)])
    large = pa.table({"label": pa.array([0, 1, 1], pa.int8()), "text_a": pa.array(TABLE["text_a"], pa.large_string())})
    assert content_hash(chunked) == content_hash(large) == expected
    assert content_hash(pa.table({"x": [3.8]})) == content_hash(pa.table({"x": pa.array([3.8], pa.float32())}))


@pytest.mark.parametrize(
    "other",
    [
        {"text_a": ["ab", "c", "ü"], "label": [0, 1, 1]},
        {"text_a": ["bc", "a", "ü"], "label": [1, 0, 1]},
        {"text_a": ["a", "bc", "ü"], "label": [0, 1, 0]},
        {"text_b": ["a", "bc", "ü"], "label": [0, 1, 1]},
    ],
)
def test_the_hash_tells_other_texts_orders_labels_and_columns_apart(other: dict) -> None:
    assert content_hash(pa.table(other)) != content_hash(pa.table(TABLE))


def test_the_hash_tells_where_a_list_ends() -> None:
    assert content_hash(pa.table({"ids": [[1, 2], [3]]})) != content_hash(pa.table({"ids": [[1], [2, 3]]}))
    sliced = pa.table({"ids": [[9], [1, 2], [3]]}).slice(1)
    assert content_hash(sliced) == content_hash(pa.table({"ids": [[1, 2], [3]]}))


def test_a_subset_keeps_the_order_lies_inside_a_larger_one_and_changes_with_the_seed() -> None:
    dataset = rows_of(100).train
    texts = [dataset["text_a"].index(text) for text in limit_rows(dataset, 10, 0)["text_a"]]
    assert texts == sorted(texts) and len(texts) == 10
    assert set(limit_rows(dataset, 10, 0)["text_a"]) < set(limit_rows(dataset, 20, 0)["text_a"])
    assert set(limit_rows(dataset, 10, 0)["text_a"]) != set(limit_rows(dataset, 10, 1)["text_a"])
    assert texts == [15, 36, 44, 46, 69, 74, 76, 85, 87, 99]  # sorted by sha256(f'0:{i}') by hand


@pytest.mark.parametrize("n", [None, 5, 6])
def test_all_rows_are_kept_where_no_fewer_are_asked_for(n: int | None) -> None:
    assert len(limit_rows(rows_of(5).train, n, 0)) == 5


def test_a_subset_of_no_rows_is_refused() -> None:
    with pytest.raises(UserError, match="subset of 0 rows"):
        limit_rows(rows_of(5).train, 0, 0)


def test_the_identity_of_limited_rows_is_the_subsets() -> None:
    rows = rows_of(50)
    limited = rows.limited(10, None, seed=3)
    assert limited.identity["rows"] == {"train": 10, "validation": 50}
    assert limited.identity["content"]["validation"] == rows.identity["content"]["validation"]
    assert limited.identity["content"]["train"] == content_hash(table_of(limit_rows(rows.train, 10, 3)))
    assert sum(limited.identity["label_counts"]["train"].values()) == 10
    assert limited.identity["source"] == "test"


def test_a_selection_is_what_the_table_holds() -> None:
    dataset = Dataset.from_dict(TABLE).select([2, 0])
    assert table_of(dataset).column("text_a").to_pylist() == ["ü", "a"]
