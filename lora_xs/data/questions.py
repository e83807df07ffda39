"""Every test by its name; a request's source and folder hold for tests too, its revision is the training set's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lora_xs.data.choice_tests import CHOICE_TESTS, load_choice_test
from lora_xs.data.math_tests import load_gsm8k, load_math
from lora_xs.data.question_set import QuestionSet
from lora_xs.data.sources import Request
from lora_xs.data.word_problems import load_word_problem_test

__all__ = ["TESTS", "QuestionSet"]

TESTS: dict[str, Callable[[Request], QuestionSet]] = {
    "gsm8k": load_gsm8k,
    "math": partial(load_math, name="math"),
    "math500": partial(load_math, name="math500"),
    **{name: partial(load_choice_test, name) for name in CHOICE_TESTS},
    "word_problems": load_word_problem_test,
}
