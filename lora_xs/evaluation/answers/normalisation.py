r"""MATH's answers in one spelling: the steps of the published normalisation, in its order, made to fail on no text.

The published code raises on some texts (`published_raises`); a scorer that uses these steps does not. Where it would
build something meaningless out of unusual but valid LaTeX (`\frac\pi2`, `\sqrt \pi`), the steps here build what was
meant, on both sides of a comparison alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Step = tuple[str, Callable[[str], str]]

_ARGUMENT = r"(?:[^\s\\{}\[]|\\[A-Za-z]+)"  # a bare argument: one character or one command
_ROOT = re.compile(rf"\\sqrt\s*({_ARGUMENT})")
_TRAILING_UNIT = re.compile(r"\\text\{ [^{}]*\}\s*$")
_RATIO = re.compile(r"(-?(?:0|[1-9]\d*))/(-?(?:0|[1-9]\d*))", re.ASCII)


def normalise(text: str, published: bool = False) -> str:
    r"""`text` after every step. With `published`, units and left sides are cut as the papers' code cuts them."""
    for _, step in STEPS:
        text = (PUBLISHED.get(step, step) if published else step)(text)
    return text


def drop_unit(text: str) -> str:
    r"""Without a trailing `\text{ unit}`: the space inside tells a unit from a word that is the answer."""
    return _TRAILING_UNIT.sub("", text)


def cut_units(text: str) -> str:
    r"""Without all that follows the only `\text{ `, be it at the end or not: `5\text{ and }7` becomes `5`."""
    before, unit, after = text.partition("\\text{ ")
    return before if unit and "\\text{ " not in after else drop_unit(text)


def lead_with_zero(text: str) -> str:
    """`.5` as `0.5`, at the start, after a space and after an opening brace."""
    text = text.replace(" .", " 0.").replace("{.", "{0.")
    return "0" + text if text.startswith(".") else text


def value_of_a_name(text: str) -> str:
    """Of one equation the right side, where the left is a name of at most two characters, blanks counted: `x = 5`, but
    not `x ≤ 5`."""
    return right_side(text) if text.partition("=")[0].strip().isalpha() else text


def right_side(text: str) -> str:
    """Of one equation the right side, where the left has at most two characters, whichever they are: `x<=5` is 5."""
    left, equals, right = text.partition("=")
    return right if equals and len(left) <= 2 and "=" not in right else text


def brace_roots(text: str) -> str:
    r"""`\sqrt3` as `\sqrt{3}`."""
    return _ROOT.sub(r"\\sqrt{\1}", text)


def brace_fractions(text: str) -> str:
    r"""`\frac12`, `\frac1{72}` and `\frac{72}1` with both arguments in braces."""
    head, *pieces = text.split("\\frac")
    return head + "".join("\\frac" + _braced_pair(piece) for piece in pieces)


def half(text: str) -> str:
    r"""The decimal `0.5`, alone, as `\frac{1}{2}`: the only decimal that counts as its fraction."""
    return "\\frac{1}{2}" if text == "0.5" else text


def ratio(text: str) -> str:
    r"""`a/b` of two integers, alone, as `\frac{a}{b}`."""
    found = _RATIO.fullmatch(text)
    return f"\\frac{{{found[1]}}}{{{found[2]}}}" if found else text


def _without(*parts: str) -> Callable[[str], str]:
    def drop(text: str) -> str:
        for part in parts:
            text = text.replace(part, "")
        return text

    return drop


def _braced_pair(piece: str) -> str:
    """What follows a fraction's command, its first two arguments in braces; unchanged where there are not two."""
    arguments: list[str] = []
    rest = piece
    while len(arguments) < 2:
        rest = rest.lstrip()
        bare = re.match(_ARGUMENT, rest)
        end = bare.end() if bare else _closing(rest)
        if not end:
            return piece
        arguments.append(f"{{{rest[:end]}}}" if bare else rest[:end])
        rest = rest[end:]
    return "".join(arguments) + rest


def _closing(text: str) -> int:
    """Where the brace that opens `text` has closed (the index after it); 0 where none opens or it never closes."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth <= 0:
            return index + 1 if character == "}" and index else 0
    return 0


STEPS: tuple[Step, ...] = (
    ("drop line breaks", _without("\n")),
    ("drop negative spaces", _without("\\!")),
    ("two backslashes are one", lambda text: text.replace("\\\\", "\\")),
    ("one kind of fraction", lambda text: text.replace("tfrac", "frac").replace("dfrac", "frac")),
    ("drop \\left and \\right", _without("\\left", "\\right")),
    ("drop degrees", _without("^{\\circ}", "^\\circ")),
    ("drop dollars", _without("\\$")),
    ("drop a unit", drop_unit),
    ("drop percent", _without("\\%")),
    ("lead with a zero", lead_with_zero),
    ("right side of x =", value_of_a_name),
    ("brace roots", brace_roots),
    ("brace fractions", brace_fractions),
    ("drop spaces", _without(" ")),
    ("0.5 is a half", half),
    ("a/b is a fraction", ratio),
)


PUBLISHED: dict[Callable[[str], str], Callable[[str], str]] = {drop_unit: cut_units, value_of_a_name: right_side}
"""Steps that the papers' code does otherwise."""


def published_raises(text: str) -> bool:
    r"""Whether the published normalisation raises on `text`, whereupon its scorer compares a prediction with itself.

    It does for: more than one `\text{ `; a `\sqrt` or `\frac` with nothing after it, or another of its kind at once;
    exactly one `/` without an integer on either side (`x/2`).
    """
    for _, step in STEPS[:7]:
        text = step(text)
    units = text.count("\\text{ ")
    if units > 1:
        return True
    text = right_side(lead_with_zero(_without("\\%")(cut_units(text) if units else text)))
    if "" in text.split("\\sqrt")[1:]:
        return True
    text = re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", text).replace(" ", "")  # of `\sqrt\frac` no command is left
    for piece in text.split("\\frac")[1:]:
        if not piece:
            return True
        if len(piece) < 2 and piece != "{":
            break  # given up there, before it looks at what follows
    sides = text.split("/")
    return len(sides) == 2 and not all(map(_is_integer, sides))


def _is_integer(text: str) -> bool:
    try:
        int(text)  # as the published code asks: also `+1`, `007`, and an error above Python's limit of digits
    except ValueError:
        return False
    return True
