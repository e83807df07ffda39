"""One completion, one scorer, one verdict."""

from __future__ import annotations

from lora_xs.errors import UserError
from lora_xs.evaluation.answers import independent, published, strict
from lora_xs.evaluation.answers.families import SCORERS, Scorer, Verdict, family_of


def score(task: str, completion: str, gold: str, scorer: Scorer = "strict") -> bool:
    """Whether `completion` answers a question of the test `task` (`gsm8k`, `math`, `boolq` …) whose answer is `gold`.

    Raises UserError for an unknown test or scorer, a gold that cannot be one of the test's, and for `math_verify`
    where that library is missing.
    """
    return judge(task, completion, gold, scorer).correct


def judge(task: str, completion: str, gold: str, scorer: Scorer = "strict") -> Verdict:
    """As `score`, with the answer that was read and a short reason."""
    family = family_of(task)
    if scorer not in SCORERS:
        raise UserError(f"scorer={scorer!r} is unknown; allowed: {', '.join(SCORERS)}")
    if family == "choice":
        return strict.judge_choice(task, completion, gold)
    if scorer == "math_verify":
        return independent.judge(family == "number", completion, gold)
    room = strict if scorer == "strict" else published
    return (room.judge_number if family == "number" else room.judge_expression)(completion, gold)
