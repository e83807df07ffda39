"""The parts of a table: intervals, labels, escapes, averages and what a cell says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from latex_check import check_latex

from lora_xs.records import COLLAPSED, Record
from lora_xs.reporting import render_latex, render_markdown
from lora_xs.reporting.bootstrap import interval
from lora_xs.reporting.building import build_cells
from lora_xs.reporting.cell_text import signed, text_of
from lora_xs.reporting.cells import Behind, Cell, Reading
from lora_xs.reporting.layout import lay_out
from lora_xs.reporting.noise import Tolerance, of_average, seed_errors
from lora_xs.reporting.published import PublishedCell
from lora_xs.reporting.readings import reading
from lora_xs.reporting.table import own_notes
from lora_xs.sweeps.experiment import Aggregate, Experiment

SPECIALS = "a_b & 5 % of $x$ #1 {c} ~ ^ \\ < | ± Δ"
TASKS = ("sst2", "mrpc", "cola", "qnli", "rte", "stsb")
EXPERIMENT = Experiment("own", "ours", "ours", (), aggregate=Aggregate("median", "best", (0, 1, 2)))


def record(signature: str, value: float, metric: str = "accuracy", **train: object) -> Record:
    line = {"epoch": 1.0, metric: value, "constant_prediction": value == 50.0}
    run = {"signature": signature, "seed": 0, "spec": {"task": {"main_metric": metric}}}
    return Record("finished", run, {"best": line, "last": line, **train}, {})


def test_the_interval_of_equal_values_is_a_point_and_two_values_have_none() -> None:
    assert interval([3.0, 3.0, 3.0], "median") == (3.0, 3.0)
    assert interval([1.0, 2.0], "mean") is None
    low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0], "mean") or (0.0, 0.0)
    assert 1.0 < low < 2.2 and 3.8 < high < 5.0


def test_the_interval_of_a_mean_has_the_width_of_its_standard_error() -> None:
    values = [float(n % 10) for n in range(400)]
    low, high = interval(values, "mean") or (0.0, 0.0)
    assert (high - low) / 2 == pytest.approx(1.96 * 2.872 / 20, rel=0.05)


def test_a_cell_without_a_column_stands_below_its_metrics_name() -> None:
    runs = [Behind("a", 0, {"method": "lora"}), Behind("b", 0, {"method": "lora_xs"})]
    tests = {"boolq": {"points": 60.0, "n": 25}}
    records = {"a": record("a", 1.2345678, "response_loss", tests=tests)}
    cells = build_cells(EXPERIMENT, runs, records)
    laid = lay_out("own", cells)
    assert laid.columns == ("loss", "BoolQ") and [row.labels for row in laid.rows] == [("LoRA",), ("LoRA-XS",)]
    texts = [[text_of(cell).ours for cell in row.cells] for row in laid.rows]
    assert texts == [["1.2346 (n=1)", "60.00 (n=1)"], ["missing (0/1)", "missing (0/1)"]]


def test_two_cells_on_one_place_are_an_error() -> None:
    with pytest.raises(ValueError, match="fall on one place"):
        lay_out("own", [Cell({"lr": "1e-3"}, None), Cell({"lr": "0.001"}, None)])


def test_one_answer_for_every_row_is_noted() -> None:
    (cell,) = build_cells(EXPERIMENT, [Behind("a", 0, {"task": "mrpc"})], {"a": record("a", 50.0)})
    assert own_notes(cell) == ("1 of 1 gave every row the same answer",)
    (cell,) = build_cells(EXPERIMENT, [Behind("a", 0, {"task": "mrpc"})], {"a": record("a", 51.0)})
    assert own_notes(cell) == ()


def test_an_averages_tolerance_comes_from_its_columns() -> None:
    place = {"model": "roberta-large", "method": "full_ft"}
    runs = [Behind(task, 0, {**place, "task": task}) for task in TASKS]
    glue = Experiment("t", "t", "t", ("lora_xs/table01_glue.csv",), aggregate=EXPERIMENT.aggregate)
    cells = build_cells(glue, runs, {run.signature: record(run.signature, 90.0) for run in runs})
    row = [cell for cell in cells if cell.place["method"] == "full_ft"]
    (average,) = (cell for cell in row if cell.place["task"] == "avg")
    parts = [cell.allowed for cell in row if cell is not average and cell.allowed is not None]
    assert average.allowed == of_average(parts) and len(parts) == 6
    assert average.ours == pytest.approx(90.0) and average.status == "off"  # 88.17 is printed


def test_what_a_seed_does_to_tests_of_one_run_is_common_to_them() -> None:
    columns = [Tolerance(1.0, "", chance=0.6)] * 4
    apart, shared = of_average(columns), of_average(columns, seeds=(0.8, 0.0))
    assert apart.standard_error == pytest.approx(0.5)
    assert shared.standard_error == pytest.approx(math.hypot(0.3, 0.8))


def test_a_spread_that_nobody_knows_is_not_taken_for_none() -> None:
    known = seed_errors("gsm8k", 0.3, 4, None, 1, "mean")
    assert known == (pytest.approx(0.15), pytest.approx(0.3))
    assert seed_errors("gsm8k", None, 1, None, 1, "mean") == (0.49, 0.49)
    assert seed_errors("sst2", None, 1, None, 1, "mean") == (0.145, 0.145)


def test_seconds_are_shown_and_not_judged() -> None:
    printed = PublishedCell({"quantity": "svd_init_seconds"}, 10.6, None, "10.6", "f:2", {})
    cell = Cell(printed.place, printed, (Reading("a", 0, 12.34),), 1, metric="svd_init_seconds")
    text = text_of(cell)
    assert (text.ours, text.published, text.comparison) == ("12.3 (n=1)", "10.6", "+1.7, not compared")
    assert signed(-0.001, cell) == "0.0"


def test_specials_are_escaped_as_each_format_needs() -> None:
    assert check_latex("\\begin{tabular}{l}\n" + render_latex.escape(SPECIALS) + " \\\\\n\\end{tabular}\n") == 1
    assert render_markdown.escape("a|b_c*d`e[f]<g>") == "a\\|b\\_c\\*d\\`e\\[f]&lt;g>"


@pytest.mark.parametrize("broken", ["5 %", "a_b", "#1", "{", "\\begin{x}", "a & b", "é"])
def test_the_strict_reading_refuses_what_latex_would(broken: str) -> None:
    with pytest.raises(AssertionError):
        check_latex("\\begin{tabular}{l}\n" + broken + " \\\\\n\\end{tabular}\n")


def of_task(task: str, seed: int, value: float | None, **cell: str) -> tuple[Behind, Record | None]:
    """A planned run of a small experiment of ours and its record; None: not run; below 0: diverged."""
    run = Behind(f"{task}{seed}{cell}", seed, {"task": task, "method": "lora", **cell})
    if value is None:
        return run, None
    made = record(run.signature, value)
    return run, made if value >= 0 else Record("diverged", made.run, {}, {})


def own_averages(*found: tuple[Behind, Record | None]) -> list[Cell]:
    experiment = replace(EXPERIMENT, aggregate=Aggregate("median", "best", (0, 1, 2), average=True))
    records = {run.signature: made for run, made in found if made is not None}
    cells = build_cells(experiment, [run for run, _ in found], records)
    return [cell for cell in cells if cell.place["task"] == "avg"]


def test_an_average_of_ours_is_over_the_seeds_that_have_every_task() -> None:
    scores = {"cola": [40.0, 50.0, 60.0], "rte": [80.0, 70.0, None]}
    found = [of_task(task, seed, value) for task, values in scores.items() for seed, value in enumerate(values)]
    (average,) = own_averages(*found)
    assert [(one.seed, one.value) for one in average.readings] == [(0, 60.0), (1, 60.0)]
    assert (average.planned, average.status, text_of(average).ours) == (3, "partial", "60.00 ± 0.00 (2/3)")
    alone = [of_task("cola", 0, 1.0), of_task("cola", 0, 1.0, rank="8"), of_task("rte", 0, 3.0, rank="8")]
    (average,) = own_averages(*alone)  # the other row lacks a task of the table
    assert average.place == {"task": "avg", "method": "lora", "rank": "8"} and average.ours == 2.0


def test_a_seed_that_two_tasks_lost_is_one_number_less() -> None:
    scores = {"cola": [40.0, -1.0, None], "rte": [80.0, -1.0, None]}
    found = [of_task(task, seed, value) for task, values in scores.items() for seed, value in enumerate(values)]
    (average,) = own_averages(*found)
    assert (average.n, len(average.diverged), average.status) == (1, 1, "partial")


def glue_row(*, lost: str = "", seeds: tuple[int, ...] = (0, 1)) -> list[Cell]:
    """LoRA-XS Table 1's cells of full fine-tuning, all of them 90; seed 1 of the task `lost` diverged."""
    place = {"model": "roberta-large", "method": "full_ft"}
    runs = [Behind(f"{task}{seed}", seed, {**place, "task": task}) for task in TASKS for seed in seeds]
    records = {run.signature: record(run.signature, 90.0) for run in runs}
    if lost:
        records[f"{lost}1"] = Record("diverged", records[f"{lost}1"].run, {}, {})
    glue = Experiment(
        "t", "t", "t", ("lora_xs/table01_glue.csv",), aggregate=Aggregate("median", "best", tuple(range(5)))
    )
    return [cell for cell in build_cells(glue, runs, records) if cell.place["method"] == "full_ft"]


def test_a_collapsed_run_counts_with_its_score_and_is_named() -> None:
    found = [of_task("rte", seed, value) for seed, value in enumerate((60.0, 70.0, 51.0))]
    for _, ended in found[2:]:
        assert ended is not None
        ended.status, ended.run["error"] = "diverged", {"what": COLLAPSED}
    (cell,) = build_cells(EXPERIMENT, [run for run, _ in found], {run.signature: made for run, made in found if made})
    assert (cell.n, cell.ours, cell.diverged, cell.status) == (3, 60.0, (), "ours alone")
    assert own_notes(cell) == ("1 of 3 ended in one answer for every row",)


def test_a_diverged_run_leaves_the_row_its_average_and_a_footnote() -> None:
    (average,) = (cell for cell in glue_row(lost="rte") if cell.place["task"] == "avg")
    assert average.ours == pytest.approx(90.0) and average.status not in ("not run", "partial", "diverged")
    assert own_notes(average) == ("diverged: rte1",)


def test_the_paper_s_number_is_of_as_many_seeds_whatever_is_planned_here() -> None:
    one, two = (glue_row(seeds=seeds)[0].allowed for seeds in ((0,), (0, 1)))
    assert one is not None and two is not None
    assert one.words.partition(" here, ")[2] == two.words.partition(" here, ")[2]


def answered(tests: dict[str, dict[str, object]]) -> Record:
    return record("a", 1.5, "response_loss", tests=tests)


def test_a_test_that_was_not_answered_is_no_other_number() -> None:
    gsm8k = answered({"gsm8k": {"points": 40.0, "n": 25}})
    assert reading(gsm8k, {"task": "gsm8k"}, "last") == 40.0
    assert reading(gsm8k, {"task": "math"}, "last") is None  # not the loss
    assert reading(gsm8k, {"method": "lora"}, "last") == 1.5
    assert reading(gsm8k, {"task": "avg"}, "last", ("gsm8k", "math")) is None
    both = answered({"gsm8k": {"points": 40.0, "n": 25}, "math": {"points": 10.0, "n": 25}})
    assert reading(both, {"task": "avg"}, "last", ("gsm8k", "math")) == 25.0


def test_tests_read_both_ways_have_a_row_of_each_reading_and_an_average() -> None:
    def both(likely: float, written: float) -> dict[str, object]:
        return {"points": written, "n": 25, "scores": {}, "no_answer": 3, "likelihood": {"sum": likely}}

    run = Behind("a", 0, {"method": "lora"})
    records = {"a": answered({"boolq": both(60.0, 30.0), "obqa": both(40.0, 10.0)})}
    cells = build_cells(EXPERIMENT, [run], records)
    found = {(cell.place.get("reading"), cell.place.get("task")): cell for cell in cells}
    assert {key: cell.ours for key, cell in found.items()} == {
        **{(None, None): 1.5, ("likelihood", "boolq"): 60.0, ("likelihood", "obqa"): 40.0},
        **{("generation", "boolq"): 30.0, ("generation", "obqa"): 10.0},
        **{("likelihood", "avg"): 50.0, ("generation", "avg"): 20.0},
    }
    assert own_notes(found["generation", "boolq"]) == ("3 of 25 completions held no answer",)
    assert own_notes(found["likelihood", "boolq"]) == ()
    assert [row.labels for row in lay_out("own", cells).rows] == [("–",), ("by likelihood",), ("by generation",)]
