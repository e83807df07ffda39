"""Plain expressions (`2*x + sqrt(3)/2`) out of a model's text: a small grammar, and nothing is ever run as code.

    sum     := product (("+" | "-") product)*
    product := signed (("*" | "/") signed)*
    signed  := ("+" | "-") signed | power
    power   := postfix ("**" signed)?
    postfix := atom "!"*
    atom    := number | name | function "(" sum ")" | "(" sum ")"

The published scorer reads Python's syntax, where LaTeX, `2x`, `x = 5`, tuples and `50%` are no expressions, and `^` is
no power: they are none here either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 300  # characters
DEEPEST = 40  # nested parentheses, signs, powers
LARGEST = 100  # decimal exponent of a literal

FUNCTIONS = frozenset(
    ("sqrt", "cbrt", "exp", "log", "ln", "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "sinh",
     "cosh", "tanh", "abs", "Abs", "factorial", "floor", "ceiling")
)  # fmt: skip
CONSTANTS = frozenset(("pi", "E", "I"))
# Names that mean something else to the published scorer's parser and cannot be subtracted there.
OTHERS = frozenset(
    ("N", "S", "Q", "O", "beta", "gamma", "zeta", "Chi", "Si", "Ci", "Li", "li", "lambda", "True", "False", "None",
     "and", "or", "not", "in", "is", "if", "else")
)  # fmt: skip

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<sign>\*\*|[-+*/!()]))",
    re.ASCII,
)


class Unreadable(ValueError):
    """A text that is no plain expression, or one beyond the bounds; the message is a short reason."""


@dataclass(frozen=True)
class Expression:
    """A node: `what` is a Fraction, a name (symbol or constant, no `parts`), an operator or a function of `parts`."""

    what: Fraction | str
    parts: tuple[Expression, ...] = ()

    @property
    def symbols(self) -> frozenset[str]:
        """Names of the unknowns in it."""
        if isinstance(self.what, str) and not self.parts:
            return frozenset(() if self.what in CONSTANTS else (self.what,))
        return frozenset().union(*(part.symbols for part in self.parts))


def parse(text: str) -> Expression:
    """The expression that the whole of `text` is. Raises Unreadable, after work bounded by LONGEST."""
    if len(text) > LONGEST:
        raise Unreadable(f"longer than {LONGEST} characters")
    parser = _Parser(_tokens(text))
    expression = parser.sum()
    if parser.position < len(parser.tokens):
        raise Unreadable(f"{parser.next!r} is out of place")
    return expression


def _tokens(text: str) -> list[str]:
    tokens, position, text = [], 0, text.rstrip()
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found:
            raise Unreadable(f"{text[position:].strip()[:1]!r} is not of a plain expression")
        tokens.append(found[0].strip())
        position = found.end()
    return tokens


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.position, self.depth = tokens, 0, 0

    @property
    def next(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        token = self.next
        self.position += 1
        return token

    def sum(self) -> Expression:
        left = self.product()
        while self.next in ("+", "-"):
            left = Expression(self.take(), (left, self.product()))
        return left

    def product(self) -> Expression:
        left = self.signed()
        while self.next in ("*", "/"):
            left = Expression(self.take(), (left, self.signed()))
        return left

    def signed(self) -> Expression:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable(f"nested deeper than {DEEPEST}")
        if self.next in ("+", "-"):
            sign = self.take()
            inner = self.signed()
            expression = inner if sign == "+" else Expression("-", (Expression(Fraction(0)), inner))
        else:
            expression = self.power()
        self.depth -= 1
        return expression

    def power(self) -> Expression:
        base = self.postfix()
        if self.next == "**":
            self.take()
            return Expression("**", (base, self.signed()))
        return base

    def postfix(self) -> Expression:
        inner = self.atom()
        while self.next == "!":
            self.take()
            inner = Expression("factorial", (inner,))
        return inner

    def atom(self) -> Expression:
        token = self.take()
        if token == "(":
            return self.close(self.sum())
        if token[:1].isdigit() or token[:1] == ".":
            return Expression(_number(token))
        if not token or not (token[0].isalpha() or token[0] == "_"):
            raise Unreadable(f"{token!r} is out of place" if token else "it ends too soon")
        if self.next == "(" or token in FUNCTIONS or token in OTHERS:
            if token not in FUNCTIONS or self.take() != "(":
                raise Unreadable(f"{token!r} is not a function here")
            return Expression(token, (self.close(self.sum()),))
        return Expression(token)

    def close(self, inner: Expression) -> Expression:
        if self.take() != ")":
            raise Unreadable("a parenthesis does not close")
        return inner


def _number(token: str) -> Fraction:
    if token.isdigit() and token[0] == "0" and token.strip("0"):
        raise Unreadable("an integer with a leading zero")
    exponent = token.lower().partition("e")[2]
    if len(exponent) > 5 or abs(int(exponent or 0)) > LARGEST:
        raise Unreadable(f"an exponent beyond {LARGEST}")
    return Fraction(token)
