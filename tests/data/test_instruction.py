"""Rendered rows, the rows held out of them, and their identity."""

from __future__ import annotations

import hashlib
import json

import pytest

from lora_xs.data.instruction import InstructionRows, render_rows
from lora_xs.data.prompts import PROMPTS
from lora_xs.data.rows import content_hash, table_of
from lora_xs.data.subsets import drawn_rows
from lora_xs.errors import UserError


def rows_of(count: int) -> InstructionRows:
    return render_rows(((f"question {i}", str(i)) for i in range(count)), "alpaca_v1", {"source": "test"})


def numbers(dataset) -> list[int]:
    return [int(text) for text in dataset["response"]]


def test_rows_are_rendered_for_training_and_say_in_which_prompt() -> None:
    rows = render_rows([("one", "1")], "llm_adapters_even_v1", {"source": "test"})
    prompt = PROMPTS["llm_adapters_even_v1"]
    assert rows.train[0] == {"prompt": prompt.for_training("one"), "response": " 1"}
    assert len(rows.validation) == 0 and rows.validation.column_names == ["prompt", "response"]
    assert rows.identity["prompt"] == "llm_adapters_even_v1" and rows.identity["prompt_sha256"] == prompt.sha256
    assert rows.identity["source"] == "test" and rows.identity["rows"] == {"train": 1, "validation": 0}
    assert json.loads(json.dumps(rows.identity)) == rows.identity


def test_another_prompt_is_another_content() -> None:
    contents = {render_rows([("one", "1")], name, {}).identity["content"]["train"] for name in PROMPTS}
    assert len(contents) == 3  # the even math prompt differs from the published one in evaluation alone


def test_validation_rows_are_held_out_by_hash_the_same_for_every_seed() -> None:
    held = [numbers(rows_of(50).limited(10, 5, seed, "sample").validation) for seed in (0, 1)]
    ranks = sorted(range(50), key=lambda i: hashlib.sha256(f"validation:{i}".encode()).digest())
    assert held[0] == held[1] == sorted(ranks[:5])


def test_training_rows_are_the_first_or_a_sample_of_what_is_not_held_out() -> None:
    rows = rows_of(50)
    held = set(numbers(rows.limited(None, 5, 0, "first").validation))
    rest = [i for i in range(50) if i not in held]
    assert numbers(rows.limited(10, 5, 0, "first").train) == rest[:10]
    assert numbers(rows.limited(10, None, 0, "first").train) == list(range(10))
    assert numbers(rows.limited(None, 5, 0, "first").train) == numbers(rows.limited(99, 5, 0, "first").train) == rest
    samples = [numbers(rows.limited(10, 5, seed, "sample").train) for seed in (0, 1)]
    assert samples[0] != samples[1] and all(sample == sorted(sample) for sample in samples)
    assert not held & set(samples[0]) and len(samples[0]) == 10


def test_the_identity_of_limited_rows_is_theirs() -> None:
    limited = rows_of(50).limited(10, 5, 3, "sample")
    assert limited.identity["rows"] == {"train": 10, "validation": 5}
    assert limited.identity["content"]["train"] == content_hash(table_of(limited.train))
    assert limited.identity["content"]["validation"] == content_hash(table_of(limited.validation))
    assert limited.identity["prompt"] == "alpaca_v1"


def test_holding_everything_out_or_keeping_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"task.validation_rows=5: no row is left to train on, there are 5"):
        rows_of(5).limited(None, 5, 0, "first")
    for take in ("first", "sample"):
        with pytest.raises(UserError, match="subset of 0 rows"):
            rows_of(5).limited(0, None, 0, take)


def test_a_smaller_draw_lies_inside_a_larger_one_and_another_label_draws_others() -> None:
    assert set(drawn_rows("test", 100, 10)) < set(drawn_rows("test", 100, 20))
    assert drawn_rows("test", 100, 10) != drawn_rows("validation", 100, 10)
    assert drawn_rows("test", 3, 10) == [0, 1, 2]
