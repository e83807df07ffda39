"""Scores over stored completions: points, standard errors, disagreements, the fallback counted and not copied."""

from __future__ import annotations

import json
import math

import pytest

from lora_xs.errors import UserError
from lora_xs.evaluation.answers import SCORERS, Verdict, family_of, independent, judge, score, score_generations
from lora_xs.evaluation.generation import Generation


def rows_of(test: str, *pairs: tuple[str, str]) -> list[Generation]:
    """Generations of (completion, gold)."""
    return [Generation(f"{test}/{index}", "?", text, 1, "eos", gold) for index, (text, gold) in enumerate(pairs)]


MATH = rows_of(
    "math",
    ("The answer is: \\frac12", "\\frac{1}{2}"),
    ("The answer is: 500", "5"),
    ("The answer is: x/2", "7"),
    ("The answer is: x/2", "x/2"),
    ("no idea", "7"),
)


def test_points_and_their_binomial_standard_error() -> None:
    scores = score_generations("math", MATH, ["strict", "published"])
    assert scores.n == 5 and scores.points == {"strict": 40.0, "published": 60.0}
    expected = 100 * math.sqrt(0.4 * 0.6 / 5)
    assert scores.standard_error == pytest.approx({"strict": expected, "published": expected})
    assert scores.no_answer == 1 and set(scores.seconds) == {"strict", "published"} and scores.unjudged == 0


def test_rows_that_the_published_code_compares_with_themselves_are_counted() -> None:
    """The third row: wrong, and right in the papers' code. The fourth raises there too, but it is right anyway."""
    assert score_generations("math", MATH).self_compared == 1
    by_gold = rows_of("math", ("The answer is: 1", "x/2"), ("no answer", "x/2"))
    assert score_generations("math", by_gold, ["strict", "published"]).self_compared == 1
    numbers = rows_of("gsm8k", ("The answer is: x/2", "7"))
    assert score_generations("gsm8k", numbers, ["published"]).self_compared == 0, "GSM8K is not normalised"


def test_disagreements_name_row_answer_gold_and_reasons() -> None:
    scores = score_generations("math", MATH, ["strict", "published"])
    (row,) = scores.disagreements
    assert (row.id, row.answer, row.gold) == ("math/1", "500", "5")
    assert row.verdicts == {"strict": False, "published": True} and row.why["published"] == "100 times gold"
    assert scores.differing("published", "strict") == 1 and scores.differing("math_verify", "strict") == 0
    assert json.loads(json.dumps(scores.to_json()))["disagreements"][0]["gold"] == "5"


def test_a_multiple_choice_answer_is_read_once_for_all_scorers(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(task: str, completion: str, gold: str, scorer: str = "strict"):
        read.append(scorer)
        return judge(task, completion, gold, scorer)

    monkeypatch.setattr("lora_xs.evaluation.answers.scores.judge", counted)
    scores = score_generations("boolq", rows_of("boolq", ("it is true", "true"), ("", "true"), ("false", "true")))
    assert len(read) == 3 and set(scores.points) == set(SCORERS) and len(set(scores.points.values())) == 1
    assert scores.no_answer == 1 and not scores.disagreements and scores.points["strict"] == pytest.approx(100 / 3)


def test_answers_that_math_verify_left_unjudged_are_counted_and_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whys = iter([*independent.UNJUDGED, "judged different"])
    monkeypatch.setattr(independent, "installed", lambda: True)
    monkeypatch.setattr(independent, "judge", lambda number, completion, gold: Verdict(False, "1", next(whys)))
    scores = score_generations("math", MATH[:3], ["math_verify"])
    assert scores.unjudged == 2 and scores.points == {"math_verify": 0.0}
    assert "no verdict on 2 answers" in caplog.text


def test_one_scorer_alone_can_be_asked() -> None:
    scores = score_generations("gsm8k", rows_of("gsm8k", ("The answer is: 17.6", "18"), ("", "18")), ["published"])
    assert scores.points == {"published": 50.0} and scores.no_answer == 1 and not scores.disagreements


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="no generations"):
        score_generations("math", [])
    with pytest.raises(UserError, match="test 'glue' has no scorer; known: gsm8k"):
        score_generations("glue", MATH)
    with pytest.raises(UserError, match="scorer='lenient' is unknown"):
        score("math", "", "1", "lenient")
    with pytest.raises(UserError, match="boolq/0: reference answer 'yes' of boolq is not one of true, false"):
        score_generations("boolq", rows_of("boolq", ("true", "yes")))
    with pytest.raises(UserError, match="gsm8k/1: reference answer '' is not a number"):
        score_generations("gsm8k", rows_of("gsm8k", ("The answer is: 1", "1"), ("The answer is: 1", "")))


@pytest.mark.parametrize("test", ["gsm8k", "math", "math500", "word_problems", "boolq", "piqa", "siqa", "hellaswag",
                                  "winogrande", "arc_easy", "arc_challenge", "obqa"])  # fmt: skip
def test_every_test_of_the_papers_and_ours_has_a_scorer(test: str) -> None:
    gold = {"number": "5", "expression": "5", "choice": ""}[family_of(test)]
    if gold:
        assert score(test, f"The answer is: {gold}", gold) and not score(test, "The answer is: 6", gold)
    else:
        assert not score(test, "", judge_label(test))
        assert score(test, f"the correct answer is {judge_label(test)}", judge_label(test))


def judge_label(test: str) -> str:
    from lora_xs.choices import LABELS

    return LABELS[test][-1]


def test_every_test_that_can_be_asked_has_a_kind_of_answer_and_the_other_way_round() -> None:
    from lora_xs.data.questions import TESTS
    from lora_xs.evaluation.answers.families import FAMILIES

    assert set(TESTS) == set(FAMILIES)
