"""The test behind all claims, against scipy and by hand."""

from __future__ import annotations

import random
import statistics

import numpy as np
import pytest
from scipy import stats

from lora_xs.reporting.claims.paired import EXACT, Judged, Pair, sign_flip, together


def judged(values: list[float], margin: float = 0.0, counted: bool = False) -> Judged:
    return Judged("words", tuple(Pair("here", seed, value) for seed, value in enumerate(values)), margin, counted)


def test_sign_flips_by_hand() -> None:
    assert sign_flip([1.0]) == 1.0
    assert sign_flip([1.0, 2.0, 3.0]) == 2 / 8
    assert sign_flip([1.0, 2.0, -3.0]) == 1.0
    assert sign_flip([3.0, 2.0, -1.0]) == 4 / 8
    assert sign_flip([0.0, 0.0, 0.0]) == 1.0
    assert sign_flip([0.1] * 6) == 2 / 64


@pytest.mark.parametrize("n", [4, 7, 10])
def test_sign_flips_are_scipy_s_exact_permutation_test(n: int) -> None:
    values = [random.Random(n).gauss(0.5, 1) for _ in range(n)]
    theirs = stats.permutation_test(
        (np.array(values),), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert sign_flip(values) == pytest.approx(theirs.pvalue)


def test_of_many_pairs_flips_are_drawn_and_the_answer_is_the_same_twice() -> None:
    values = [random.Random(0).gauss(0.1, 1) for _ in range(EXACT + 6)]
    assert sign_flip(values) == sign_flip(list(values))
    theirs = stats.permutation_test(
        (np.array(values),), np.mean, permutation_type="samples", n_resamples=50_000, rng=np.random.default_rng(1)
    )
    assert sign_flip(values) == pytest.approx(theirs.pvalue, abs=0.02)
    assert sign_flip([1.0] * 40) < 0.001


def test_the_interval_is_student_s() -> None:
    values = [1.0, 2.0, 4.0, 4.5]
    low, high = stats.t.interval(0.95, 3, statistics.fmean(values), stats.sem(values))
    assert judged(values).interval == pytest.approx((low, high))
    assert judged([1.0]).interval is None and judged([]).interval is None


@pytest.mark.parametrize(
    ("values", "margin", "verdict"),
    [
        ([], 0, "undecided"),
        ([9.0, 9.0], 0, "undecided"),  # two pairs, however far
        ([1.0, 1.1, 0.9], 0, "supported"),  # p is 0.25, but the interval is clear of 0
        ([-1.0, -1.1, -0.9], 0, "contradicted"),
        ([1.0, -1.0, 0.5], 0, "undecided"),
        ([0.0, 0.0, 0.0], 0, "undecided"),
        ([0.01, 0.02, 0.01, 0.03, 0.02, 50.0], 0, "supported"),  # the interval covers 0, but p is 2/64
        ([-0.4, -0.5, -0.45], 1.0, "supported"),  # within the margin
        ([-1.4, -1.5, -1.45], 1.0, "contradicted"),
        ([-0.5, -1.5, -1.0], 1.0, "undecided"),
    ],
)
def test_the_rule(values: list[float], margin: float, verdict: str) -> None:
    assert judged(values, margin).verdict == verdict


def test_a_count_decides_alone_and_has_no_chance() -> None:
    one = judged([2.48], -2.4, counted=True)
    assert one.verdict == "supported" and one.p is None and one.interval is None
    assert judged([2.3], -2.4, counted=True).verdict == "contradicted"
    assert judged([], counted=True).verdict == "undecided"


def test_all_parts_must_hold_and_one_that_fails_contradicts() -> None:
    assert together(["supported", "supported"]) == "supported"
    assert together(["supported", "undecided"]) == "undecided"
    assert together(["undecided", "contradicted"]) == "contradicted"
    assert together([]) == "undecided"
