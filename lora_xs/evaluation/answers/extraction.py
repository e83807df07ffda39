r"""The answer's text out of a completion.

Mathematics: what follows the last `The answer is: `. There is no fallback: without the marker there is no answer.
From there the readings part:

- `strict_text`: the rest of the line (of more lines while braces or `\begin` are open), without an enclosing `$…$`,
  `\(…\)`, `\[…\]` or `\boxed{…}` and without a final period.
- `published_text`: up to the first period at the end of a line, without a final period; other line breaks stay.

Multiple choice: the first of the task's labels anywhere in the completion, case-sensitive.
"""

from __future__ import annotations

import re

from lora_xs.choices import LABELS

MARKER = "The answer is: "
LONGEST = 1000  # characters; a longer text is no answer (the longest reference answer of MATH has 81)
MOST_LINES = 20  # of an answer with open braces
WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("\\boxed{", "}"))


def after_marker(completion: str) -> str | None:
    """Everything after the last marker, stripped; None without a marker, or with nothing after it."""
    _, marker, rest = completion.rpartition(MARKER)
    return (rest.strip() or None) if marker else None


def strict_text(completion: str) -> str | None:
    """The answer as `strict` and `math_verify` read it, or None. May be longer than LONGEST."""
    rest = after_marker(completion)
    line = "" if rest is None else _one_line(rest)
    return (line if len(line) > LONGEST else bare(line)) or None


def published_text(completion: str) -> str | None:
    """The answer as the papers' MATH scorer reads it, or None. May be longer than LONGEST."""
    rest = after_marker(completion)
    return None if rest is None else (rest.split(".\n")[0].strip().removesuffix(".").strip() or None)


def label_in(task: str, completion: str) -> str | None:
    """The first label of a multiple-choice test in the completion, or None."""
    found = re.search("|".join(LABELS[task]), completion)
    return found[0] if found else None


def bare(text: str) -> str:
    """`text` without what encloses it as a whole (math delimiters, a box) and without a final period."""
    while True:
        inner = text.strip().removesuffix(".").strip()
        for left, right in WRAPPERS:
            middle = inner[len(left) : len(inner) - len(right)]
            if len(inner) < len(left) + len(right) or not (inner.startswith(left) and inner.endswith(right)):
                continue
            whole = balanced(middle) if right == "}" else left not in middle  # else: $1$ and $2$
            if not whole or middle.endswith("\\"):  # $5\$
                continue
            inner = middle
            break
        if inner == text:
            return text
        text = inner


def balanced(text: str) -> bool:
    """Whether every `}` closes an earlier `{` and none is left open (escaped braces do not count)."""
    depth = 0
    for brace in re.findall(r"\\.|[{}]", text, re.DOTALL):
        depth += (brace == "{") - (brace == "}")
        if depth < 0:
            return False
    return depth == 0


def _one_line(rest: str) -> str:
    lines = rest.split("\n", MOST_LINES)[:MOST_LINES]
    for count in range(1, len(lines) + 1):
        text = "\n".join(lines[:count])
        if len(text) > LONGEST:
            break
        if balanced(text) and text.count("\\begin") <= text.count("\\end"):
            return text
    return lines[0]  # they never close: what the first line says
