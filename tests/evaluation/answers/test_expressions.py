"""The small grammar of plain expressions, and equality by values: right, bounded, and without running any code."""

from __future__ import annotations

import pytest

from lora_xs.evaluation.answers.equality import equal
from lora_xs.evaluation.answers.expressions import Unreadable, parse

EQUAL = [
    ("1+2*x", "2*x+1"),
    ("(x-1)*(x+1)", "x**2-1"),
    ("-2**2", "0-4"),
    ("2**3**2", "512"),
    ("2**-1", "1/2"),
    ("x/3/2", "x/6"),
    ("sqrt(8)", "2*sqrt(2)"),
    ("sin(x)**2+cos(x)**2", "1"),
    ("exp(x)*exp(y)", "exp(x+y)"),
    ("E**(I*pi)", "-1"),
    ("5!/4!", "5"),
    ("(x**2-1)/(x-1)", "x+1"),
    ("x**0.5", "sqrt(x)"),
    ("alpha_1+b", "b+alpha_1"),
]
DIFFERENT = [
    ("x", "y"),
    ("x", "abs(x)"),
    ("sqrt(x**2)", "x"),
    ("sqrt(x**2)", "Abs(x)"),
    ("log(x*y)", "log(x)+log(y)"),
    ("x+2**900-2**900", "0"),
    ("1/x", "x"),
    ("1e-90", "0"),
    ("1/0", "1/0"),
    ("I", "1"),
]
UNREADABLE = ["", " ", "2x", "x y", "x^2", "(1,2)", "1,2", "x=1", "x<1", "50%", "\\pi", "\\frac{1}{2}", "()", "(1",
              "1)", "1+", "*1", "f(x)", "sqrt", "sqrt 2", "sqrt()", "N", "lambda", "x.y", "x[0]", "'a'", "1_0", "02",
              "1e999", "1e" + "9" * 50, "(" * 41 + "1" + ")" * 41, "-" * 41 + "1", "1+" * 200 + "1",
              "__import__('os')", "().__class__", "x if x else y", "１", "x\u200b"]  # fmt: skip
UNBOUNDED = ["9**9**9**9", "9**9**9", "(9**9)!", "200!", "exp(exp(exp(9)))", "1/2**(-10**9)", "sinh(2**900)", "2**2000"]


@pytest.mark.parametrize(("left", "right"), EQUAL)
def test_equal_expressions_are_equal(left: str, right: str) -> None:
    assert equal(parse(left), parse(right)) == "equal expressions" == equal(parse(right), parse(left))


@pytest.mark.parametrize(("left", "right"), DIFFERENT)
def test_other_expressions_are_not(left: str, right: str) -> None:
    assert equal(parse(left), parse(right)) is None and equal(parse(right), parse(left)) is None


@pytest.mark.parametrize("text", UNREADABLE)
def test_what_is_no_plain_expression_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        parse(text)


@pytest.mark.parametrize("text", UNBOUNDED)
def test_values_out_of_bounds_are_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        equal(parse(text), parse("1"))


def test_numbers_within_a_thousandth_are_near() -> None:
    assert equal(parse("10.005"), parse("10")) == "expressions within 0.001"
    assert equal(parse("10.02"), parse("10")) is None
    assert equal(parse("10.005*x"), parse("10*x")) is None, "only numbers are"


def test_equality_works_within_another_precision_of_mpmath_and_leaves_it() -> None:
    import mpmath

    with mpmath.workprec(20):
        assert equal(parse("1/3+1/3"), parse("2/3")) == "equal expressions"
        assert mpmath.mp.prec == 20
