"""Arithmetic word problems made here: rows to train on and questions to ask on a machine that has nothing else.

Everything follows from SHA-256 of the seed and a running number, so every platform makes the same texts. Whether a
problem is trained on or asked follows from its template and numbers alone: the test shares no text with the training
rows, whatever names and things stand in them, and with the seed in use no whole calculation either, though two
templates calculate alike; single lines of one (3 * 10 = 30) it does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Literal

from lora_xs.data.instruction import InstructionRows, render_rows
from lora_xs.data.math_tests import STOP
from lora_xs.data.metamath import PROMPT
from lora_xs.data.prompts import prompt_named
from lora_xs.data.question_set import Question, QuestionSet, build_set
from lora_xs.data.sources import Request
from lora_xs.data.word_problem_templates import NAMES, TEMPLATES, THINGS, Template, calculate
from lora_xs.errors import UserError

VERSION = 1  # of the texts; a change of templates, words or drawing must raise it
SEED = 0
TRAIN_ROWS, TEST_ROWS = 4000, 200
ONE_IN = 10  # problems that are for the test
ORIGIN = {"source": "generated", "generator": VERSION, "seed": SEED}


@dataclass(frozen=True)
class WordProblem:
    """A question, its worked answer (a line a step, then `The answer is: N`) and the whole number N."""

    template: str
    numbers: tuple[tuple[str, int], ...]
    question: str
    response: str
    answer: int


def load_word_problems(request: Request) -> InstructionRows:
    """4,000 problems to train on. Raises UserError where another source than the generator is asked for."""
    if request.source != "auto":
        raise UserError(f"data.source={request.source}: task {request.task} is made here; leave data.source out")
    pairs = [(problem.question, problem.response) for problem in problems("train", TRAIN_ROWS)]
    return render_rows(pairs, request.prompt or PROMPT, ORIGIN)


def load_word_problem_test(request: Request) -> QuestionSet:
    """200 problems to ask, none of them among the training rows."""
    prompt = request.prompt or PROMPT
    template = prompt_named(prompt)
    questions = [
        Question(f"word_problems/{number}", template.for_evaluation(problem.question), str(problem.answer))
        for number, problem in enumerate(problems("test", TEST_ROWS))
    ]
    return build_set("word_problems", "gsm8k", questions, STOP, (prompt, template), ORIGIN)


def problems(split: Literal["train", "test"], n: int, seed: int = SEED) -> list[WordProblem]:
    """The first `n` problems of a split, no text twice."""
    return list(islice(_split(split, seed), n))


def _split(split: Literal["train", "test"], seed: int) -> Iterator[WordProblem]:
    seen: set[str] = set()
    for number in count():
        problem = _make(TEMPLATES[number % len(TEMPLATES)], f"{seed}:{number}")
        asked = _hash(f"{problem.template}:{problem.numbers}") % ONE_IN == 0
        if asked == (split == "test") and problem.question not in seen:
            seen.add(problem.question)
            yield problem


def _make(template: Template, draw: str) -> WordProblem:
    numbers = {name: low + _hash(f"{draw}:{name}") % (high - low + 1) for name, (low, high) in template.numbers.items()}
    first = _hash(f"{draw}:name") % len(NAMES)
    second = (first + 1 + _hash(f"{draw}:other") % (len(NAMES) - 1)) % len(NAMES)  # never the first
    words = {"name": NAMES[first], "other": NAMES[second], "things": THINGS[_hash(f"{draw}:things") % len(THINGS)]}
    values = dict(numbers)
    calculate(template.given, values)
    question = template.question.format(**values, **words)
    lines = calculate(template.steps, values)
    answer = values[template.steps[-1].result]
    response = "\n".join([*lines, f"The answer is: {answer}"])
    return WordProblem(template.name, tuple(sorted(numbers.items())), question, response, answer)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
