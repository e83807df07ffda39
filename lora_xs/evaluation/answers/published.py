r"""What the papers' scorers accept.

Numbers (GSM8K): of the text after the last marker the first number (one separator at most: `1,234,567` is read as 1234,
`a/b` as a fraction, `a/0` as a), rounded half to even to an integer, then as below.

Everything: two numbers are equal within a relative 1e-4, also where one is the other's hundredth (gold × 100, gold ÷
100). Otherwise, after MATH's normalisation: the same text without `{}()` (and the ends' `[]`, where the other's bracket
is not of the other kind), element by element where both are `[…]` or both `(…)`, or equal as plain expressions (there
numbers within 1e-3). LaTeX was not parsed in their environment, so `0.75` is not `\frac{3}{4}`.

Not accepted, though they do: any prediction for which the normalisation raises, which they compare with itself;
`scores.py` counts those rows.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from lora_xs.evaluation.answers import equality
from lora_xs.evaluation.answers.expressions import Unreadable, parse
from lora_xs.evaluation.answers.extraction import LONGEST, after_marker, published_text
from lora_xs.evaluation.answers.families import Verdict
from lora_xs.evaluation.answers.normalisation import normalise
from lora_xs.evaluation.answers.quantities import reference_number

TOLERANCE = 1e-4
MOST_DIGITS = 400  # of a number; a longer one is infinite as the scorers' double, or an error there
DEEPEST = 5  # lists in lists

_FIRST_NUMBER = re.compile(r"[-+]?\d*[.,/]?\d+")
_BRACKETS = {"[": "]", "(": ")"}


def judge_number(completion: str, gold: str) -> Verdict:
    """Whether the first number after the marker, rounded, is the gold one. Raises UserError for a bad gold."""
    expected = float(reference_number(gold))
    rest = after_marker(completion)
    found = _FIRST_NUMBER.search(rest or "")
    if rest is None or not found:
        return Verdict(False, None, "no marker with an answer" if rest is None else "no number after the marker")
    value = _rounded(found[0])
    if value is None:
        return Verdict(False, found[0][:LONGEST], "a number that cannot be read")
    how = _close(float(value), expected)
    why = how or f"not {gold}"
    return Verdict(how is not None, found[0], why if found[0] == str(value) else f"read as {float(value):.12g}, {why}")


def judge_expression(completion: str, gold: str) -> Verdict:
    """Whether the answer's text is accepted for `gold`."""
    text = published_text(completion)
    if text is None:
        return Verdict(False, None, "no marker with an answer")
    if len(text) > LONGEST:
        return Verdict(False, text[:LONGEST], f"longer than {LONGEST} characters")
    text_now, gold_now = normalise(text, published=True), normalise(gold, published=True)
    how = "the same text" if text_now == gold_now else _accepted(text_now, gold_now)
    return Verdict(how is not None, text, how or "not equal")


def _rounded(text: str) -> int | None:
    top, slash, bottom = text.replace(",", "").partition("/")
    if len(text) > MOST_DIGITS or (slash and not top.strip("+-")):
        return None
    try:
        value = float(Fraction(int(top), int(bottom) or 1)) if slash else float(top)
    except OverflowError:  # a fraction above every double; a plain number that long is infinite instead
        return None
    return round(value) if math.isfinite(value) else None


def _close(value: float, gold: float) -> str | None:
    for scaled, how in ((gold, "equal numbers"), (gold / 100, "a hundredth of gold"), (gold * 100, "100 times gold")):
        if math.isclose(scaled, value, rel_tol=TOLERANCE):
            exact = scaled == value or how != "equal numbers"
            return how if exact else f"numbers within {TOLERANCE:g}"
    return None


def _accepted(text: str, gold: str, depth: int = 0) -> str | None:
    numbers = _double(text), _double(gold)
    if numbers[0] is not None and numbers[1] is not None:
        return _close(numbers[0], numbers[1])
    text, gold = text.strip(), gold.strip()
    if not text:
        return None
    if _without_brackets(text, gold):
        return "the same text but for brackets"
    if depth < DEEPEST and _same_elements(text, gold, depth):
        return "equal element by element"
    try:
        return equality.equal(parse(text), parse(gold))
    except Unreadable:
        return None


def _double(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _bracket(text: str) -> str:
    """The bracket that encloses `text`, or nothing."""
    return text[0] if text[:1] in _BRACKETS and text.endswith(_BRACKETS[text[0]]) else ""


def _without_brackets(text: str, gold: str) -> bool:
    other = {"[": "(", "(": "["}.get(_bracket(text))
    if other and not gold.startswith(other):
        text, gold = text.strip("[]()"), gold.strip("[]()")
    drop = str.maketrans("", "", "{}()")
    return text.translate(drop) == gold.translate(drop)


def _same_elements(text: str, gold: str, depth: int) -> bool:
    if not _bracket(text) or _bracket(text) != _bracket(gold):
        return False
    pairs = text[1:-1].split(","), gold[1:-1].split(",")
    return len(pairs[0]) == len(pairs[1]) and all(_accepted(a, b, depth + 1) for a, b in zip(*pairs, strict=True))
