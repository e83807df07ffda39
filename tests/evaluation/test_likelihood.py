"""Log-likelihoods of choices are those of a plain pass over each whole text, however questions are batched."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model

from lora_xs import LoraXsConfig
from lora_xs.data.question_set import Question, QuestionSet
from lora_xs.errors import UserError
from lora_xs.evaluation.generation.store import header_of
from lora_xs.evaluation.likelihood import ChoiceScores, choice_log_likelihoods
from lora_xs.evaluation.likelihood_file import read_likelihoods, write_likelihoods

LAST_TOKEN = [  # the choices differ in their last token only
    (
        "How many apples are left?\n\n### Response:",
        (" the correct answer is answer1", " the correct answer is answer2"),
    ),
    ("There were 12. " * 6, ("the correct answer is answer1", "the correct answer is answer2")),
]
ANYWHERE = [
    ("x =", (" true", " false, and more than that", " 5", " 57")),
    ("How many apples are left? There were 12 and 5 were eaten.", (" 7", " 12 - 5 = 7.", " 12 - 5 = 8.")),
    ("one", (" and only",)),
]
JOINED = [  # the prompt's last blank and the continuation's first word are one token
    ("There were ", ("12 and 5 were eaten", "5 were eaten")),
    ("How many apples are left? There were ", ("12 apples", "1 apple", "12 - 5 apples")),
]


def asked(*rows: tuple[str, tuple[str, ...]]) -> QuestionSet:
    made = tuple(
        Question(f"q/{place}", prompt, "a0", tuple(f"a{i}" for i in range(len(texts))), texts)
        for place, (prompt, texts) in enumerate(rows)
    )
    return QuestionSet("boolq", "choice", made, (), {})


@torch.inference_mode()
def plainly(model: Any, tokenizer: Any, prompt: str, continuation: str) -> tuple[float, int]:
    """One text, no cache, no padding: the sum over what follows the prompt's own number of tokens, and their count."""
    ids = tokenizer(prompt + continuation)["input_ids"]
    start = len(tokenizer(prompt)["input_ids"])
    log_p = model(torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)
    return sum(float(log_p[place - 1, ids[place]]) for place in range(start, len(ids))), len(ids) - start


def check(model: Any, tokenizer: Any, questions: QuestionSet, found: list[ChoiceScores]) -> None:
    for question, scores in zip(questions.questions, found, strict=True):
        expected = [plainly(model, tokenizer, question.prompt, text) for text in question.continuations]
        assert (scores.id, scores.gold, scores.choices) == (question.id, question.gold, question.choices)
        assert scores.log_likelihoods == pytest.approx([value for value, _ in expected], abs=1e-5, rel=0)
        assert scores.tokens == tuple(count for _, count in expected)


@pytest.mark.parametrize("rows", [LAST_TOKEN, ANYWHERE, JOINED, LAST_TOKEN + ANYWHERE + JOINED])
@pytest.mark.parametrize("tokens_at_once", [16384, 200, 1])
def test_batches_equal_one_text_at_a_time(
    tiny_decoder: Any, tiny_tokenizer: Any, rows: list[tuple[str, tuple[str, ...]]], tokens_at_once: int
) -> None:
    questions = asked(*rows)
    found = choice_log_likelihoods(tiny_decoder, tiny_tokenizer, questions, tokens_at_once=tokens_at_once)
    check(tiny_decoder, tiny_tokenizer, questions, found)


def test_sliding_windows_make_no_difference(sliding_decoder: Any, tiny_tokenizer: Any) -> None:
    questions = asked(*LAST_TOKEN, *ANYWHERE, *JOINED)
    check(
        sliding_decoder, tiny_tokenizer, questions, choice_log_likelihoods(sliding_decoder, tiny_tokenizer, questions)
    )


def test_the_joined_prompts_are_joined_by_this_tokenizer(tiny_tokenizer: Any) -> None:
    for prompt, texts in JOINED:
        alone = tiny_tokenizer(prompt)["input_ids"]
        assert any(tiny_tokenizer(prompt + text)["input_ids"][: len(alone)] != alone for text in texts)


def test_choices_that_differ_in_their_last_token_take_one_pass_over_the_prompts(
    tiny_decoder: Any, tiny_tokenizer: Any
) -> None:
    questions = asked(*LAST_TOKEN)
    for text in [text for question in questions.questions for text in question.continuations]:
        assert len(tiny_tokenizer(text[:-1])["input_ids"]) < len(tiny_tokenizer(text)["input_ids"])
    seen = []
    handle = tiny_decoder.model.embed_tokens.register_forward_hook(lambda _, __, output: seen.append(output.shape[0]))
    choice_log_likelihoods(tiny_decoder, tiny_tokenizer, questions)
    handle.remove()
    assert seen == [2]


def test_logits_are_made_only_where_something_is_scored(tiny_decoder: Any, tiny_tokenizer: Any) -> None:
    questions = asked(*LAST_TOKEN, *ANYWHERE)
    seen = []
    handle = tiny_decoder.lm_head.register_forward_hook(lambda _, __, output: seen.append(output.shape[1]))
    choice_log_likelihoods(tiny_decoder, tiny_tokenizer, questions)
    handle.remove()
    longest = max(
        len(tiny_tokenizer(text)["input_ids"]) for question in questions.questions for text in question.continuations
    )
    assert sum(seen) <= 2 * longest


def test_an_adapter_counts_unmerged_and_merged_and_training_mode_does_not(
    tiny_decoder: Any, tiny_tokenizer: Any
) -> None:
    questions = asked(*LAST_TOKEN, *ANYWHERE)
    adapted = get_peft_model(
        copy.deepcopy(tiny_decoder),
        LoraXsConfig(r=4, target_modules=["q_proj", "up_proj"], lora_dropout=0.5, task_type="CAUSAL_LM"),
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_R" in name:
                parameter.add_(0.2 * torch.eye(4))
    adapted.train()
    unmerged = choice_log_likelihoods(adapted, tiny_tokenizer, questions)
    assert adapted.training
    check(adapted.eval(), tiny_tokenizer, questions, unmerged)
    assert unmerged != choice_log_likelihoods(tiny_decoder, tiny_tokenizer, questions)
    merged = adapted.merge_and_unload()
    check(merged, tiny_tokenizer, questions, choice_log_likelihoods(merged, tiny_tokenizer, questions))


def test_the_best_choice_by_sum_and_by_token_may_differ() -> None:
    scores = ChoiceScores("q/0", "a", ("a", "b", "c"), (-2.0, -3.0, -2.0), (1, 4, 1))
    assert (scores.best, scores.best_per_token) == ("a", "b")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_where_a_likelihood_is_not_finite_no_choice_is_the_best(value: float) -> None:
    scores = ChoiceScores("q/0", "a", ("a", "b"), (value, -1.0), (1, 1))
    assert scores.best is None and scores.best_per_token is None and not scores.finite


def test_likelihoods_are_kept_whole_and_read_for_the_same_questions_alone(tmp_path: Path) -> None:
    file, header = tmp_path / "likelihoods" / "boolq.jsonl", header_of(asked(*LAST_TOKEN), None, {"signature": "s"})
    scores = [
        ChoiceScores("q/0", "a0", ("a0", "a1"), (-0.1 / 3, -7.0), (2, 3)),
        ChoiceScores("q/1", "a0", ("a0", "a1"), (math.nan, -math.inf), (1, 1)),
    ]
    assert read_likelihoods(file, header) is None
    write_likelihoods(file, header, scores)
    assert json.loads(file.read_text().splitlines()[2])["log_likelihoods"] == [None, None]
    read = read_likelihoods(file, header)
    assert read is not None and read[0] == scores[0] and not read[1].finite and read[1].id == "q/1"
    for other in (
        header_of(asked(*LAST_TOKEN), None, {"signature": "t"}),
        header_of(asked(LAST_TOKEN[1], LAST_TOKEN[0]), None, {"signature": "s"}),
    ):
        assert read_likelihoods(file, other) is None
    for damage in (b"", b"{", b"[]\n", file.read_bytes()[:-9], file.read_bytes().rpartition(b'{"ch')[0]):
        file.write_bytes(damage)
        assert read_likelihoods(file, header) is None


def test_progress_reaches_the_number_of_questions(tiny_decoder: Any, tiny_tokenizer: Any) -> None:
    told: list[tuple[int, int]] = []
    questions = asked(*LAST_TOKEN, *ANYWHERE)
    choice_log_likelihoods(
        tiny_decoder, tiny_tokenizer, questions, tokens_at_once=1, progress=lambda *seen: told.append(seen)
    )
    assert told == [(count, 5) for count in range(1, 6)]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("How many?", ()), "no choices"),
        (("How many?", (" 1", "")), "nothing to score"),
        (("", (" 1", " 2")), "nothing to score"),
        (("apples " * 200, (" 1", " 2")), "more than the model's 256"),
    ],
)
def test_a_question_that_cannot_be_scored_is_named(
    tiny_decoder: Any, tiny_tokenizer: Any, row: tuple[str, tuple[str, ...]], said: str
) -> None:
    with pytest.raises(UserError, match=rf"q/1: .*{said}"):
        choice_log_likelihoods(tiny_decoder, tiny_tokenizer, asked(LAST_TOKEN[0], row))
