"""Each step of MATH's normalisation, their order, and the texts on which the published one raises."""

from __future__ import annotations

import random

import pytest

from lora_xs.evaluation.answers.normalisation import STEPS, cut_units, normalise, published_raises

EXAMPLES = {  # a step's name: (before, after it)
    "drop line breaks": ("1\n2", "12"),
    "drop negative spaces": ("1,\\!234", "1,234"),
    "two backslashes are one": ("\\\\pi", "\\pi"),
    "one kind of fraction": ("\\tfrac12+\\dfrac13", "\\frac12+\\frac13"),
    "drop \\left and \\right": ("\\left(1\\right)", "(1)"),
    "drop degrees": ("90^\\circ+1^{\\circ}", "90+1"),
    "drop dollars": ("\\$5", "5"),
    "drop a unit": ("5\\text{ cm}", "5"),
    "drop percent": ("5\\%", "5"),
    "lead with a zero": (".5+{.5} .5", "0.5+{0.5} 0.5"),
    "right side of x =": ("x = 5", " 5"),
    "brace roots": ("\\sqrt3+\\sqrt{5}+\\sqrt\\pi", "\\sqrt{3}+\\sqrt{5}+\\sqrt{\\pi}"),
    "brace fractions": ("\\frac12+\\frac1{72}+\\frac{72}1", "\\frac{1}{2}+\\frac{1}{72}+\\frac{72}{1}"),
    "drop spaces": ("1 + 2", "1+2"),
    "0.5 is a half": ("0.5", "\\frac{1}{2}"),
    "a/b is a fraction": ("-3/4", "\\frac{-3}{4}"),
}
UNCHANGED = {
    "drop a unit": ["5\\text{cm}", "5\\text{ and }7", "\\text{east}"],
    "lead with a zero": ["1.5", "(.5)"],
    "right side of x =": ["xyz=5", "a=b=5", "5", "x<=5", ">=5", "x!=5", "x:=5", "-x=5"],
    "brace roots": ["\\sqrt", "\\sqrt[3]{2}", "\\sqrt{3}"],
    "brace fractions": ["\\frac", "\\frac1", "\\frac{1}", "\\frac{1", "\\frac{}}{", "\\frac{1}{2}"],
    "0.5 is a half": ["10.5", "0.50"],
    "a/b is a fraction": ["x/2", "1/2/3", "01/2", "+1/2", "1.5/2"],
}


def test_the_steps_are_the_protocols_in_its_order() -> None:
    assert [name for name, _ in STEPS] == list(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_step_does_what_its_name_says_and_no_more(name: str) -> None:
    before, after = EXAMPLES[name]
    step = dict(STEPS)[name]
    assert step(before) == after
    assert all(step(text) == text for text in UNCHANGED.get(name, []))


def test_the_steps_together_bring_spellings_to_one() -> None:
    half = ["\\frac{1}{2}", "\\dfrac12", " 1/2", ".5", "x=0.5", "\\frac 1 2", "0.5\\text{ m}", "\\left\\frac12"]
    assert {normalise(text) for text in half} == {"\\frac{1}{2}"}


def test_published_units_are_cut_wherever_they_stand() -> None:
    assert cut_units("5\\text{ and }7") == "5"
    assert cut_units("5\\text{ m}\\text{ s}") == "5\\text{ m}"
    assert normalise("5\\text{ and }7") != normalise("5\\text{ and }7", published=True) == "5"
    assert normalise("x<=5") == "x<=5" and normalise("x<=5", published=True) == "5"


RAISES = ["x/2", "1.5/2", "/", "1/", "\\frac{x}{2}/3", "\\sqrt", "2\\sqrt", "\\sqrt\\sqrt3", "\\frac", "1+\\frac ",
          "\\frac\\frac12", "1\\text{ m}\\text{ s}", "\\sqrt3/x", "1/" + "9" * 5000, "\\text{m/s}"]  # fmt: skip
PASSES = ["", "1/2", "01/2", "+1/2", "1/2/3", "\\sqrt 3", "\\sqrt{}", "\\frac1", "\\frac{", "\\frac1\\frac",
          "5\\text{ m}", "x=", "{", "\\sqrt\\frac", "\\text{ x/2}/"]  # fmt: skip


def test_it_is_known_on_what_the_published_code_raises() -> None:
    assert [text for text in RAISES if not published_raises(text)] == []
    assert [text for text in PASSES if published_raises(text)] == []


def test_no_text_makes_our_steps_raise_and_a_second_pass_of_a_plain_answer_changes_nothing() -> None:
    chance = random.Random(0)
    parts = ["\\frac", "\\sqrt", "{", "}", "\\text{ ", "/", "=", " ", ".", "1", "x", "\\", "\n", "[", "\\left"]
    for _ in range(5000):
        normalise("".join(chance.choices(parts, k=chance.randint(0, 12))), published=chance.random() < 0.5)
    for text in ["\\frac{1}{2}", "x+1", "(1,2)", "\\sqrt{3}"]:
        assert normalise(normalise(text)) == normalise(text)
