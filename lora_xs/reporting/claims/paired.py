"""The one test of all claims: paired differences, an exact sign-flip test, an interval, and the rule of verdicts.

The rule. A difference is positive where it speaks for the claim; of a claim that allows a margin ("as fast as"), the
margin is added first. With fewer than three pairs, or where p is above 0.05 and the interval covers 0, it is undecided;
otherwise supported where the mean is positive, contradicted where it is negative. No correction for many claims.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

Verdict = Literal["supported", "contradicted", "undecided"]
LEAST, LEVEL, COVERED = 3, 0.05, 0.95
EXACT = 14
"""Up to so many pairs all sign flips are tried; of more, SAMPLES drawn from one fixed seed."""
SAMPLES, SEED = 20_000, 2411_19557


@dataclass(frozen=True)
class Pair:
    """Two numbers of one place and seed. place: what they share, in words; seed: None of printed numbers; difference:
    positive where it speaks for the claim, in `unit`. runs: signatures behind it."""

    place: str
    seed: int | None
    difference: float
    unit: str = "points"
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """Pairs and what follows from them. words: what is tested. margin: added to every difference before it is tested.
    counted: there is no chance in it, and the mean alone decides."""

    words: str
    pairs: tuple[Pair, ...]
    margin: float = 0.0
    counted: bool = False

    @property
    def n(self) -> int:
        """How many pairs."""
        return len(self.pairs)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Which seeds they are of."""
        return tuple(sorted({pair.seed for pair in self.pairs if pair.seed is not None}))

    @property
    def unit(self) -> str:
        """Of the effect."""
        return self.pairs[0].unit if self.pairs else ""

    @property
    def effect(self) -> float | None:
        """The mean difference, without the margin."""
        return statistics.fmean(pair.difference for pair in self.pairs) if self.pairs else None

    @property
    def holding(self) -> int:
        """How many pairs speak for the claim, the margin given."""
        return sum(pair.difference + self.margin > 0 for pair in self.pairs)

    @cached_property
    def p(self) -> float | None:
        """Two-sided, of the sign-flip test; None without pairs."""
        return sign_flip(self._shifted) if self.pairs and not self.counted else None

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Student's 95 % interval of the effect, without the margin; None below two pairs."""
        if self.n < 2 or self.counted:
            return None
        from scipy.special import stdtrit

        values = [pair.difference for pair in self.pairs]
        half = float(stdtrit(self.n - 1, (1 + COVERED) / 2)) * statistics.stdev(values) / math.sqrt(self.n)
        return statistics.fmean(values) - half, statistics.fmean(values) + half

    @property
    def verdict(self) -> Verdict:
        """By the rule above."""
        if self.counted and self.effect is not None:
            return "supported" if self.effect + self.margin > 0 else "contradicted"
        if self.n < LEAST or self.p is None or self.interval is None or self.effect is None:
            return "undecided"
        covers = self.interval[0] + self.margin <= 0 <= self.interval[1] + self.margin
        if self.p > LEVEL and covers:
            return "undecided"
        return "supported" if self.effect + self.margin > 0 else "contradicted"

    @property
    def _shifted(self) -> list[float]:
        return [pair.difference + self.margin for pair in self.pairs]


def sign_flip(differences: Sequence[float]) -> float:
    """The share of sign flips whose mean is as far from 0 as the one observed (two-sided, the observed among them)."""
    sizes = [abs(value) for value in differences]
    observed = abs(sum(differences)) * (1 - 1e-12)
    if len(sizes) <= EXACT:
        sums = (abs(sum(map(float.__mul__, sizes, signs))) for signs in product((1.0, -1.0), repeat=len(sizes)))
        return sum(value >= observed for value in sums) / 2 ** len(sizes)
    dice = random.Random(SEED)
    hits = 0
    for _ in range(SAMPLES):
        bits = dice.getrandbits(len(sizes))
        hits += abs(sum(size if bits >> place & 1 else -size for place, size in enumerate(sizes))) >= observed
    return (1 + hits) / (1 + SAMPLES)


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """Of a claim of several parts: all must hold, and one that fails contradicts it."""
    if "contradicted" in verdicts:
        return "contradicted"
    return "supported" if verdicts and all(verdict == "supported" for verdict in verdicts) else "undecided"
