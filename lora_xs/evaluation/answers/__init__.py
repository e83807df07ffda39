"""Scoring of stored completions: three readings of the same text, without a model and without torch.

- `strict` (ours): exact numbers; for MATH the published normalisation, then the same text.
- `published`: what the papers' scorers accept beyond that (tolerance, percentages, rounding, plain expressions).
- `math_verify`: the library of that name, as an independent judge (optional).

A multiple-choice answer is its first label under all three. No text is run as code; every verdict takes bounded time.
"""

from __future__ import annotations

from lora_xs.evaluation.answers.families import FAMILIES, SCORERS, Family, Scorer, Verdict, family_of
from lora_xs.evaluation.answers.judging import judge, score
from lora_xs.evaluation.answers.scores import Disagreement, Scores, score_generations

__all__ = [
    "FAMILIES",
    "SCORERS",
    "Disagreement",
    "Family",
    "Scorer",
    "Scores",
    "Verdict",
    "family_of",
    "judge",
    "score",
    "score_generations",
]
