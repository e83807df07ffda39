"""Exact numbers in answers, as `strict` reads them."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest

from lora_xs.errors import UserError
from lora_xs.evaluation.answers import score
from lora_xs.evaluation.answers.quantities import read_number

NUMBERS = {
    "18": 18,
    "+18": 18,
    "-18": -18,
    "\u221218": -18,
    "18.50": Fraction(37, 2),
    ".5": Fraction(1, 2),
    "5.": 5,
    "1,234,567.5": Fraction(2469135, 2),
    "1{,}234": 1234,
    "1\\,234": 1234,
    "$1,234": 1234,
    "-$5": -5,
    "$-5": -5,
    "€ 5": 5,
    "5 €": 5,
    "5\\%": 5,
    "5 percent": 5,
    "5 (five)": 5,
    "5\\text{ cm}": 5,
    "5kg": 5,
    "5 dozen eggs": 5,
    "3 times!": 3,
    "4 red or green apples": 4,
    "n = 5": 5,
    "2.5e3": 2500,
    "6/4": Fraction(3, 2),
    "\\dfrac{-6}{4}": Fraction(-3, 2),
    "3/4 cup": Fraction(3, 4),
    "x  =\t $  5  \n apples": 5,
    "0.1": Fraction(1, 10),
}
NOT_NUMBERS = ["", "five", "5 6", "5 + 6", "5-6", "1,23", "12,345,6", "1.2.3", "5/0", "5 m2", "1e9999", "nan", "inf",
               "about 5", "length = 5", "0x10", "1_000", "٥", "5" * 121, "5 thousand", "5 million", "5 squared",
               "5 minus two", "5 plus six", "4 or five", "2 times three", "3 and a half",
               "3 and three quarters", "5!"]  # fmt: skip


@pytest.mark.parametrize("text", NUMBERS)
def test_one_number_is_read_exactly(text: str) -> None:
    assert read_number(text) == NUMBERS[text]


@pytest.mark.parametrize("text", NOT_NUMBERS)
def test_anything_else_is_no_number(text: str) -> None:
    assert read_number(text) is None


def test_blanks_are_not_tried_out_in_every_way() -> None:
    before = time.process_time()
    assert read_number("x=" + " " * 40 + "1" + " " * 75 + "#") is None
    assert time.process_time() - before < 1, "a fraction of a millisecond; trying them out takes three seconds"


def test_numbers_that_are_one_float_are_still_two_numbers() -> None:
    gold = "9007199254740993"
    assert float(gold) == float("9007199254740992")
    assert score("gsm8k", f"The answer is: {gold}", gold)
    assert not score("gsm8k", "The answer is: 9007199254740992", gold)


@pytest.mark.parametrize("scorer", ["strict", "published"])
def test_a_reference_that_is_no_number_is_the_files_mistake(scorer: str) -> None:
    with pytest.raises(UserError, match="reference answer 'ten' is not a number"):
        score("word_problems", "The answer is: 10", "ten", scorer)
