"""How many rows a task has and how long they are, as measured (`benchmarks/row_lengths.py`), or assumed in words."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from lora_xs.spec import RunSpec

ROWS = Path(__file__).with_name("rows.csv")
QUESTIONS = Path(__file__).with_name("questions.csv")


@dataclass(frozen=True)
class RowLengths:
    """A training set. lengths: tokens a row at `shares` of the rows, from the shortest (0) to the longest (1).

    response_share: of the tokens, those of responses; 0 for labelled texts. measured_on: which rows were measured.
    """

    rows: int
    validation_rows: int
    shares: tuple[float, ...]
    lengths: tuple[float, ...]
    response_share: float
    measured_on: str

    def quantile(self, share: float) -> float:
        """Tokens of the row that `share` (0 to 1) of the rows do not exceed; linear between measured points."""
        for low, high, short, long in zip(self.shares, self.shares[1:], self.lengths, self.lengths[1:], strict=False):
            if share <= high:
                return short + (long - short) * (max(share, low) - low) / (high - low)
        return self.lengths[-1]

    def mean(self, limit: int) -> float:
        """Mean tokens a row, none above `limit`."""
        return _mean([min(limit, self.quantile((i + 0.5) / 200)) for i in range(200)])

    def padded(self, limit: int, batch: int, micro: int) -> float:
        """Mean tokens a row that are computed where batches of `batch` rows are sorted and cut into `micro` rows.

        The j-th longest of n rows is taken to be as long as the share 1 − (j − ⅜) / (n + ¼) of all rows (Blom's rule).
        """
        starts = range(0, max(batch, 1), max(micro, 1))
        widths = [min(limit, self.quantile(1 - (start + 0.625) / (batch + 0.25))) for start in starts]
        return _mean(widths)

    def together(self, limit: int, rows: int) -> float:
        """Tokens of `rows` rows drawn at random, hardly ever exceeded: three deviations above the mean."""
        lengths = [min(limit, self.quantile((i + 0.5) / 200)) for i in range(200)]
        likely = rows * _mean(lengths) + 3 * math.sqrt(rows) * statistics.pstdev(lengths)
        return min(likely, rows * self.longest(limit))

    def longest(self, limit: int) -> float:
        """Tokens of the longest row."""
        return min(limit, self.lengths[-1])


@dataclass(frozen=True)
class Questions:
    """A test: its kind of answers (`choice` has options to compare), its questions, mean tokens of a prompt, and of the
    answers a trained model is taken to give."""

    family: str
    rows: int
    prompt_tokens: int
    answer_tokens: int
    measured_on: str


@cache
def known_rows() -> Mapping[str, RowLengths]:
    """Every task of rows.csv."""
    found = {}
    with ROWS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            points = sorted((int(key[1:]) / 100, float(row[key])) for key in row if key[0] == "p" and key[1:].isdigit())
            shares, lengths = zip(*points, strict=True)
            found[row["task"]] = RowLengths(
                int(row["rows"]),
                int(row["validation_rows"]),
                shares,
                lengths,
                float(row["response_share"]),
                row["measured_on"],
            )
    return found


@cache
def known_questions() -> Mapping[str, Questions]:
    """Every test of questions.csv."""
    with QUESTIONS.open(encoding="utf-8", newline="") as file:
        return {
            row["test"]: Questions(
                row["family"],
                int(row["rows"]),
                int(row["prompt_tokens"]),
                int(row["answer_tokens"]),
                row["measured_on"],
            )
            for row in csv.DictReader(file)
        }


def rows_of(spec: RunSpec) -> RowLengths:
    """The task's rows; one that was never measured is taken to have 10,000 + 1,000 rows of at most `max_length`."""
    known = known_rows().get(spec.task.name)
    if known is not None:
        return known
    half = 0.5 if spec.task.kind == "instruction" else 0.0
    return RowLengths(10_000, 1_000, (0.0, 1.0), (8.0, float(spec.task.max_length)), half, "nothing: assumed")


def questions_of(spec: RunSpec, test: str) -> Questions:
    """The test's questions, as many as `task.test_rows` leaves; 1,000 of 150 + 100 tokens where unmeasured."""
    known = known_questions().get(test, Questions("worked", 1_000, 150, 100, "nothing: assumed"))
    rows = min(known.rows, spec.task.test_rows or known.rows)
    limit = spec.evaluation.max_new_tokens.get(test, known.answer_tokens)
    return replace(known, rows=rows, answer_tokens=min(limit, known.answer_tokens))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
