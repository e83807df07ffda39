"""The test behind all claims, against scipy and by hand."""

from __future__ import annotations

import random
import statistics

import numpy as np
import pytest
from scipy import stats

from lora_xs.reporting.claims.pair import Lost, Pair, independent
from lora_xs.reporting.claims.paired import EXACT, Judged, sign_flip, together


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
        ([0.01, 0.02, 0.01, 0.03, 0.02, 50.0], 0, "undecided"),  # p is 2/64, but the interval covers 0
        ([0.8, 1.0, 1.1, 1.2, 1.3, 0.9], 0, "supported"),  # six pairs: both agree
        ([9.0, 9.1, 9.2, 9.3, 9.4, -0.1], 0, "undecided"),  # six pairs: the interval is clear of 0, but p is 4/64
        ([-0.01] * 7 + [9.0, 9.0, 9.0, 9.0, 9.0, 9.0], 0, "undecided"),  # p and interval, but 6 of 13 pairs
        ([0.01] * 7 + [-9.0, -9.0, -9.0, -9.0, -9.0, -9.0], 0, "undecided"),
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


def test_the_median_stands_beside_the_mean() -> None:
    one = judged([0.0, 1.0, 8.0])
    assert (one.effect, one.median) == (3.0, 1.0) and judged([]).median is None


def test_differences_that_share_a_run_are_one_pair_at_second_hand_too() -> None:
    def at(seed: int, difference: float, *runs: str) -> Pair:
        return Pair("here", seed, difference, runs=runs)

    chain = [at(0, 1.0, "a", "b"), at(1, 5.0, "x", "y"), at(0, 2.0, "c", "d"), at(0, 6.0, "b", "c"), at(2, 4.0)]
    found = {pair.runs: (pair.difference, pair.seed) for pair in independent(chain)}
    assert found == {("a", "b", "c", "d"): (3.0, 0), ("x", "y"): (5.0, 1), (): (4.0, 2)}
    assert "2 more numbers of the same runs" in next(p.place for p in independent(chain) if "a" in p.runs)


def test_under_no_effect_one_run_against_four_is_decided_in_five_of_a_hundred() -> None:
    """Noise hurts: seeds of one run without noise, each against four runs with."""
    dice = random.Random(0)
    decided = 0
    for _ in range(400):
        pairs = []
        for seed in range(3):
            bare = dice.gauss(0, 1)
            pairs += [Pair("here", seed, bare - dice.gauss(0, 1), runs=(f"{seed}", f"{seed} {n}")) for n in range(4)]
        decided += Judged("words", tuple(pairs)).verdict != "undecided"
    assert 0.02 < decided / 400 < 0.08


def test_no_verdict_while_runs_are_missing_or_one_diverged() -> None:
    pairs = judged([1.0, 1.1, 0.9]).differences
    for one in (Judged("words", pairs, complete=False), Judged("words", pairs, lost=(Lost("a", "LoRA-SB"),))):
        assert one.verdict == "undecided" and one.so_far == "supported"
    twice = (Lost("a", "LoRA-SB"), Lost("a", "LoRA-SB"), Lost("b", "LoRA-XS"), Lost("c", "LoRA-XS"))
    assert Judged("words", pairs, lost=twice).lost_runs == {"LoRA-SB": 1, "LoRA-XS": 2}
