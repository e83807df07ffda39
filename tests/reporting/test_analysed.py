"""Analyses as numbers of cells: Tables 8–11 from records of analyses, Table 6 of LoRA-SB from counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_xs.analysis.record import AnalysisRecord, read_analysis, write_analysis
from lora_xs.records import Record
from lora_xs.reporting.analysed import Analysed, analyses_below
from lora_xs.reporting.building import build_cells
from lora_xs.reporting.cells import Behind, Cell
from lora_xs.reporting.published import read_published
from lora_xs.sweeps.experiment_file import load_experiment

STARTED = "2026-01-01T00:00:00+00:00"
TABLE8 = "table08_singular_value_retention_mrpc"
TASK = {"task": {"name": "glue/mrpc", "main_metric": "accuracy"}}


def run_record(signature: str = "0" * 12) -> Record:
    run = {"signature": signature, "seed": 0, "started": STARTED, "spec": TASK}
    evaluation = {"accuracy": 89.0, "epoch": 5.0}
    return Record("finished", run, {"best": evaluation, "last": evaluation})


def analysis(name: str, points: list[dict[str, Any]], signature: str = "0" * 12, **changed: Any) -> AnalysisRecord:
    run = {"signature": signature, "seed": 0, "started": changed.pop("started", STARTED), "spec": TASK}
    return AnalysisRecord(name, run, {"which": "best", "rows": None, **changed}, points)


def point(module: str, fraction: float, subset: str, accuracy: float) -> dict[str, Any]:
    place = {"module": module, "retained_fraction": fraction, "subset": subset}
    return {**place, "triplets": 1, "share": 0.5, "scores": {"accuracy": accuracy, "f1": 1.0}, "seconds": 1.0}


def cells_of(name: str, cell: dict[str, str], analysed: Analysed | None) -> list[Cell]:
    record = run_record()
    runs = [Behind(record.signature, 0, cell)]
    return build_cells(load_experiment(name), runs, {record.signature: record}, analysed=analysed)


def test_every_cell_of_table_8_gets_its_point_and_none_the_runs_own_score() -> None:
    printed = read_published(f"lora_xs/{TABLE8}.csv")
    points = [
        point(c.place["module"], float(c.place["retained_fraction"]), c.place["subset"], c.value + 0.1) for c in printed
    ]
    cells = cells_of(TABLE8, {"task": "mrpc"}, Analysed([analysis("spectrum", points)]))
    assert len(cells) == 126
    for cell in cells:
        assert cell.published is not None and cell.ours == pytest.approx(cell.published.value + 0.1)
        assert (cell.status, cell.n, cell.metric, cell.signatures) == ("reproduced", 1, "accuracy", ("0" * 12,))
    assert {cell.status for cell in cells_of(TABLE8, {"task": "mrpc"}, None)} == {"not run"}


def test_projection_fills_table_11_and_spectrum_does_not() -> None:
    points = [point("query", 0.1, "top", 88.0)]
    for name, filled in (("projection", 1), ("spectrum", 0)):
        cells = cells_of("table11_delta_projection", {"task": "mrpc"}, Analysed([analysis(name, points)]))
        found = [cell for cell in cells if cell.readings]
        assert len(cells) == 108 and len(found) == filled
        assert all(cell.place["retained_fraction"] == "0.1" and cell.place["subset"] == "top" for cell in found)


def test_an_experiment_of_our_own_has_the_cells_that_were_found() -> None:
    found = [analysis("spectrum", [point("key", 0.5, "top", 70.0)]), analysis("projection", [])]
    cells = cells_of("mini_spectrum", {"task": "mrpc"}, Analysed(found))
    place = {"task": "mrpc", "analysis": "spectrum", "module": "key", "retained_fraction": "0.5", "subset": "top"}
    assert [(cell.place, cell.ours, cell.status) for cell in cells] == [(place, 70.0, "ours alone")]
    (empty,) = cells_of("mini_spectrum", {"task": "mrpc"}, None)
    assert empty.place == {"task": "mrpc"} and empty.status == "not run"


@pytest.mark.parametrize("changed", [{"rows": 64}, {"which": "last"}, {"started": "2025-01-01T00:00:00+00:00"}])
def test_a_part_of_the_rows_other_weights_and_an_earlier_training_do_not_count(changed: dict[str, Any]) -> None:
    analysed = Analysed([analysis("spectrum", [point("query", 0.1, "top", 70.83)], **changed)])
    assert all(not cell.readings for cell in cells_of(TABLE8, {"task": "mrpc"}, analysed))


def test_records_are_found_below_a_folder_and_others_passed_over(tmp_path: Path) -> None:
    record = analysis("spectrum", [point("query", 0.1, "top", 70.83)])
    path = write_analysis(tmp_path / "glue" / "s0-000000000000", record)
    assert path.name == "spectrum.json" and read_analysis(path) == record
    (path.parent / "torn.json").write_text('{"name": "spectrum"')
    (path.parent / "other.json").write_text('{"name": "spectrum"}')
    cells = cells_of(TABLE8, {"task": "mrpc"}, analyses_below(tmp_path))
    assert [cell.ours for cell in cells if cell.readings] == [70.83]


def test_table_6_is_counted_and_gemmas_row_is_off() -> None:
    cells = build_cells(load_experiment("sb_table06_inference_cost"), [], {})
    assert len(cells) == 24
    for cell in cells:
        assert cell.signatures == ("counted",) and cell.allowed is not None and "percent" in cell.allowed.words
        assert cell.status == ("off" if cell.place["model"] == "gemma2-9b" else "reproduced"), cell.place
    assert cells[0].ours == 304_152_576 * 256
