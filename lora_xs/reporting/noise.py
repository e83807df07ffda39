"""How close is reproduced? A tolerance a cell, from what chance does to a test set and to a seed; never a flat point.

The standard error of `ours − published` has three parts: the chance of a test set of this size, taken once, because
both sides answer the same rows and most of that chance is common to them; and each side's number is of few seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal[
    "reproduced", "within noise", "off", "partial", "not run", "diverged", "not built", "ours alone",
    "not compared", "as published",
]  # fmt: skip
"""`not compared`: seconds, which have no tolerance. `as published`: of settings."""
ROWS = {  # of the published test sets, for cells of which no run says how many it had
    **{"sst2": 872, "mrpc": 408, "cola": 1043, "qnli": 5463, "rte": 277, "stsb": 1500, "mnli": 9815},
    **{"boolq": 3270, "piqa": 1838, "siqa": 1954, "hellaswag": 10042, "winogrande": 1267, "arc_easy": 2376},
    **{"arc_challenge": 1172, "obqa": 500, "openbookqa": 500, "gsm8k": 1319, "math": 5000},
}
CORRELATIONS = ("matthews", "pearson", "spearman", "pearson_spearman", "cola", "stsb")
REPEATS = {"cola": 0.98, "mrpc": 0.98, "sst2": 0.29, "qnli": 0.14}
"""Points by which LoRA-XS's own repeats of one setting differ (Tables 12–25). Half of that is the least standard
deviation to expect of a seed; where nobody knows any, half of the largest."""
MEDIAN = math.sqrt(math.pi / 2)
"""A median of n normal values has this many times the standard error of their mean (asymptotically)."""


@dataclass(frozen=True)
class Tolerance:
    """standard_error: of the difference, in points. Within one it is reproduced, within two it is noise. words: from
    what it was made. chance: the part of the test set."""

    standard_error: float
    words: str
    chance: float = 0.0


def test_error(points: float, rows: int, correlation: bool) -> float:
    """Standard error of a score over `rows` rows, in points: binomial, or (1 − ρ²)/√(rows − 1) of a correlation."""
    share = min(max(abs(points) / 100, 0.0), 1.0)
    if correlation:
        return 100 * (1 - share**2) / math.sqrt(max(1, rows - 1))
    return 100 * math.sqrt(share * (1 - share) / rows)


def tolerance(
    task: str, ours: float, spread: float | None, n: int, rows: int | None, published: float,
    published_spread: float | None, published_n: int, statistic: str,
) -> Tolerance | None:  # fmt: skip
    """What to allow between `ours`, the `statistic` of `n` seeds, and `published`, of `published_n`.

    None where the test set's size is not known.
    """
    rows = rows or ROWS.get(task)
    if rows is None:
        return None
    here, there = seed_errors(task, spread, n, published_spread, published_n, statistic)
    chance = test_error((ours + published) / 2, rows, task in CORRELATIONS)
    words = f"test set of {rows:,} ±{chance:.2f}, seeds ±{here:.2f} here, ±{there:.2f} there"
    return Tolerance(math.hypot(chance, here, there), words, chance)


def seed_errors(
    task: str, spread: float | None, n: int, published_spread: float | None, published_n: int, statistic: str
) -> tuple[float, float]:
    """Standard errors of `n` seeds here and `published_n` there, in points.

    A spread that is not known (one seed, none printed) is the other side's; where neither is, the paper's own repeats'.
    """
    wide = MEDIAN if statistic == "median" else 1.0
    nobody_knows = spread is None and published_spread is None
    least = REPEATS.get(task, max(REPEATS.values()) if nobody_knows else 0.0) / 2
    own = spread if spread is not None else published_spread
    theirs = published_spread if published_spread is not None else spread
    return (
        wide * max(own or 0.0, least) / math.sqrt(max(1, n)),
        wide * max(theirs or 0.0, least) / math.sqrt(max(1, published_n)),
    )


def of_average(columns: Sequence[Tolerance], seeds: tuple[float, float] | None = None) -> Tolerance:
    """What to allow of an average of columns.

    seeds: where every column is of the same runs, the average's own errors of seeds, here and there: what a seed does
    to the columns is common to them. Without it each column has runs of its own.
    """
    if seeds is None:
        error = math.sqrt(sum(column.standard_error**2 for column in columns)) / len(columns)
        return Tolerance(error, f"from those of its {len(columns)} columns")
    chance = math.sqrt(sum(column.chance**2 for column in columns)) / len(columns)
    words = f"{len(columns)} test sets ±{chance:.2f}, seeds ±{seeds[0]:.2f} here, ±{seeds[1]:.2f} there"
    return Tolerance(math.hypot(chance, *seeds), words, chance)


def verdict(difference: float, allowed: Tolerance) -> Status:
    """Of a complete cell."""
    if abs(difference) <= allowed.standard_error:
        return "reproduced"
    return "within noise" if abs(difference) <= 2 * allowed.standard_error else "off"


def whiskers_of(values: Sequence[float], middle: float) -> tuple[float, float] | None:
    """How far the lowest and the highest value lie from `middle`; None below two values."""
    return (middle - min(values), max(values) - middle) if len(values) > 1 else None


def spread_of(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None below two values."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
