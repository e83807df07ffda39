"""Where the answer is in a completion."""

from __future__ import annotations

import pytest

from lora_xs.evaluation.answers.extraction import bare, label_in, published_text, strict_text

AFTER_THE_MARKER = [
    # after the marker, strict, published
    ("18", "18", "18"),
    ("18.", "18", "18"),
    ("  18  ", "18", "18"),
    ("\n\n18", "18", "18"),
    ("18.\nThat is all.", "18", "18"),
    ("18\nThat is all", "18", "18\nThat is all"),
    ("$18$", "18", "$18$"),
    ("$18.$", "18", "$18.$"),
    ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}", "\\boxed{\\frac{1}{2}}"),
    ("\\[ \\boxed{7}. \\]", "7", "\\[ \\boxed{7}. \\]"),
    ("$1$ and $2$", "$1$ and $2$", "$1$ and $2$"),
    ("\\boxed{1} or \\boxed{2}", "\\boxed{1} or \\boxed{2}", "\\boxed{1} or \\boxed{2}"),
    ("90\\text{ square\nunits}\nmore", "90\\text{ square\nunits}", "90\\text{ square\nunits}\nmore"),
    ("\\begin{pmatrix}1\\\\\n2\\end{pmatrix}\nmore", "\\begin{pmatrix}1\\\\\n2\\end{pmatrix}", None),
    ("{5\nmore", "{5", "{5\nmore"),
    ("", None, None),
    (" \n ", None, None),
    ("$$", None, "$$"),
]


@pytest.mark.parametrize(("after", "strict", "published"), AFTER_THE_MARKER)
def test_the_answer_is_what_follows_the_last_marker(after: str, strict: str | None, published: str | None) -> None:
    completion = f"The answer is: 3, or not.\nThe answer is: {after}"
    assert strict_text(completion) == strict
    if published is not None or strict is None:
        assert published_text(completion) == published


@pytest.mark.parametrize(
    "completion", ["", "18", "#### 18", "The answer is 18", "The answer is:18", "the answer is: 18"]
)
def test_without_the_marker_there_is_no_answer(completion: str) -> None:
    assert strict_text(completion) is None and published_text(completion) is None


def test_the_first_label_counts_and_case_does() -> None:
    assert label_in("arc_easy", "answer 3, no: answer2 or answer4") == "answer2"
    assert label_in("boolq", "True or FALSE") is None
    assert label_in("hellaswag", "the correct answer is ending3") == "ending3"
    assert label_in("piqa", "solution3") is None


def test_what_encloses_the_whole_is_removed_and_nothing_else() -> None:
    assert bare("$$\\boxed{5}$$.") == "5"
    assert bare("\\(5\\)") == "5"
    assert bare("\\boxed{\\boxed{5}}") == "5"
    assert bare("$5\\$") == "$5\\$"
    assert bare("\\boxed{5\\}") == "\\boxed{5\\}"
    assert bare("(1, 2)") == "(1, 2)"
