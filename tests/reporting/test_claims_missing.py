"""No verdict is given over runs that are not there: those not run yet, and those that diverged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from claim_worlds import world_of_records
from synthetic import Numbers, record_of
from test_claims import BY_NAME, SB, XS, cell
from test_claims_parts import of_ranks, on

from lora_xs.records import COLLAPSED, Record, Status
from lora_xs.reporting.cells import Behind, Cell
from lora_xs.reporting.claims.checklist import CLAIMS, speed
from lora_xs.reporting.claims.finding import findings
from lora_xs.reporting.claims.from_records import first_epochs, other_alphas
from lora_xs.reporting.claims.matching import matched
from lora_xs.reporting.claims.pair import Lost, Pair
from lora_xs.reporting.claims.show import open_words, where_words
from lora_xs.reporting.claims.written import claims_page
from lora_xs.reporting.ended import Ended, ended_of
from lora_xs.reporting.evidence import Evidence
from lora_xs.reporting.index import summary
from lora_xs.reporting.material import Material
from lora_xs.reporting.planned import planned_runs
from lora_xs.reporting.table import make_table
from lora_xs.sweeps.experiment_file import load_experiment


def without(one: Cell, *seeds: int) -> Cell:
    """The cell with these seeds diverged."""
    gone = tuple(reading.signature for reading in one.readings if reading.seed in seeds)
    return replace(one, readings=tuple(r for r in one.readings if r.seed not in seeds), diverged=gone)


def test_pairs_lost_to_divergence_are_counted_and_leave_a_claim_open() -> None:
    cells = of_ranks({"lora_sb": {"8": 62.0}, "lora_xs": {"8": 60.0}}, "cola", "rte", "mrpc", "stsb")
    assert on("sb_beats_xs", "mini_glue", cells).verdict == "supported"
    cells = tuple(without(one, 0, 1) if one.place["method"] == "lora_sb" else one for one in cells)
    found = on("sb_beats_xs", "mini_glue", cells)
    (part,) = found.ours
    assert (part.n, part.so_far, part.verdict) == (4, "supported", "undecided")
    assert open_words(part) == ["so far: supported", "lost: 8 of LoRA-SB diverged"]
    assert "lost: 8 of LoRA-SB diverged" in claims_page([found])


def test_a_variant_that_diverged_everywhere_is_lost_not_absent() -> None:
    cells = [without(cell({**SB, "task": "cola"}, {0: 1.0, 1: 1.0}), 0, 1), cell({**XS, "task": "cola"}, {0: 1.0})]
    assert matched(cells, True, SB, XS) == [Lost("lora_sb-cola-0", "LoRA-SB"), Lost("lora_sb-cola-1", "LoRA-SB")]
    alone = without(cell({**SB, "task": "rte"}, {0: 1.0}), 0)
    assert matched([alone], True, SB, XS) == []


def test_of_a_grid_the_losses_of_the_best_cell_count() -> None:
    places = [{"init": i, "task": "cola", "lr": lr, "classifier_lr": "1"} for i in ("svd_w", "random") for lr in "123"]
    cells = [cell(place, {0: float(place["lr"]), 1: 0.0, 2: 0.0}) for place in places]
    stable = [without(one, 0) if one.place["lr"] == "3" else one for one in cells]
    how: dict[str, Any] = {"best_over": ("lr", "classifier_lr")}
    sides = {"init": "svd_w"}, {"init": "random"}
    assert not [one for one in matched(stable, True, *sides, **how) if isinstance(one, Lost)]
    cells[2] = without(cells[2], 1)
    cells[:2] = [without(one, 1, 2) for one in cells[:2]]
    (lost,) = [one for one in matched(cells, True, *sides, **how) if isinstance(one, Lost)]
    assert lost == Lost("svd_w-cola-3-1-1", "SVD of W")
    (early,) = [one for one in first_epochs(Material("mini_init_best", "", "", tuple(cells)), True)]
    assert early == lost


def test_runs_compared_one_by_one_are_lost_too() -> None:
    world = world_of_records("sb_starts_lower", 1)
    world.records["lora_sb-1"].status = "diverged"
    world.records["lora-0"].status = "diverged"  # of another method
    (found, *_) = findings(BY_NAME["sb_starts_lower"], lambda name, overrides=(): world, only=["mini_math"])
    assert (found.ours[0].n, found.ours[0].lost_runs, found.verdict) == (4, {"LoRA-SB": 1}, "undecided")
    assert found.setting.ended == Ended(planned=15, scored=13, diverged=2)
    assert "(13 of 15 runs, 2 diverged)" in where_words(found)


def test_a_collapsed_run_is_counted_among_those_with_scores() -> None:
    ends: list[dict[str, Any]] = [{}, {"what": COLLAPSED}, {"what": "loss"}]
    statuses: list[Status] = ["finished", "diverged", "diverged"]
    records = {
        str(place): Record(status, {"signature": str(place), "error": error})
        for place, (status, error) in enumerate(zip(statuses, ends, strict=True))
    }
    ended = ended_of(["0", "1", "2", "3", "3"], records)
    assert ended == Ended(planned=4, scored=2, collapsed=1, diverged=1) and not ended.is_complete
    assert ended.words == "2 of 4 runs, 1 of them collapsed, 1 diverged"
    assert ended_of(records, records).is_complete


def test_an_alpha_that_diverged_is_lost() -> None:
    world = world_of_records("sb_needs_no_alpha", 1)
    world.records["other-0"].status = "diverged"
    found = other_alphas(world, True)
    assert [one for one in found if isinstance(one, Lost)] == [Lost("other-0", "LoRA-SB, alpha 32")]
    assert len(found) == 5


def test_a_part_of_an_experiment_has_no_verdict_only_what_its_pairs_say() -> None:
    world = world_of_records("sb_starts_lower", 1)
    more = replace(world, runs=(*world.runs, Behind("not run", 5, {"method": "lora_sb", "rank": "16"})))
    (whole, part) = (
        findings(BY_NAME["sb_starts_lower"], lambda name, overrides=(), m=m: m, only=["mini_math"])[0]  # type: ignore[misc]
        for m in (world, more)
    )
    assert (whole.verdict, part.verdict, part.so_far) == ("supported", "undecided", "supported")
    page = claims_page([whole, part])
    holds, incomplete = page.split("\n## ")[1:]
    assert (
        holds.startswith("Holds here") and incomplete.startswith("Not complete") and "so far: supported" in incomplete
    )
    assert "1 claims, 1 of them with runs here, 0 not run." in page and "1 holds here, 1 not complete" in page


def test_seconds_are_compared_on_equal_machines_alone() -> None:
    world = world_of_records("xs_trains_as_fast_as_lora", 1)
    for name, one in world.records.items():
        seed = int(name[-1])
        hardware = {"cpu": "a", "cores": 2} if seed < 4 else {"cpu": name, "cores": 2}
        one.environment.update(hardware=hardware, threads={"torch": 1 + (name == "lora-0")})
    assert [one.seed for one in speed(world, True) if isinstance(one, Pair)] == [1, 2, 3]
    (claim,) = (claim for claim in CLAIMS if claim.name == "xs_trains_as_fast_as_lora")
    assert claim.own == () and "results/benchmarks.md" in claim.how


@pytest.fixture
def ended() -> Evidence:
    """Two runs of mini_math that finished and one that diverged."""
    runs = planned_runs("mini_math")[:3]
    statuses = ("finished", "diverged", "finished")
    records = {run.signature: record_of(run, Numbers(), s) for run, s in zip(runs, statuses, strict=True)}
    return Evidence(records)


def test_a_diverged_run_is_not_counted_as_finished(ended: Evidence) -> None:
    table = make_table(load_experiment("mini_math"), ended)
    assert summary(table, ended, ["md"])["runs"] == {"planned": 9, "scored": 2, "collapsed": 0, "diverged": 1}
