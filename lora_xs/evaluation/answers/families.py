"""Which tests there are for a scorer, what kind of answer each wants, and what a verdict on one answer is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lora_xs.choices import LABELS
from lora_xs.errors import UserError

Family = Literal["number", "expression", "choice"]
Scorer = Literal["strict", "published", "math_verify"]
SCORERS: tuple[Scorer, ...] = ("strict", "published", "math_verify")

FAMILIES: dict[str, Family] = {
    "gsm8k": "number",
    "word_problems": "number",
    "math": "expression",
    "math500": "expression",
    **dict.fromkeys(LABELS, "choice"),
}


@dataclass(frozen=True)
class Verdict:
    """One scorer's opinion of one completion: `answer` is the text it read as the answer, None where it found none."""

    correct: bool
    answer: str | None
    why: str


def family_of(task: str) -> Family:
    """What a test's answers are. Raises UserError for a test no scorer knows."""
    if task not in FAMILIES:
        raise UserError(f"test {task!r} has no scorer; known: {', '.join(FAMILIES)}")
    return FAMILIES[task]
