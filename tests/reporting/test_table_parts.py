"""The parts of a table: intervals, labels, escapes, averages and what a cell says."""

from __future__ import annotations

import pytest
from latex_check import check_latex

from lora_xs.records import Record
from lora_xs.reporting import render_latex, render_markdown
from lora_xs.reporting.bootstrap import interval
from lora_xs.reporting.cell_text import signed, text_of
from lora_xs.reporting.cells import Behind, Cell, Reading, build_cells
from lora_xs.reporting.layout import lay_out
from lora_xs.reporting.noise import of_average
from lora_xs.reporting.published import PublishedCell
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
