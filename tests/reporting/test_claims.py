"""Each claim can come out supported, contradicted and undecided; the rule is one; printed numbers are judged apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from claim_worlds import EFFECTS, OF_RECORDS, record, world_of_cells, world_of_records

from lora_xs.reporting.cells import Behind, Cell, Reading
from lora_xs.reporting.claims.checklist import CLAIMS
from lora_xs.reporting.claims.finding import Finding, findings
from lora_xs.reporting.claims.from_records import first_epochs, other_alphas, start_loss, start_overhead
from lora_xs.reporting.claims.matching import matched
from lora_xs.reporting.claims.pair import Pair, independent
from lora_xs.reporting.claims.show import print_findings
from lora_xs.reporting.claims.written import claims_page
from lora_xs.reporting.material import Material
from lora_xs.sweeps.experiment_file import experiment_names

BY_NAME = {claim.name: claim for claim in CLAIMS}
VERDICTS = {1: "supported", -1: "contradicted", 0: "undecided"}


def in_a_world(claim: str, way: int, seeds: int = 5) -> Finding:
    """The claim in the papers' setting of a world."""

    def gather(name: str, overrides: tuple[str, ...] = ()) -> Material:
        if claim in OF_RECORDS:
            return (
                world_of_records(claim, way, seeds) if name == BY_NAME[claim].papers[0] else Material(name, "", "", ())
            )
        return world_of_cells(name, EFFECTS[claim], way, seeds)

    return findings(replace(BY_NAME[claim], own=()), gather)[0]


def test_the_page_of_claims_names_every_claim_once_and_below_its_verdict() -> None:
    ways = {"top_beats_bottom": 1, "xs_beats_vera": -1, "more_rank_is_better": 0}
    untested = findings(BY_NAME["sb_starts_lower"], lambda name, overrides=(): Material(name, "", "", ()))
    page = claims_page([*(in_a_world(claim, way) for claim, way in ways.items()), *untested])
    parts = page.split("\n## ")
    assert [part.partition("\n")[0] for part in parts[1:]] == [
        *("Holds here", "Does not hold here", "Undecided here", "Not run here"),
    ]
    for part, claim in zip(parts[1:], (*ways, "sb_starts_lower"), strict=True):
        assert part.count("`)") + part.count("`; ") == 1 and f"`{claim}`" in part
    assert "4 claims, 3 of them with runs here, 1 not run." in parts[0]
    assert "one for each setting of a claim: 1 holds here, 1 does not hold here, 1 undecided here." in parts[0]
    assert "| support it |" in parts[1] and "pairs, seeds 0, 1, 2, 3, 4" in parts[1]
    assert claims_page(untested).startswith("# The papers' claims") and "of a claim: none." in claims_page(untested)


def test_at_least_twelve_claims_each_of_experiments_there_are() -> None:
    assert len(CLAIMS) >= 12 and len(BY_NAME) == len(CLAIMS)
    assert set(EFFECTS) | set(OF_RECORDS) == set(BY_NAME)
    named = {name for claim in CLAIMS for name in (*claim.papers, *claim.own)}
    assert named <= set(experiment_names())


@pytest.mark.parametrize("way", [1, -1, 0])
@pytest.mark.parametrize("claim", list(BY_NAME))
def test_a_claim_comes_out_as_the_world_is(claim: str, way: int) -> None:
    finding = in_a_world(claim, way)
    assert finding.verdict == VERDICTS[way], [(part.words, part.effect, part.interval, part.p) for part in finding.ours]
    assert all(part.counted or part.n >= 3 for part in finding.ours)
    assert finding.setting.is_papers


@pytest.mark.parametrize("claim", ["orthonormal_is_better", "sb_starts_lower", "svd_takes_no_time"])
def test_two_pairs_decide_nothing_however_far_apart(claim: str) -> None:
    for way in (1, -1):
        finding = in_a_world(claim, way, seeds=2)
        assert finding.ours[0].n == 2 and finding.verdict == "undecided"


def test_a_count_alone_contradicts_where_parameters_are_not_fewer() -> None:
    def gather(name: str, overrides: tuple[str, ...] = ()) -> Material:
        world = world_of_cells(name, EFFECTS["xs_beats_vera"], 1)
        return replace(world, cells=tuple(replace(cell, parameters=61_440) for cell in world.cells))

    (finding,) = findings(replace(BY_NAME["xs_beats_vera"], own=()), gather)
    assert [part.verdict for part in finding.ours] == ["supported", "contradicted"]
    assert finding.verdict == "contradicted"


PRINTED = {
    "svd_beats_random": ("undecided", ["3 of 4"]),
    "svd_of_w_beats_svd_of_noise": ("undecided", ["3 of 4"]),
    "top_beats_bottom": ("supported", ["4 of 4"]),
    "sigma_helps_but_for_mrpc": ("undecided", ["3 of 3", "1 of 1"]),
    "xs_beats_vera": ("undecided", ["2 of 6", "1 of 1"]),
    "xs_beats_lora": ("undecided", ["4 of 6"]),
    "more_rank_is_better": ("undecided", ["6 of 6", "6 of 6", "5 of 6", "2 of 6", "6 of 6"]),
    "svd_takes_no_time": ("undecided", ["4 of 4"]),
    "xs_trains_as_fast_as_lora": ("supported", ["3 of 3"]),
    "svd_learns_faster": ("undecided", ["7 of 9"]),
    "attention_needs_few_directions": ("undecided", ["3 of 3", "3 of 3"]),
    "top_directions_carry_the_model": ("supported", ["3 of 3"]),
    "sb_beats_xs": ("undecided", ["3 of 3", "3 of 3", "3 of 3", "6 of 6", "6 of 6", "6 of 6"]),
    "sb_starts_lower": None,
    "sb_needs_no_alpha": None,
    "few_rows_suffice": ("undecided", ["2 of 2"]),
    "noise_hurts": ("undecided", ["1 of 1"]),
    "orthonormal_is_better": ("undecided", ["1 of 1"]),
}
"""What the papers' own numbers say by the rule, and how many independent pairs speak for each part."""


@pytest.mark.parametrize("claim", list(BY_NAME))
def test_what_the_papers_print_is_judged_apart_from_ours(claim: str) -> None:
    def gather(name: str, overrides: tuple[str, ...] = ()) -> Material:
        return world_of_cells(name, lambda place, way: 0.0, 0, seeds=0)

    (finding,) = findings(replace(BY_NAME[claim], own=()), gather)
    assert finding.verdict == "undecided" and not any(part.n for part in finding.ours if not part.counted)
    if PRINTED[claim] is None:
        assert finding.published is None and finding.published_verdict is None
    else:
        assert finding.published is not None
        holding = [f"{part.holding} of {part.n}" for part in finding.published]
        assert (finding.published_verdict, holding) == PRINTED[claim]
        assert all(pair.seed is None for part in finding.published for pair in part.pairs)


def cell(place: Mapping[str, str], values: Mapping[int, float], metric: str = "accuracy", run: str = "") -> Cell:
    name = run or "-".join(place.values())
    readings = tuple(Reading(f"{name}-{seed}", seed, value) for seed, value in values.items())
    return Cell(place, None, readings, len(readings), metric=metric)


XS, SB = {"method": "lora_xs"}, {"method": "lora_sb"}


def matched_pairs(cells: Sequence[Cell]) -> list[Pair]:
    """LoRA-SB minus LoRA-XS."""
    return [one for one in matched(cells, True, SB, XS) if isinstance(one, Pair)]


def test_only_equal_seeds_and_places_are_paired_and_averages_are_not() -> None:
    cells = [
        cell({**SB, "task": "mrpc", "rank": "8"}, {0: 3.0, 1: 5.0, 2: 9.0}),
        cell({**XS, "task": "mrpc", "rank": "8"}, {1: 1.0, 2: 2.0, 3: 100.0}),
        cell({**XS, "task": "mrpc", "rank": "16"}, {0: 50.0, 1: 50.0}),
        cell({**SB, "task": "avg", "rank": "8"}, {0: 1.0}),
        cell({**XS, "task": "avg", "rank": "8"}, {0: 0.0}),
    ]
    pairs = matched_pairs(cells)
    assert [(pair.place, pair.seed, pair.difference) for pair in pairs] == [
        ("rank 8, MRPC", 1, 4.0),
        ("rank 8, MRPC", 2, 7.0),
    ]
    assert pairs[0].runs == ("lora_sb-mrpc-8-1", "lora_xs-mrpc-8-1")


def test_a_lower_loss_speaks_for_the_better_and_is_kept_before_small_tests() -> None:
    cells = [
        cell(SB, {0: 1.0}, "response_loss", "sb"),
        cell(XS, {0: 1.5}, "response_loss", "xs"),
        cell({**SB, "task": "boolq"}, {0: 40.0}, run="sb"),
        cell({**XS, "task": "boolq"}, {0: 60.0}, run="xs"),
    ]
    (pair,) = matched_pairs(cells)
    assert (pair.difference, pair.unit) == (0.5, "nats")


def test_tests_that_the_same_runs_answered_are_one_pair() -> None:
    cells = [
        cell({**method, "task": task}, {0: value}, run=method["method"])
        for method, values in ((SB, (40.0, 50.0, 66.0)), (XS, (38.0, 49.0, 60.0)))
        for task, value in zip(("boolq", "piqa", "siqa"), values, strict=True)
    ]
    (pair,) = independent(matched_pairs(cells))
    assert pair.difference == 3.0 and "2 more numbers of the same runs" in pair.place


def test_a_variant_stands_at_its_best_rates_among_cells_of_most_seeds() -> None:
    def at(init: str, lr: str, values: Mapping[int, float]) -> Cell:
        return cell({"init": init, "task": "cola", "lr": lr}, values)

    cells = [
        at("svd_w", "0.001", {0: 60.0, 1: 62.0, 2: 61.0}),
        at("svd_w", "0.005", {0: 70.0}),  # one lucky seed
        at("svd_w", "0.0005", {0: 10.0, 1: 10.0, 2: 10.0}),
        at("random", "0.001", {0: 20.0, 1: 20.0, 2: 20.0}),
        at("random", "0.005", {0: 50.0, 1: 50.0, 2: 50.0}),
    ]
    pairs = matched(cells, True, {"init": "svd_w"}, {"init": "random"}, best_over=("lr", "classifier_lr"))
    assert [pair.difference for pair in pairs] == [10.0, 12.0, 11.0]


def test_a_run_whose_factors_were_stored_times_no_decomposition() -> None:
    world = world_of_records("svd_takes_no_time", 1)
    for seed, cached in ((0, 24), (1, 23)):
        world.records[f"lora_xs-{seed}"].train["factors"] = {"modules": 24, "cached": cached}
    assert [pair.seed for pair in start_overhead(world, True)] == [1, 2, 3, 4]


def test_without_a_scored_start_the_first_losses_stand_for_it(tmp_path: Any) -> None:
    lines = [{"kind": "train", "step": step, "loss": float(step)} for step in range(1, 9)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run, one = Behind("a", 0, XS), record("a", 0, {"name": "lora_xs"}, "response_loss", {})
    assert start_loss(Material("", "", "", (), (run,), {"a": one}, {"a": tmp_path}))(run, one) == 3.0
    assert start_loss(Material("", "", "", (), (run,), {"a": one}, {}))(run, one) is None


def test_alphas_are_compared_only_where_all_else_is_equal_and_a_run_is_the_experiment_s() -> None:
    world = world_of_records("sb_needs_no_alpha", 1)
    assert len(other_alphas(world, True)) == 5
    world.records["other-0"].run["spec"]["rank"] = 8
    assert [pair.seed for pair in other_alphas(world, True)] == [1, 2, 3, 4]
    assert other_alphas(replace(world, runs=()), True) == []


def test_three_alphas_lie_as_far_apart_as_the_highest_from_the_lowest_score() -> None:
    scores = {8.0: 70.0, 16.0: 70.9, 32.0: 71.8}
    records = {
        str(alpha): record(
            str(alpha), 0, {"name": "lora_sb", "alpha": alpha}, "accuracy", {"best": {"accuracy": points}}
        )
        for alpha, points in scores.items()
    }
    world = Material("mini_glue", "", "", (), (Behind("16.0", 0, {}),), records)
    (pair,) = other_alphas(world, True)
    assert isinstance(pair, Pair) and pair.difference == pytest.approx(-1.8) and len(pair.runs) == 3


def test_first_epochs_of_a_grid_are_read_where_the_best_epoch_is_best() -> None:
    cells, records = [], {}
    for init, lr, best, early in (
        ("svd_w", "0.001", 80.0, 70.0),
        ("svd_w", "0.005", 60.0, 10.0),
        ("random", "0.001", 75.0, 40.0),
    ):
        one = cell({"init": init, "task": "mrpc", "lr": lr, "classifier_lr": "0.001"}, {0: best})
        lines = [
            {"epoch": 1.0, "accuracy": early},
            {"epoch": 2.0, "accuracy": early + 2},
            {"epoch": 3.0, "accuracy": best},
        ]
        signature = one.readings[0].signature
        records[signature] = record(signature, 0, {"name": "lora_xs"}, "accuracy", {"evaluations": lines})
        cells.append(one)
    (pair,) = first_epochs(Material("mini_init_best", "", "", tuple(cells), (), records), True)
    assert pair.difference == 30.0


def test_settings_of_our_own_are_named_as_such_and_left_out_without_runs() -> None:
    claim = BY_NAME["sb_starts_lower"]
    world = world_of_records(claim.name, 1)

    def gather(name: str, overrides: tuple[str, ...] = ()) -> Material:
        return replace(world, name=name) if name == "mini_math" else Material(name, "", "", ())

    papers, own = findings(claim, gather)
    assert papers.setting.is_papers and papers.verdict == "undecided" and papers.setting.models == ()
    assert own.verdict == "supported" and own.published is None
    assert own.setting.words == "mini_math: a model, 15 of 15 runs; not the papers' setting"
    (changed,) = findings(claim, gather, ("task.train_rows=50",), ("mini_math",))
    assert "task.train_rows=50" in changed.setting.words
    (changed,) = findings(claim, gather, ("trainer.epochs=1",), claim.papers)
    assert not changed.setting.is_papers
    content = json.loads(json.dumps(own.to_json()))
    assert content["ours"]["parts"][0]["pairs"][0]["runs"] == ["lora_sb-0", "lora_xs-0"]
    assert content["ours"]["verdict"] == "supported" and content["published"] is None


def test_the_table_shows_ours_and_the_printed_apart() -> None:
    from io import StringIO

    from rich.console import Console

    out = StringIO()
    print_findings([in_a_world("top_beats_bottom", -1)], Console(file=out, width=240))
    said = out.getvalue()
    assert "contradicted" in said and "supported: 4 of 4" in said and "0, 1, 2, 3, 4" in said
