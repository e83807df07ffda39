"""What a claim's sentence says is what is tested: every rank by itself, each run once, MRPC where it is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from test_claims import BY_NAME

from lora_xs.reporting.cells import Cell, Reading
from lora_xs.reporting.claims.finding import Finding, findings
from lora_xs.reporting.claims.pair import Pair
from lora_xs.reporting.claims.paired import Judged
from lora_xs.reporting.claims.show import open_words, pairs_words, task_words, where_words
from lora_xs.reporting.material import Material

Score = Callable[[Mapping[str, str], int], float]
SEEDS = (0, 1, 2)
JITTER = (0.2, -0.2, 0.1)


def grid(score: Score, *places: Mapping[str, str]) -> tuple[Cell, ...]:
    """A run for each place and seed."""
    cells = []
    for number, place in enumerate(places):
        readings = tuple(Reading(f"run {number} {seed}", seed, score(place, seed)) for seed in SEEDS)
        cells.append(Cell(place, None, readings, len(readings), metric="accuracy"))
    return tuple(cells)


def on(claim: str, experiment: str, cells: tuple[Cell, ...]) -> Finding:
    """The claim in a setting of our own, by these cells."""
    (found,) = findings(BY_NAME[claim], lambda name, overrides=(): Material(name, "", "ours", cells), only=[experiment])
    return found


def of_ranks(points: Mapping[str, Mapping[str, float]], *tasks: str) -> tuple[Cell, ...]:
    """method → rank → points, on each task, and a jitter of seeds that differs between places."""
    places = [
        {"task": task, "method": method, "rank": rank}
        for task in tasks
        for method, by_rank in points.items()
        for rank in by_rank
    ]
    turn = {str(place): number for number, place in enumerate(places)}
    return grid(
        lambda place, seed: points[place["method"]][place["rank"]] + JITTER[(seed + turn[str(place)]) % 3], *places
    )


def test_a_score_that_rises_and_then_falls_is_not_better_with_each_rank() -> None:
    points = {"lora_xs": {"4": 60.0, "8": 80.0, "16": 78.0, "25": 76.0}}
    found = on("more_rank_is_better", "mini_glue", of_ranks(points, "cola", "rte"))
    assert [(part.words.partition(": ")[2], part.verdict) for part in found.ours] == [
        *(("rank 8 over 4", "supported"), ("rank 16 over 8", "contradicted"), ("rank 25 over 16", "contradicted")),
    ]
    assert found.verdict == "contradicted"


def test_one_rank_far_above_does_not_speak_for_the_others() -> None:
    points = {"lora_sb": {"8": 80.0, "16": 59.0, "25": 59.0}, "lora_xs": {"8": 60.0, "16": 60.0, "25": 60.0}}
    found = on("sb_beats_xs", "mini_glue", of_ranks(points, "cola", "rte", "mrpc", "stsb"))
    assert {part.words.partition(": ")[2]: part.verdict for part in found.ours} == {
        **{"rank 8": "supported", "rank 16": "contradicted", "rank 25": "contradicted"}
    }
    assert found.verdict == "contradicted"


def test_each_task_says_its_mean_difference() -> None:
    cells = of_ranks({"lora_sb": {"8": 61.0}, "lora_xs": {"8": 60.0}}, "cola")
    far = of_ranks({"lora_sb": {"8": 90.0}, "lora_xs": {"8": 60.0}}, "rte")
    far = tuple(replace(c, readings=tuple(replace(r, signature=f"far {r.signature}") for r in c.readings)) for c in far)
    found = on("sb_beats_xs", "mini_glue", cells + far)
    assert task_words(found.ours[0]) == "CoLA +1.00, RTE +30.00"
    assert "CoLA, RTE (0 of 0 runs)" in where_words(found)
    assert "chosen on STS-B" in where_words(found)
    assert "chosen" not in where_words(on("sb_beats_xs", "mini_math", cells))


def test_a_verdict_that_rests_on_one_task_says_so() -> None:
    small = [Pair(f"RTE {seed}", seed, value, task="RTE") for seed, value in enumerate((0.4, -0.3, 0.2))]
    large = [Pair(f"STS-B {seed}", seed, value, task="STS-B") for seed, value in enumerate((9.0, 9.4, 8.8))]
    same = [Pair(f"MRPC {seed}", seed, value, task="MRPC") for seed, value in enumerate((9.1, 9.2, 9.0))]
    undecided = Judged("", tuple(small + large))
    assert undecided.so_far == "undecided" and undecided.without_task == {}
    rests = Judged("", tuple(large + large + small))
    assert rests.so_far == "supported" and rests.without_task == {"STS-B": "undecided"}
    assert open_words(rests) == ["rests on STS-B: without it undecided"]
    assert Judged("", tuple(large + same)).without_task == {} == Judged("", tuple(large)).without_task


@pytest.mark.parametrize("way", [1, -1])
def test_modules_and_fractions_of_two_runs_are_two_pairs(way: int) -> None:
    places = [
        {"task": task, "analysis": "spectrum", "module": module, "retained_fraction": fraction, "subset": subset}
        for task in ("mrpc", "cola")
        for module in ("query", "value", "output.dense")
        for fraction in ("0.1", "0.25", "0.5")
        for subset in ("top", "bottom")
    ]
    cells = tuple(
        Cell(place, None, (Reading(place["task"], 0, 50 + way * 20 * (place["subset"] == "top")),), 1)
        for place in places
    )
    found = on("top_directions_carry_the_model", "mini_spectrum", cells)
    (part,) = found.ours
    assert (part.n, len(part.differences), part.verdict) == (2, 18, "undecided")
    assert pairs_words(part) == f"{2 if way > 0 else 0} of 2 pairs (18 differences)"


def test_four_kinds_of_noise_against_one_run_are_one_pair() -> None:
    kinds = ["update", *(f"update_plus_noise_1e-{n}" for n in (2, 3, 4, 5))]
    cells = grid(lambda place, seed: 60.0 + JITTER[seed], *({"decomposed_matrix": kind} for kind in kinds))
    found, _ = findings(BY_NAME["noise_hurts"], lambda name, overrides=(): Material(name, "", "", cells))
    assert (found.ours[0].n, len(found.ours[0].differences)) == (3, 12)


@pytest.mark.parametrize(("tasks", "verdict"), [(("sst2", "stsb"), "undecided"), (("sst2", "mrpc"), "supported")])
def test_except_on_mrpc_needs_mrpc(tasks: tuple[str, ...], verdict: str) -> None:
    places = [
        {"task": task, "init": init, "rank": "4", "lr": "0.001", "classifier_lr": "0.003"}
        for task in tasks
        for init in ("svd_w", "svd_w_no_sigma")
    ]

    def score(place: Mapping[str, str], seed: int) -> float:
        with_sigma = place["init"] == "svd_w"
        return 60 + JITTER[seed] * with_sigma + 2 * (with_sigma != (place["task"] == "mrpc"))

    found = on("sigma_helps_but_for_mrpc", "mini_init_best", grid(score, *places))
    assert (found.ours[0].verdict, found.verdict) == ("supported", verdict)
