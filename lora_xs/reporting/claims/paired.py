"""The one test of all claims: paired differences, an exact sign-flip test, an interval, and the rule of verdicts.

The rule. A difference is positive where it speaks for the claim; of a claim that allows a margin ("as fast as"), the
margin is added first. Differences that share a run are one pair, their mean. With fewer than three pairs it is
undecided. It is supported where the mean of the pairs is positive, more than half of them are, Student's 95 % interval
does not cover 0 and, of six pairs or more, p of the sign flips is at most 0.05; contradicted where all that is so the
other way. Below six pairs no sign flips can reach 0.05, and the interval decides alone. While runs are missing, or
where one has no finite score, it is undecided whatever the pairs say. Pairs of one task are no sample of all tasks: a
verdict that falls when a task is left out says so. No correction for many claims.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Literal

from lora_xs.reporting.claims.pair import Lost, Pair, independent

Verdict = Literal["supported", "contradicted", "undecided"]
LEAST, LEVEL, COVERED = 3, 0.05, 0.95
FLIPS_DECIDE = 6
"""Of fewer pairs, the least p that sign flips can have is above LEVEL."""
EXACT = 14
"""Up to so many pairs all sign flips are tried; of more, SAMPLES drawn from one fixed seed."""
SAMPLES, SEED = 20_000, 2411_19557


@dataclass(frozen=True)
class Judged:
    """Differences and what follows from them. words: what is tested. margin: added to every difference before it is
    tested. counted: there is no chance in it, and the mean alone decides. lost: runs whose loss was not finite.
    complete: whether all planned runs of the setting have ended."""

    words: str
    differences: tuple[Pair, ...]
    margin: float = 0.0
    counted: bool = False
    lost: tuple[Lost, ...] = ()
    complete: bool = True

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """The independent ones, which are tested."""
        return independent(self.differences)

    @property
    def n(self) -> int:
        """How many independent pairs."""
        return len(self.pairs)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Which seeds they are of."""
        return tuple(sorted({pair.seed for pair in self.differences if pair.seed is not None}))

    @property
    def unit(self) -> str:
        """Of the effect."""
        return self.pairs[0].unit if self.pairs else ""

    @property
    def effect(self) -> float | None:
        """The mean of the pairs, without the margin."""
        return statistics.fmean(pair.difference for pair in self.pairs) if self.pairs else None

    @property
    def median(self) -> float | None:
        """The median of the pairs, without the margin."""
        return statistics.median(pair.difference for pair in self.pairs) if self.pairs else None

    @property
    def by_task(self) -> dict[str, float]:
        """The mean difference of each task that is named."""
        found: dict[str, list[float]] = {}
        for pair in self.differences:
            if pair.task:
                found.setdefault(pair.task, []).append(pair.difference)
        return {task: statistics.fmean(values) for task, values in found.items()}

    @property
    def without_task(self) -> dict[str, Verdict]:
        """Tasks on which `so_far` rests: what it would be without each; of two tasks or more, where it is decided."""
        if self.so_far == "undecided" or self.counted or len(self.by_task) < 2:
            return {}
        rest = {task: tuple(one for one in self.differences if one.task != task) for task in self.by_task}
        left = {task: replace(self, differences=others).so_far for task, others in rest.items()}
        return {task: verdict for task, verdict in left.items() if verdict != self.so_far}

    @property
    def holding(self) -> int:
        """How many pairs speak for the claim, the margin given."""
        return sum(value > 0 for value in self._shifted)

    @property
    def lost_runs(self) -> dict[str, int]:
        """Variant → how many runs of it diverged."""
        return dict(Counter({one.run: one.side for one in self.lost}.values()))

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
        return self.so_far if self.complete and not self.lost else "undecided"

    @property
    def so_far(self) -> Verdict:
        """What the pairs there are would say if no run were missing."""
        if self.counted and self.effect is not None:
            return "supported" if self.effect + self.margin > 0 else "contradicted"
        if self.n < LEAST or self.p is None or self.interval is None or self.effect is None:
            return "undecided"
        covers = self.interval[0] + self.margin <= 0 <= self.interval[1] + self.margin
        if covers or (self.n >= FLIPS_DECIDE and self.p > LEVEL):
            return "undecided"
        if self.effect + self.margin > 0:
            return "supported" if 2 * self.holding > self.n else "undecided"
        return "contradicted" if 2 * sum(value < 0 for value in self._shifted) > self.n else "undecided"

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
