r"""An exact number out of an answer's text, as `strict` reads GSM8K's.

The text must be one number: sign (`-`, `+`, or the Unicode minus), digits with or without thousand separators (`,`
and LaTeX's `{,}` and `\,` between groups of three), a decimal part, an exponent of up to three digits; or a fraction of
two integers (`a/b`, `\frac{a}{b}`). Before it may stand a currency sign and a short `x =`; after it a percent sign or
words without digits (a unit): `50 %` and `50` are both fifty, as the reference answers have no units. Two numbers,
arithmetic, words that make another number of it (`5 thousand`, `5 plus six`, `3 and a half`, `5!`) and mixed numbers
are not an answer.
"""

from __future__ import annotations

import re
from fractions import Fraction

from lora_xs.errors import UserError

LONGEST = 120  # characters of an answer that can be one number and its unit

_SIGN = r"(?P<sign>[-+]?)\s*"
_CURRENCY = r"(?:\\?[$€£¥]\s*)?"
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_NUMBER = rf"(?P<number>(?:{_DIGITS}(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{{1,3}})?)"
_FRACTION = r"(?:(?P<top>\d+)\s*/\s*(?P<bottom>\d+)|\\[dt]?frac\{(?P<over>-?\d+)\}\{(?P<under>-?\d+)\})"
# A unit begins after a space, or at once with a letter or a sign that no arithmetic has.
_UNIT = r"(?:\s*\\?[%°€£¥$]|\s*\\text\{[^{}\d]*\}|\s*[A-Za-z\s.,;!'\"()]*)"
_ANSWER = re.compile(
    rf"(?:[A-Za-z]{{1,2}}\s*=\s*)?{_CURRENCY}{_SIGN}{_CURRENCY}(?:{_FRACTION}|{_NUMBER}){_UNIT}{{0,2}}", re.ASCII
)
_TENS = r"(?:twen|thir|for|fif|six|seven|eigh|nine)ty"
_WORD = rf"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|{_TENS})"
_PART = r"(?:hal(?:f|ves)|thirds?|quarters?|fourths?|fifths?|sixths?|eighths?|tenths?)"
# What stands behind a number and is no unit of it. `dozen` and `times` may be units: "how many times?"
_ANOTHER_NUMBER = re.compile(
    rf"\b(?:hundred|thousand|[mbtr]+illion|plus|minus|squared|cubed|factorial|(?:times|over|by|or|to|and) {_WORD}"
    rf"|and (?:an? |{_WORD} )?{_PART})\b|\d ?!",
    re.ASCII | re.IGNORECASE,
)


def reference_number(gold: str) -> Fraction:
    """The number that a reference answer is. Raises UserError where it is none."""
    value = read_number(gold)
    if value is None:
        raise UserError(f"reference answer {gold!r} is not a number; correct the test's file")
    return value


def read_number(text: str) -> Fraction | None:
    """The exact value of `text`, or None where it is not one number as described above."""
    if len(text) > LONGEST:
        return None
    plain = text.replace("\u2212", "-").replace("{,}", ",").replace("\\,", ",").replace("\\!", "")
    # one blank each: the units' patterns would try every way to share a run of them out
    plain = re.sub(r"\s+", " ", plain.strip(), flags=re.ASCII)
    found = _ANSWER.fullmatch(plain)
    if not found or _ANOTHER_NUMBER.search(plain):
        return None
    over, under = found["top"] or found["over"], found["bottom"] or found["under"]
    if over is None:
        value = Fraction(found["number"].replace(",", ""))
    elif int(under) == 0:
        return None
    else:
        value = Fraction(int(over), int(under))
    return -value if found["sign"] == "-" else value
