"""Questions to ask a trained model: rendered prompts with what counts as right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, Literal

from lora_xs.data.prompts import Prompt
from lora_xs.data.subsets import drawn_rows
from lora_xs.errors import UserError


@dataclass(frozen=True)
class Question:
    """`id`: the test's name and the row's number in its file, from 0. `gold`: what a scorer compares an answer with.

    `choices` are the labels the question offers, () for an open answer; `continuations` the response that training
    would render for each, such that `prompt + continuation` is the whole text.
    """

    id: str
    prompt: str
    gold: str
    choices: tuple[str, ...] = ()
    continuations: tuple[str, ...] = ()


@dataclass(frozen=True)
class QuestionSet:
    """A test. `stop` are the strings that end a completion. `identity` is JSON-able: `source`, `repo` and `revision`,
    `files` (name → sha256), `prompt` and `prompt_sha256`, `rows` and `content` (hash of all questions in order)."""

    name: str
    family: Literal["gsm8k", "math", "choice"]
    questions: tuple[Question, ...]
    stop: tuple[str, ...]
    identity: dict[str, Any]

    def limited(self, rows: int | None) -> QuestionSet:
        """`rows` of the questions in their old order, the same for every run: by the sha256 of `"test:<index>"`.

        None, or more than there are: all of them. Raises UserError for a number below 1.
        """
        if rows is None or rows >= len(self.questions):
            return self
        if rows < 1:
            raise UserError(f"task.test_rows={rows}: at least 1 is needed, or none given for all questions")
        chosen = tuple(self.questions[index] for index in drawn_rows("test", len(self.questions), rows))
        return replace(self, questions=chosen, identity={**self.identity, **_describe(chosen)})


def build_set(
    name: str,
    family: Literal["gsm8k", "math", "choice"],
    questions: Sequence[Question],
    stop: tuple[str, ...],
    prompt: tuple[str, Prompt],
    origin: dict[str, Any],
) -> QuestionSet:
    """A QuestionSet with its identity; `prompt` is the template's name and the template."""
    named = {"prompt": prompt[0], "prompt_sha256": prompt[1].sha256}
    return QuestionSet(name, family, tuple(questions), stop, {**origin, **named, **_describe(tuple(questions))})


def _describe(questions: tuple[Question, ...]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for question in questions:
        digest.update(json.dumps(astuple(question)).encode() + b"\n")
    return {"rows": len(questions), "content": digest.hexdigest()}
