"""Prompt templates: their texts never change under a name, and what they render."""

from __future__ import annotations

import pytest

from lora_xs.data.prompts import PROMPTS, prompt_named
from lora_xs.errors import UserError

GOLDEN = {  # {name: prompt.sha256 for name, prompt in PROMPTS.items()}; a changed text needs a new name
    "alpaca_v1": "dd64d02e1f5a175c4cdcfd36b213a6ef72a52c5dff6687d2f0a666fdbc27a465",
    "alpaca_even_v1": "e401e349a8dfd65e7a86f722289fc9c35fa2b784980627f525322520f3e98cc7",
    "llm_adapters_v1": "b21d238632383254831d6bef2d235a20125f8fce733133cf5df2c6af8c232c3b",
    "llm_adapters_even_v1": "1f0556000ea4e10d82ce3d0ceba42e0340629f771a50ea285f507f8fba8aec1b",
}


def test_the_text_of_a_named_template_never_changes() -> None:
    assert {name: prompt.sha256 for name, prompt in PROMPTS.items()} == GOLDEN


def test_the_math_prompt_has_nothing_after_its_last_heading_but_a_sentence_in_evaluation() -> None:
    prompt = prompt_named("alpaca_v1")
    trained = prompt.for_training("What is 1 + {x}?")
    assert trained.startswith("Below is an instruction that describes a task. Write a response that appropriately ")
    assert trained.endswith("completes the request.\n\n### Instruction:\nWhat is 1 + {x}?\n\n### Response:")
    assert prompt.for_evaluation("What is 1 + {x}?") == trained + " Let's think step by step."
    assert prompt.response("2") == "2"


def test_the_commonsense_prompt_is_indented_and_loses_a_blank_in_evaluation() -> None:
    prompt, indent = prompt_named("llm_adapters_v1"), " " * 16
    sentence, *lines = prompt.for_training("one\n\ntwo").split("\n")
    assert sentence.endswith("the request.  ")
    assert lines == ["", f"{indent}### Instruction:", f"{indent}one", "", "two", "", f"{indent}### Response:", indent]
    assert prompt.for_evaluation("x") == prompt.for_training("x").replace("request.  ", "request. ")


@pytest.mark.parametrize("name", ["alpaca_even_v1", "llm_adapters_even_v1"])
def test_an_even_prompt_asks_what_was_trained(name: str) -> None:
    prompt = prompt_named(name)
    assert prompt.for_evaluation("x") == prompt.for_training("x")


def test_the_even_commonsense_prompt_trains_the_same_text_but_ends_before_the_last_blank() -> None:
    even, published = prompt_named("llm_adapters_even_v1"), prompt_named("llm_adapters_v1")
    assert even.for_training("x") + even.response("y") == published.for_training("x") + published.response("y")
    assert even.response("y") == " y"


def test_an_unknown_template_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"task.prompt=alpaca: no such template; allowed: alpaca_v1, alpaca_even_v1"):
        prompt_named("alpaca")
