"""The printed numbers are all there, agree with themselves, and where they do not, that is written down."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from lora_xs.errors import UserError
from lora_xs.reporting.published import AVERAGE, PUBLISHED, PublishedCell, agrees, misprints, number, read_published

CELLS = {
    "lora_xs/table01_glue.csv": 63,
    "lora_xs/table02_commonsense.csv": 72,
    "lora_xs/table03_math.csv": 24,
    "lora_xs/table04_init_summary.csv": 12,
    "lora_xs/table05_svd_overhead.csv": 12,
    "lora_xs/table06_runtime.csv": 6,
    "lora_xs/table07_glue_hparams.csv": 0,
    "lora_xs/table08_singular_value_retention_mrpc.csv": 126,
    "lora_xs/table09_singular_value_retention_sst2.csv": 126,
    "lora_xs/table10_singular_value_retention_mnli.csv": 126,
    "lora_xs/table11_delta_projection.csv": 108,
    "lora_xs/table12_init_grid_sst2.csv": 27,
    "lora_xs/table13_init_grid_mrpc.csv": 27,
    "lora_xs/table14_init_grid_cola.csv": 27,
    "lora_xs/table15_init_grid_qnli.csv": 27,
    "lora_xs/table16_init_learning_curve.csv": 54,
    "lora_xs/table17_init_hparams.csv": 0,
    "lora_xs/table18_top_vs_bottom_cola.csv": 18,
    "lora_xs/table19_top_vs_bottom_qnli.csv": 18,
    "lora_xs/table20_top_vs_bottom_mrpc.csv": 18,
    "lora_xs/table21_top_vs_bottom_sst2.csv": 18,
    "lora_xs/table22_singular_values_sst2.csv": 18,
    "lora_xs/table23_singular_values_mrpc.csv": 18,
    "lora_xs/table24_singular_values_cola.csv": 18,
    "lora_xs/table25_singular_values_qnli.csv": 17,
    "lora_sb/table01_math.csv": 48,
    "lora_sb/table02_commonsense.csv": 108,
    "lora_sb/table03_glue.csv": 84,
    "lora_sb/table04_decomposed_matrix.csv": 12,
    "lora_sb/table05_init_overhead.csv": 6,
    "lora_sb/table06_inference_cost.csv": 24,
    "lora_sb/table_v4_init_samples.csv": 28,
    "lora_sb/figure03_orthonormality.csv": 4,
}


def test_every_file_has_its_cells() -> None:
    files = {str(file.relative_to(PUBLISHED)) for file in PUBLISHED.rglob("*.csv")}
    assert files == set(CELLS)
    for name, count in CELLS.items():
        cells = read_published(name)
        assert len(cells) == count, name
        places = [tuple(sorted(cell.place.items())) for cell in cells]
        assert len(set(places)) == count, name


@pytest.mark.parametrize(
    "name", [name for name in CELLS if any(c.place.get("task") == AVERAGE for c in read_published(name))]
)
def test_every_printed_average_is_that_of_its_columns_or_a_known_misprint(name: str) -> None:
    rows: dict[tuple[tuple[str, str], ...], list[PublishedCell]] = defaultdict(list)
    for cell in read_published(name):
        rows[tuple(sorted((k, v) for k, v in cell.place.items() if k != "task"))].append(cell)
    for cells in rows.values():
        (average,) = (cell for cell in cells if cell.place["task"] == AVERAGE)
        others = [cell for cell in cells if cell is not average]
        rounding = max(_unit(cell) for cell in others) / 2 + _unit(average) / 2
        off = abs(average.value - sum(cell.value for cell in others) / len(others))
        assert (off > rounding + 1e-9) == (average.misprint is not None), (average.source, off)


def _unit(cell: PublishedCell) -> float:
    return float(10 ** -len(cell.printed.partition(".")[2]))


def test_every_misprint_is_a_cell_and_its_reason_quotes_what_is_printed() -> None:
    assert len(misprints()) == 5
    for misprint in misprints():
        marked = [cell for cell in read_published(misprint.file) if agrees(misprint.where, cell.place)]
        assert marked and all(cell.misprint == misprint.why for cell in marked)
        if misprint.where.get("task") == AVERAGE:
            assert all(misprint.why.startswith(cell.printed) for cell in marked)


def test_the_top_rows_of_tables_18_to_21_are_the_sigma_rows_of_tables_22_to_25() -> None:
    for first, second in (
        ("table18_top_vs_bottom_cola", "table24_singular_values_cola"),
        ("table19_top_vs_bottom_qnli", "table25_singular_values_qnli"),
        ("table20_top_vs_bottom_mrpc", "table23_singular_values_mrpc"),
        ("table21_top_vs_bottom_sst2", "table22_singular_values_sst2"),
    ):
        top = [c for c in read_published(f"lora_xs/{first}.csv") if c.place["singular_vectors"] == "top"]
        sigma = [c for c in read_published(f"lora_xs/{second}.csv") if c.place["a_init"] == "u_sigma"]
        assert [(c.place["lr"], c.place["classifier_lr"], c.value) for c in top] == [
            (c.place["lr"], c.place["classifier_lr"], c.value) for c in sigma
        ]


def test_numbers_have_their_units_and_a_malformed_row_is_named(tmp_path: Path) -> None:
    assert number("78.42G", "here", "macs") == 78.42e9 and number("1.70T", "here", "flops") == 1.7e12
    (tmp_path / "bad.csv").write_text("task,score\nmrpc,good\n")
    with pytest.raises(UserError, match=r"bad\.csv:2: score='good' is no number"):
        read_published("bad.csv", tmp_path)
    (tmp_path / "short.csv").write_text("task,score\nmrpc\n")
    with pytest.raises(UserError, match=r"short\.csv:2: 2 columns wanted"):
        read_published("short.csv", tmp_path)
    with pytest.raises(UserError, match="published numbers come with the repository"):
        read_published("none.csv", tmp_path)
