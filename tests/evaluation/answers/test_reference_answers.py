"""The real tests' reference answers, scored against themselves: all right, or known why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_xs.evaluation.answers import independent, score_generations
from lora_xs.evaluation.generation import Generation

MATH_FILES = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "math"
EVERY = 25  # for the slow judge, each so-manieth row


def boxed(solution: str) -> str:
    """The content of the last box, by counting braces."""
    start = solution.rindex("\\boxed")
    if solution.startswith("\\boxed ", start):
        return solution[start + 7 :].split("$")[0].strip()
    depth, begin = 0, solution.index("{", start)
    for index in range(begin, len(solution)):
        depth += (solution[index] == "{") - (solution[index] == "}")
        if depth == 0:
            return solution[begin + 1 : index]
    raise ValueError(solution)


def references(test: str) -> list[Generation]:
    file = MATH_FILES / f"{test}_test.jsonl"
    if not file.is_file():
        pytest.skip("needs the real rows beside the repository (../shared/data/math)")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    golds = [row["answer"].split("#### ")[1] if test == "gsm8k" else boxed(row["solution"]) for row in rows]
    return [
        Generation(f"{test}/{index}", "", f"So.\nThe answer is: {gold}", 1, "eos", gold)
        for index, gold in enumerate(golds)
    ]


@pytest.mark.parametrize(
    ("test", "rows", "wrong_in_published"),
    [
        ("gsm8k", 1319, {"gsm8k/611": "1,450,000"}),  # two thousand separators, of which it reads one
        ("math", 5000, {"math/2269": "\\frac{7}{5} + \\frac{1}{5} i."}),  # it drops the period of the answer alone
    ],
)
def test_reference_answers_are_right_by_their_own_scorers(
    test: str, rows: int, wrong_in_published: dict[str, str]
) -> None:
    scores = score_generations(test, references(test), ["strict", "published"])
    assert scores.n == rows and scores.points["strict"] == 100
    assert {row.id: row.gold for row in scores.disagreements} == wrong_in_published
    assert scores.self_compared == 0 and scores.no_answer == 0


@pytest.mark.parametrize("test", ["gsm8k", "math"])
def test_the_independent_judge_agrees_on_a_sample(test: str) -> None:
    if not independent.installed():
        pytest.skip("optional: pip install 'math-verify>=0.9,<0.10'")
    scores = score_generations(test, references(test)[::EVERY], ["math_verify"])
    assert scores.points["math_verify"] == 100 and scores.unjudged == 0
