"""A hundred awkward answers, the verdict of each scorer on them reasoned by hand in `adversarial.json`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lora_xs.evaluation.answers import SCORERS, judge, score
from lora_xs.evaluation.answers.extraction import published_text
from lora_xs.evaluation.answers.normalisation import published_raises

ROWS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("adversarial.json").read_text(encoding="utf-8"))


def text_of(content: str | list[Any]) -> str:
    """A text, or texts with how often each is repeated."""
    if isinstance(content, str):
        return content
    return "".join(text * times for text, times in zip(content[::2], content[1::2], strict=True))


def completion_of(row: dict[str, Any]) -> str:
    return text_of(row["completion"]) if "completion" in row else f"So.\nThe answer is: {text_of(row['answer'])}"


def name_of(row: dict[str, Any]) -> str:
    return f"{row['task']}: {row['why']}"


@pytest.mark.parametrize("row", ROWS, ids=name_of)
@pytest.mark.parametrize("scorer", SCORERS)
def test_every_scorer_judges_as_reasoned(row: dict[str, Any], scorer: str) -> None:
    if scorer == "math_verify":
        pytest.importorskip("math_verify", reason="optional: pip install 'math-verify>=0.9,<0.10'")
    verdict = judge(row["task"], completion_of(row), row["gold"], scorer)
    assert verdict.correct == row[scorer], f"{row['why']}; read {str(verdict.answer)[:80]!r}: {verdict.why}"
    assert verdict.why and (verdict.answer is None or len(verdict.answer) <= 1000)
    if row["task"] not in ("gsm8k", "math"):
        assert verdict == judge(row["task"], completion_of(row), row["gold"], "strict")


@pytest.mark.parametrize("row", [row for row in ROWS if row["task"] == "math"], ids=name_of)
def test_the_published_comparison_with_itself_is_recognised_and_not_copied(row: dict[str, Any]) -> None:
    text = published_text(completion_of(row))
    raises = text is not None and published_raises(text)
    assert raises == row.get("self_compared", False)
    assert not raises or not score("math", completion_of(row), row["gold"], "published")


def test_the_table_has_rows_for_every_outcome() -> None:
    kinds = Counter((row["task"] if row["task"] in ("gsm8k", "math") else "choice") for row in ROWS)
    assert kinds["gsm8k"] >= 40 and kinds["math"] >= 50 and kinds["choice"] >= 8
    outcomes = {(row["strict"], row["published"], row["math_verify"]) for row in ROWS}
    assert len(outcomes) == 8, "every combination of verdicts happens"
