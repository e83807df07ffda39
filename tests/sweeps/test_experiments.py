"""Every experiment of the house: each run composes and is valid, and stands behind a published cell."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import pytest

from lora_xs.reporting.published import agrees
from lora_xs.spec.compose import compose_spec
from lora_xs.sweeps.experiment import Experiment
from lora_xs.sweeps.grid import PlannedRun, cells, experiment_names, load_experiment, unique

REPOSITORY = Path(__file__).resolve().parents[2]
PUBLISHED = REPOSITORY / "results" / "published"

# cells of the table, seeds of a cell, runs that others start from
COUNTS = {
    "table01_glue": (54, 5, 30),
    "table02_commonsense": (8, 1, 0),
    "table03_math": (12, 1, 0),
    "table04_init_summary": (12, 5, 0),
    "table05_svd_overhead": (4, 1, 2),
    "table06_runtime": (6, 1, 0),
    "table07_glue_hparams": (0, 0, 0),
    "table08_singular_value_retention_mrpc": (1, 1, 0),
    "table09_singular_value_retention_sst2": (1, 1, 0),
    "table10_singular_value_retention_mnli": (1, 1, 0),
    "table11_delta_projection": (3, 1, 0),
    "table12_init_grid_sst2": (27, 5, 0),
    "table13_init_grid_mrpc": (27, 5, 0),
    "table14_init_grid_cola": (27, 5, 0),
    "table15_init_grid_qnli": (27, 5, 0),
    "table16_init_learning_curve": (18, 5, 0),
    "table17_init_hparams": (0, 0, 0),
    "table18_top_vs_bottom_cola": (18, 5, 0),
    "table19_top_vs_bottom_qnli": (18, 5, 0),
    "table20_top_vs_bottom_mrpc": (18, 5, 0),
    "table21_top_vs_bottom_sst2": (18, 5, 0),
    "table22_singular_values_sst2": (18, 5, 0),
    "table23_singular_values_mrpc": (18, 5, 0),
    "table24_singular_values_cola": (18, 5, 0),
    "table25_singular_values_qnli": (18, 5, 0),
    "figure01_parameter_efficiency": (48, 5, 30),
    "sb_table01_math": (20, 3, 0),
    "sb_table02_commonsense": (10, 3, 0),
    "sb_table03_glue": (60, 3, 0),
    "sb_table04_decomposed_matrix": (6, 3, 0),
    "sb_table05_init_overhead": (3, 1, 0),
    "sb_table06_inference_cost": (0, 0, 0),
    "sb_table_v4_init_samples": (14, 3, 0),
    "sb_figure02_training_loss": (4, 3, 0),
    "sb_figure03_orthonormality": (2, 3, 0),
    "demo": (2, 1, 0),
    "lr_finalists": (22, 3, 0),
    "lr_sensitivity": (40, 1, 0),
    "mini_commonsense": (3, 3, 0),
    "mini_glue": (52, 3, 0),
    "mini_init": (90, 1, 0),
    "mini_init_best": (10, 3, 0),
    "mini_init_edge": (30, 1, 0),
    "mini_math": (3, 3, 0),
    "mini_sb": (11, 3, 0),
    "mini_spectrum": (3, 1, 0),
}
UNIQUE_RUNS = 1987
FOUR_GRIDS = {"table12": "sst2", "table13": "mrpc", "table14": "cola", "table15": "qnli"}
Runs = Mapping[str, list[PlannedRun]]


@pytest.fixture(scope="module")
def experiments() -> dict[str, Experiment]:
    return {name: load_experiment(name) for name in experiment_names()}


@pytest.fixture(scope="module")
def runs(experiments: Mapping[str, Experiment]) -> dict[str, list[PlannedRun]]:
    """Every cell and seed of every experiment, composed and checked."""
    return {name: list(cells(experiment)) for name, experiment in experiments.items()}


def of_the_table(planned: list[PlannedRun]) -> list[PlannedRun]:
    return [run for run in planned if run.cell.get("role") != "start"]


def published_rows(experiment: Experiment) -> list[dict[str, str]]:
    return [row for name in experiment.published for row in csv.DictReader((PUBLISHED / name).open(encoding="utf-8"))]


def test_every_run_of_every_experiment_is_valid_and_the_counts_are_the_tables(runs: Runs) -> None:
    assert set(runs) == set(COUNTS)
    for name, (table_cells, seeds, starts) in COUNTS.items():
        planned, table = unique(runs[name]), unique(of_the_table(runs[name]))
        assert len({tuple(sorted(run.cell.items())) for run in table}) == table_cells, name
        assert (len(table), len(planned)) == (table_cells * seeds, table_cells * seeds + starts), name


def test_a_run_that_two_tables_need_is_planned_once(runs: Runs) -> None:
    everything = unique(run for planned in runs.values() for run in planned)
    assert len(everything) == UNIQUE_RUNS
    signatures = {name: {run.spec.signature for run in planned} for name, planned in runs.items()}
    assert signatures["figure01_parameter_efficiency"] < signatures["table01_glue"]
    assert signatures["table05_svd_overhead"] < signatures["table01_glue"]
    assert signatures["table08_singular_value_retention_mrpc"] < signatures["table01_glue"]
    grids = set().union(*(planned for name, planned in signatures.items() if name[:7] in FOUR_GRIDS))
    assert signatures["table04_init_summary"] < grids
    for name, planned in signatures.items():
        if name[:7] in ("table18", "table19", "table20", "table21", "table22", "table23", "table24", "table25"):
            assert len(planned & grids) == 45, name  # the top vectors, with their values
    assert len(signatures["table16_init_learning_curve"] & signatures["table01_glue"]) == 45
    assert len(signatures["sb_figure03_orthonormality"] & signatures["sb_table01_math"]) == 3
    assert len(signatures["sb_table04_decomposed_matrix"] & signatures["sb_table01_math"]) == 3
    assert len(signatures["sb_table_v4_init_samples"] & signatures["sb_table01_math"]) == 6


def test_what_a_run_needs_comes_before_it(runs: Runs) -> None:
    for name, planned in runs.items():
        seen: set[str] = set()
        for run in unique(planned):
            assert set(run.needs) <= seen, name
            seen.add(run.spec.signature)
    needy = {run.spec.task.name for run in of_the_table(runs["table01_glue"]) if run.needs}
    assert needy == {"glue/mrpc", "glue/rte", "glue/stsb"}


def test_sampled_runs_are_what_train_py_makes_of_their_overrides(runs: Runs) -> None:
    for name in sorted(runs)[::3]:
        for run in runs[name][-1:]:
            spec = compose_spec(run.overrides)
            assert (spec.signature, spec.provenance) == (run.spec.signature, run.spec.provenance), name


def test_several_gpus_change_no_run(experiments: Mapping[str, Experiment], runs: Runs) -> None:
    name = "sb_table02_commonsense"
    two = list(cells(experiments[name], ["trainer=fsdp2"]))
    assert [run.spec.signature for run in two] == [run.spec.signature for run in runs[name]]
    assert {(run.spec.trainer.precision, run.spec.trainer.processes) for run in two} == {("bf16", 2)}


def test_the_demo_is_the_scripts(runs: Runs) -> None:
    found = importlib.util.spec_from_file_location("demo_script", REPOSITORY / "scripts" / "demo.py")
    assert found is not None and found.loader is not None
    demo = importlib.util.module_from_spec(found)
    found.loader.exec_module(demo)
    for run, arm in zip(runs["demo"], demo.ARMS, strict=True):
        assert compose_spec([*demo.COMMON, *arm]).folder == run.spec.folder


def test_open_fields_of_a_table_are_given_in_its_file(runs: Runs) -> None:
    """No rate or alpha of a published table is silently ours, but for LoRA-XS's and LoRA-SB's own defaults."""
    for name, planned in runs.items():
        for run in planned:
            if name.startswith(("table", "figure", "sb_")):
                fallen_back = {key for key, source in run.spec.provenance.items() if source.startswith("ours")}
                silent = fallen_back & {"trainer.learning_rate", "method.alpha"}
                assert not silent, (name, run.cell, silent)


def test_every_published_cell_has_its_runs_and_every_run_its_cell(
    experiments: Mapping[str, Experiment], runs: Runs
) -> None:
    for name, experiment in experiments.items():
        if experiment.kind == "reference" or not experiment.published:
            assert not runs[name] or experiment.source.startswith(("ours", "LoRA-SB Figure 2"))
            continue
        rows = published_rows(experiment)
        table = of_the_table(runs[name])
        assert experiment.aggregate is not None
        for row in rows:
            missing = any(agrees(left_out.cell, row) for left_out in experiment.not_built)
            if row.get("task") == "avg" or (name.startswith("figure01") and row["method"] == "full_ft"):
                continue
            behind = {run.spec.signature for run in table if agrees(run.cell, row)}
            assert len(behind) == (0 if missing else len(experiment.aggregate.seeds)), (name, row)
        printed = [run for run in table if any(agrees(run.cell, row) for row in rows)]
        unprinted = {tuple(run.cell.items()) for run in table} - {tuple(run.cell.items()) for run in printed}
        assert len(unprinted) == (1 if name.startswith("table25") else 0), (name, unprinted)


def test_runs_follow_the_published_hyper_parameters(experiments: Mapping[str, Experiment], runs: Runs) -> None:
    for hyper_parameters, name in (
        ("table07_glue_hparams", "table01_glue"),
        ("table17_init_hparams", "table16_init_learning_curve"),
    ):
        for row in published_rows(experiments[hyper_parameters]):
            place = {key: row[key] for key in ("task", "rank", "init") if key in row}
            behind = [run.spec for run in of_the_table(runs[name]) if agrees(place, {"method": "lora_xs", **run.cell})]
            behind = [spec for spec in behind if spec.method.name == "lora_xs"]
            assert len(behind) == 5
            for spec in behind:
                ours = (spec.trainer.learning_rate, spec.trainer.head_learning_rate, spec.trainer.epochs)
                assert ours == (float(row["lr"]), float(row["classifier_lr"]), int(row["epochs"])), row


def test_table_4_takes_the_cells_that_print_its_medians(experiments: Mapping[str, Experiment], runs: Runs) -> None:
    grids = {task: next(name for name in runs if name.startswith(table)) for table, task in FOUR_GRIDS.items()}
    at = {run.spec.signature: run.cell for grid in grids.values() for run in runs[grid]}
    for row in published_rows(experiments["table04_init_summary"]):
        rows = published_rows(experiments[grids[row["task"]]])
        behind = [run for run in runs["table04_init_summary"] if agrees(run.cell, row)]
        assert len(behind) == 5
        for run in behind:
            medians = [other["median"] for other in rows if agrees(at[run.spec.signature], other)]
            assert [float(median) for median in medians] == [float(row["median"])], row
