"""A test's scores from its stored completions: points by every scorer, their standard errors, and where they differ."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from lora_xs.errors import UserError
from lora_xs.evaluation.answers import independent
from lora_xs.evaluation.answers.extraction import published_text
from lora_xs.evaluation.answers.families import SCORERS, Scorer, Verdict, family_of
from lora_xs.evaluation.answers.independent import UNJUDGED
from lora_xs.evaluation.answers.judging import judge
from lora_xs.evaluation.answers.normalisation import published_raises

logger = logging.getLogger(__name__)


class Answered(Protocol):
    """What is needed of a stored generation."""

    @property
    def id(self) -> str: ...
    @property
    def completion(self) -> str: ...
    @property
    def gold(self) -> str: ...


@dataclass(frozen=True)
class Disagreement:
    """A row on which the scorers are not of one mind; `answer` as `strict` reads it (None: no answer)."""

    id: str
    answer: str | None
    gold: str
    verdicts: Mapping[Scorer, bool]
    why: Mapping[Scorer, str]


@dataclass(frozen=True)
class Scores:
    """A test's scores.

    points, standard_error, seconds: a value a scorer; points of 100, the binomial standard error of one run's points.
    no_answer: rows without a marker or label, or with nothing after it (wrong under every scorer).
    self_compared: rows wrong under `published` here that the papers' code counts as right, as it compares a prediction
        with itself when normalising it or the reference raises; 0 where `published` was not asked.
    unjudged: rows wrong under `math_verify` because it did not come to an end in time, or died; how many depends on the
        machine and its load.
    """

    test: str
    n: int
    points: Mapping[Scorer, float]
    standard_error: Mapping[Scorer, float]
    no_answer: int
    self_compared: int
    unjudged: int
    disagreements: tuple[Disagreement, ...]
    seconds: Mapping[Scorer, float]

    def differing(self, one: Scorer, other: Scorer) -> int:
        """Rows on which two scorers differ; 0 where one of them was not asked."""
        return sum(
            row.verdicts[one] != row.verdicts[other]
            for row in self.disagreements
            if one in row.verdicts and other in row.verdicts
        )

    def to_json(self) -> dict[str, Any]:
        """The same as plain dicts and lists."""
        return asdict(self)


def score_generations(test: str, generations: Sequence[Answered], scorers: Sequence[Scorer] | None = None) -> Scores:
    """Score every generation of `test` by `scorers`: by default all, `math_verify` only where it is installed.

    A multiple-choice answer is read once, as all scorers read it alike. Raises UserError for no generations, an unknown
    test or scorer, a missing library that was asked for, and a bad reference (naming the row). Rows that `math_verify`
    left unjudged are a warning.
    """
    family = family_of(test)
    if not generations:
        raise UserError(f"test {test!r} has no generations to score")
    asked: list[Scorer] = list(scorers or (name for name in SCORERS if name != "math_verify" or _available(family)))
    if "math_verify" in asked and family != "choice":
        independent.require()
    if family == "choice":
        columns, seconds = _shared_column(test, generations, asked)
    else:
        columns, seconds = {}, {}
        for name in asked:
            started = time.perf_counter()
            columns[name] = [_judged(test, row, name) for row in generations]
            seconds[name] = time.perf_counter() - started
    texts = columns["strict"] if "strict" in columns else [_judged(test, row, "strict") for row in generations]
    right = {name: sum(verdict.correct for verdict in column) / len(generations) for name, column in columns.items()}
    unjudged = sum(verdict.why in UNJUDGED for verdict in columns.get("math_verify", ()))
    if unjudged:
        logger.warning(
            "test %s: math_verify gave no verdict on %d answers in time, they count as wrong; score them again on an "
            "idle machine (scripts/rescore.py --scorer math_verify)",
            test,
            unjudged,
        )
    return Scores(
        test=test,
        n=len(generations),
        points={name: 100 * share for name, share in right.items()},
        standard_error={name: 100 * math.sqrt(share * (1 - share) / len(generations)) for name, share in right.items()},
        no_answer=sum(verdict.answer is None for verdict in texts),
        self_compared=_self_compared(generations, columns.get("published", ())) if family == "expression" else 0,
        unjudged=unjudged,
        disagreements=tuple(_disagreements(generations, texts, columns)),
        seconds=seconds,
    )


def _available(family: str) -> bool:
    return family == "choice" or independent.installed()


def _shared_column(
    test: str, generations: Sequence[Answered], asked: Sequence[Scorer]
) -> tuple[dict[Scorer, list[Verdict]], dict[Scorer, float]]:
    started = time.perf_counter()
    columns = {asked[0]: [_judged(test, row, asked[0]) for row in generations]}
    seconds = {asked[0]: time.perf_counter() - started}
    for name in asked[1:]:
        columns[name], seconds[name] = columns[asked[0]], 0.0
    return columns, seconds


def _judged(test: str, row: Answered, scorer: Scorer) -> Verdict:
    try:
        return judge(test, row.completion, row.gold, scorer)
    except UserError as mistake:
        raise UserError(f"{row.id}: {mistake}") from mistake


def _self_compared(generations: Sequence[Answered], column: Sequence[Verdict]) -> int:
    count = 0
    for row, verdict in zip(generations, column, strict=False):
        text = published_text(row.completion)
        if not verdict.correct and text is not None:
            count += published_raises(text) or published_raises(row.gold)
    return count


def _disagreements(
    generations: Sequence[Answered], texts: Sequence[Verdict], columns: Mapping[Scorer, Sequence[Verdict]]
) -> list[Disagreement]:
    rows = []
    for index, generation in enumerate(generations):
        verdicts = {name: column[index] for name, column in columns.items()}
        if len({verdict.correct for verdict in verdicts.values()}) > 1:
            rows.append(
                Disagreement(
                    id=generation.id,
                    answer=texts[index].answer,
                    gold=generation.gold,
                    verdicts={name: verdict.correct for name, verdict in verdicts.items()},
                    why={name: verdict.why for name, verdict in verdicts.items()},
                )
            )
    return rows
