"""Tests that do not fit the model are named by their question, without tokenising those that surely fit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lora_xs.data.question_set import Question, QuestionSet
from lora_xs.errors import UserError
from lora_xs.evaluation.generation import PromptTooLong
from lora_xs.evaluation.readings import check_fit


def spec_of(reading: str, **limits: int) -> Any:
    return SimpleNamespace(evaluation=SimpleNamespace(reading=reading, beams=None, max_new_tokens=limits))


def choices_of(*prompts: str, continuations: tuple[str, ...] = (" true", " false")) -> QuestionSet:
    labels = ("true", "false")
    made = tuple(Question(f"boolq/{i}", prompt, "true", labels, continuations) for i, prompt in enumerate(prompts))
    return QuestionSet("boolq", "choice", made, (), {})


class Counted:
    """A tokenizer that remembers what it was asked."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.asked = tokenizer, 0

    def __call__(self, texts: Any) -> Any:
        self.asked += 1
        return self.tokenizer(texts)


def test_a_prompt_without_room_for_its_answer_is_named_and_only_doubtful_ones_are_tokenised(
    tiny_tokenizer: Any, questions: QuestionSet
) -> None:
    counted: Any = Counted(tiny_tokenizer)
    lengths = [len(tiny_tokenizer(question.prompt)["input_ids"]) for question in questions.questions]
    longest = max(range(len(lengths)), key=lambda place: lengths[place])
    spec = spec_of("generation", gsm8k=20)
    with pytest.raises(PromptTooLong, match=rf"{questions.questions[longest].id}: {lengths[longest]} tokens and 20"):
        check_fit(spec, [questions], counted, lengths[longest] + 19)
    check_fit(spec, [questions], counted, lengths[longest] + 20)
    counted.asked = 0
    check_fit(spec, [questions], counted, 2048)
    check_fit(spec, [questions], counted, None)
    assert counted.asked == 0


def test_open_questions_are_generated_even_where_choices_are_compared(
    tiny_tokenizer: Any, questions: QuestionSet
) -> None:
    with pytest.raises(PromptTooLong, match="gsm8k/"):
        check_fit(spec_of("likelihood", gsm8k=20), [choices_of("It is"), questions], tiny_tokenizer, 40)


def test_a_choice_too_long_for_the_model_is_named(tiny_tokenizer: Any) -> None:
    test = choices_of("It is", "apples " * 30)
    tokens = max(len(tiny_tokenizer("apples " * 30 + text)["input_ids"]) for text in (" true", " false"))
    check_fit(spec_of("likelihood"), [test], tiny_tokenizer, tokens)
    with pytest.raises(UserError, match=rf"boolq/1: {tokens} tokens are more than the model's {tokens - 1}"):
        check_fit(spec_of("likelihood"), [test], tiny_tokenizer, tokens - 1)
    check_fit(spec_of("generation", boolq=1), [test], tiny_tokenizer, tokens)


def test_a_test_whose_choices_leave_nothing_to_score_is_named(tiny_tokenizer: Any) -> None:
    with pytest.raises(UserError, match="boolq/0: nothing to score"):
        check_fit(spec_of("both", boolq=4), [choices_of("It is", continuations=("", ""))], tiny_tokenizer, None)
