"""Where a completion ends and what its text is, whatever the tokenizer does to blanks and torn characters."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lora_xs.evaluation.generation.stopping import StopStrings, cut_at_stop, end_ids, window, written_text


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("7.\n### Response: 8 Instruction: 9", ("Instruction:", "Response:"), ("7.\n### ", True)),
        ("7. Instruction: 8 Instruction: 9", ("Instruction:",), ("7. ", True)),
        ("Instruction", ("Instruction:", "Instruction"), ("", True)),
        ("7. instruction:", ("Instruction:",), ("7. instruction:", False)),
        ("7.", (), ("7.", False)),
    ],
)
def test_a_text_is_cut_before_the_first_stop_string(text: str, stop: tuple[str, ...], expected: Any) -> None:
    assert cut_at_stop(text, stop) == expected


@pytest.fixture
def sentencepiece() -> Any:
    """A tokenizer that, as LLaMA2's, writes a blank as `▁` and drops the first of a text when it decodes."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    pieces = {"<unk>": 0, "<s>": 1, "</s>": 2, "step": 3, "▁The": 4, "▁answer": 5, "▁": 6, "s": 7}
    rust = Tokenizer(models.WordLevel(pieces, "<unk>"))
    rust.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=rust, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def test_a_completion_keeps_its_leading_blank(sentencepiece: Any) -> None:
    assert sentencepiece.decode([4, 5]) == "The answer"  # what decoding it alone would lose
    assert written_text(sentencepiece, [1, 3], [4, 5, 2]) == " The answer"
    assert written_text(sentencepiece, [1, 3], [7, 4]) == "s The"
    assert written_text(sentencepiece, [1], [4]) == "The"  # after BOS there is no blank
    assert written_text(sentencepiece, [], [4]) == "The"


def test_a_character_torn_over_tokens_is_whole_in_the_text(tiny_tokenizer: Any) -> None:
    prompt, written = tiny_tokenizer("###")["input_ids"], tiny_tokenizer("€ 5 🍎")["input_ids"]
    assert len(written) > 5  # bytes of one character are tokens of their own
    assert written_text(tiny_tokenizer, prompt, written) == "€ 5 🍎"


@pytest.mark.parametrize("stop", ["🍎", "5 🍎", "Response:", "x"])
def test_a_stop_string_is_seen_at_its_last_token_and_not_before(tiny_tokenizer: Any, stop: str) -> None:
    prompt = tiny_tokenizer("Response: x 🍎")["input_ids"]
    ids = prompt + tiny_tokenizer("€ and then " + stop)["input_ids"]
    criterion = StopStrings(tiny_tokenizer, (stop,), len(prompt))
    found = [bool(criterion(torch.tensor([ids[:end]]), None)) for end in range(len(prompt) + 1, len(ids) + 1)]
    assert found == [False] * (len(found) - 1) + [True]
    assert window((stop, "")) >= len(tiny_tokenizer(stop)["input_ids"])


def test_end_tokens_are_the_tokenizers_and_the_models(tiny_tokenizer: Any) -> None:
    assert end_ids(tiny_tokenizer) == [1]
    assert end_ids(tiny_tokenizer, 5) == [1, 5]
    assert end_ids(tiny_tokenizer, [9, 1, 5]) == [1, 5, 9]
