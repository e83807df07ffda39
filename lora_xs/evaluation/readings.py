"""How each test is read, and whether it fits the model: asked before training, the engines would say it hours later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lora_xs.evaluation.generation.decoding import Decoding, PromptTooLong, check_room

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lora_xs.data.question_set import QuestionSet
    from lora_xs.spec import RunSpec

ADDED = 8  # tokens that a tokenizer may put around a text


def reads_likelihoods(spec: RunSpec, test: QuestionSet) -> bool:
    """Whether the test's choices are compared by their likelihood."""
    return spec.evaluation.reading in ("likelihood", "both") and test.family == "choice"


def reads_completions(spec: RunSpec, test: QuestionSet) -> bool:
    """Whether the test is answered by generating."""
    return spec.evaluation.reading in ("generation", "both") or test.family != "choice"


def decoding_of(spec: RunSpec, test: QuestionSet) -> Decoding:
    """How the test's completions are made."""
    return Decoding(spec.evaluation.max_new_tokens[test.name], spec.evaluation.beams or 1, test.stop)


def check_fit(
    spec: RunSpec, tests: Sequence[QuestionSet], tokenizer: PreTrainedTokenizerBase, context: int | None
) -> None:
    """Raise UserError, naming the question, for one that the model has no room for, or that cannot be scored.

    context: the model's positions, None where unknown. Only what might not fit is tokenised, and the first question of
    each test: within a second for all of the papers' tests, where tokenising them takes minutes.
    """
    for test in tests:
        if reads_completions(spec, test):
            _check_completions(test, decoding_of(spec, test), tokenizer, context)
        if reads_likelihoods(spec, test):
            _check_likelihoods(test, tokenizer, context)


def _check_completions(
    test: QuestionSet, decoding: Decoding, tokenizer: PreTrainedTokenizerBase, context: int | None
) -> None:
    for question in test.questions:
        if _may_exceed(question.prompt, context, decoding.max_new_tokens):
            try:
                check_room([len(tokenizer(question.prompt)["input_ids"])], decoding, context)
            except PromptTooLong as error:
                raise error.named(question.id) from None


def _check_likelihoods(test: QuestionSet, tokenizer: PreTrainedTokenizerBase, context: int | None) -> None:
    from lora_xs.evaluation.likelihood import check_question

    for place, question in enumerate(test.questions):
        texts = (question.prompt + continuation for continuation in question.continuations)
        # the first stands for all: what a prompt's template does to a tokenizer, it does in every question
        if place == 0 or any(_may_exceed(text, context, 0) for text in texts):
            check_question(tokenizer, question, context)


def _may_exceed(text: str, context: int | None, new: int) -> bool:
    """Whether `text` and `new` tokens could be more than `context`, no token being less than a byte of text."""
    return context is not None and len(text.encode()) + ADDED + new > context
