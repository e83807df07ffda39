"""`scripts/tables.py`: gaps are shown, what may not be mixed is refused, and every number can be traced to its runs."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from figures_command import figures_script
from latex_check import check_latex
from synthetic import place, record_of, write_synthetic
from tables_command import REPOSITORY, markdown_rows, tables_script

from lora_xs.reporting.planned import planned_runs

NAME = "sb_table04_decomposed_matrix"
KAIMING = {"decomposed_matrix": "kaiming"}
main = tables_script().main


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with a synthetic record of each of the table's 18 runs."""
    write_synthetic(tmp_path / "runs", [NAME])
    return tmp_path / "runs"


def folders_of(runs: Path, **cell: str) -> Iterator[Path]:
    for run in planned_runs(NAME):
        if all(run.cell.get(key) == value for key, value in cell.items()):
            yield runs / f"s{run.seed}-{run.signature}"


def written(runs: Path, to: Path, *arguments: str) -> list[dict[str, str]]:
    assert main([f"experiment={NAME}", "--results", str(runs), "--to", str(to), *arguments]) == 0
    with open(to / f"{NAME}.csv", newline="") as file:
        return list(csv.DictReader(file))


def remove(folder: Path) -> None:
    (folder / "record.json").unlink()


def test_missing_runs_are_counted_and_diverged_ones_are_named(runs: Path, tmp_path: Path) -> None:
    first, second, third = folders_of(runs, decomposed_matrix="update")
    remove(first)
    for folder in folders_of(runs, **KAIMING):
        remove(folder)
    (lost,) = (run for run in planned_runs(NAME) if second.name.endswith(run.signature))
    place(second, record_of(lost, {}, status="diverged"))
    lines = written(runs, tmp_path / "to")
    update = [line for line in lines if line["decomposed_matrix"] == "update"]
    assert [(line["n"], line["planned"], line["status"]) for line in update] == [("1", "3", "partial")] * 2
    assert {line["diverged"] for line in update} == {lost.signature}
    kaiming = [line for line in lines if line["decomposed_matrix"] == "kaiming"]
    assert {(line["status"], line["ours"], line["published"]) for line in kaiming} == {("not run", "", "0")}
    text = (tmp_path / "to" / f"{NAME}.md").read_text()
    rows = {row[0]: row[1:] for row in markdown_rows(text)}
    assert rows["Kaiming"][:3] == ["missing (0/3)", "00.00", "not run"]
    assert "(1/3)" in rows["ΔW"][0] and rows["ΔW"][2].partition(", ")[2].startswith("partial")
    assert f"diverged: {lost.signature}" in text
    check_latex((tmp_path / "to" / f"{NAME}.tex").read_text())
    place(third, record_of(lost, {}, status="diverged"))
    remove(third)
    assert {line["status"] for line in written(runs, tmp_path / "to") if line["decomposed_matrix"] == "update"} == {
        "diverged"
    }


def test_median_or_mean_and_the_interval_over_seeds(runs: Path, tmp_path: Path) -> None:
    mean, again = written(runs, tmp_path / "a"), written(runs, tmp_path / "b")
    median = written(runs, tmp_path / "c", "--statistic", "median")
    assert mean == again  # resampling is seeded
    assert [line["ours"] for line in mean] != [line["ours"] for line in median]
    for line in mean:
        assert float(line["interval_low"]) <= float(line["ours"]) <= float(line["interval_high"])
    text = (tmp_path / "c" / f"{NAME}.md").read_text()
    words = "median over seeds of each run's last evaluation (tests: of its selected adapter), "
    assert words + "where the paper takes the mean of the last" in text


def test_only_a_named_table_is_written_and_the_index_keeps_the_others(runs: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    written(runs, to)
    assert (
        main(["experiment=sb_table06_inference_cost", "--results", str(runs), "--to", str(to), "--format", "md"]) == 0
    )
    assert not (to / "sb_table06_inference_cost.csv").exists()
    index = json.loads((to / "index.json").read_text())
    assert index[NAME]["runs"] == {"planned": 18, "scored": 18, "collapsed": 0, "diverged": 0}
    assert index["sb_table06_inference_cost"]["formats"] == ["md"]
    page = (to / "README.md").read_text()
    assert f"({NAME}.csv)" in page and "(sb_table06_inference_cost.md)" in page
    (to / "sb_table06_inference_cost.md").unlink()
    written(runs, to)
    assert "sb_table06" not in (to / "README.md").read_text()
    assert not [file for file in to.iterdir() if file.name.startswith(".")]  # nothing half-written is left


def test_the_trace_names_runs_values_folders_and_a_command(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, *others = folders_of(runs, **KAIMING)
    remove(first)
    asked = [f"experiment={NAME}", "--results", str(runs), "--trace", "--only", "decomposed_matrix=kaiming,task=gsm8k"]
    assert main(asked) == 0
    shown = capsys.readouterr().out
    signature = first.name.partition("-")[2]
    assert shown.count(f"{NAME}: ") == 1 and f"  {signature} seed 0: missing" in shown
    assert all(str(folder) in shown for folder in others)
    (run,) = (run for run in planned_runs(NAME) if run.signature == signature)
    assert f"python train.py {' '.join(run.overrides)}" in shown
    assert f"lora_sb/{NAME.removeprefix('sb_')}.csv:2" in shown and "tolerance: test set of 1,319" in shown


def test_a_finished_run_is_run_again_as_it_ran(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in folders_of(runs, **KAIMING):
        content = json.loads((folder / "record.json").read_text())
        content["environment"] = {
            "data": {"source": "local", "rows": {"validation": 1319}},
            "threads": {"torch": 3},
            "versions": {"torch": "9.8", "transformers": "7.6", "peft": "5.4"},
            "hardware": {"gpu": None, "cpu": "a cpu", "instructions": "AVX9"},
            "commit": "0123456789abcdef",
            "dirty": True,
        }
        (folder / "record.json").write_text(json.dumps(content))
    asked = [f"experiment={NAME}", "--results", str(runs), "--trace", "--only", "decomposed_matrix=kaiming,task=gsm8k"]
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert "launcher.threads=3 'data.root=<folder>' results=/tmp/again\n" in shown
    assert "it ran at commit 0123456789ab with changes, torch 9.8, transformers 7.6, peft 5.4, a cpu AVX9\n" in shown


def test_synthetic_and_real_records_do_not_mix(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, *_ = folders_of(runs)
    content = json.loads((first / "record.json").read_text())
    del content["run"]["synthetic"]
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "record.json").write_text(json.dumps(content))
    refused(["--results", str(runs), "--results", str(tmp_path / "real")], "is synthetic and", capsys)
    assert main([f"experiment={NAME}", "--results", str(tmp_path / "real"), "--to", str(tmp_path / "to")]) == 0
    assert "SYNTHETIC" not in "".join(file.read_text() for file in (tmp_path / "to").iterdir())


def test_an_experiment_by_file_is_planned_as_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LORA_XS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "runs").mkdir()
    here = {run.signature for run in planned_runs("demo")}
    text = (REPOSITORY / "experiments" / "demo.yaml").read_text()
    for name, rows in (("demo", 900), ("mine", 800), ("mine", 700)):
        file = tmp_path / f"{name}.yaml"
        file.write_text(text.replace("train_rows=1500", f"train_rows={rows}"))
        assert main([f"experiment={file}", "--results", str(tmp_path / "runs"), "--trace"]) == 0
        shown = capsys.readouterr().out
        assert shown.count(f"train_rows={rows}") == 2 and not any(one in shown for one in here)


def test_a_target_that_is_a_file_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for to in ("file", "file/below"):
        for command in (main, figures_script().main):
            words = ["experiment=demo", "--results", "/nowhere", "--to", str(tmp_path / to)]
            assert command(words) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"error: --to {tmp_path / to}: {tmp_path / 'file'} is a file; name a folder")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["experiment=table01_gleu"], "experiment=table01_gleu is unknown; did you mean table01_glue"),
        (["experiment=demo", "--results", "/nowhere/at/all"], "--results /nowhere/at/all: no such folder"),
        (["experiment=demo", "--format", "md,pdf"], "--format 'pdf' is unknown; choose among md, tex, csv"),
        (["experiment=demo", "--only", "rank=4"], "--only goes with --trace"),
        (["seed=0"], "seed=0 goes with one experiment; add experiment=NAME"),
        (["demo"], "'demo' is no override; write key=value, or experiment=demo"),
        (["experiment=demo", "no.such=1"], "experiment demo: arms[0] at"),
        (["experiment=sb_table06_inference_cost", "--trace", "--only", "rank=7"], "--only rank=7: no cell is there"),
        (["experiment=sb_table06_inference_cost", "--trace", "--only", "rank"], "'rank' is no key=value"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused([*([] if "--results" in arguments else ["--results", str(tmp_path)]), *arguments], message, capsys)


def test_a_record_of_another_schema_is_refused_and_a_broken_one_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / "one"
    (run, *_) = planned_runs("demo")
    place(folder, dataclasses.replace(record_of(run, {}), schema=99))
    refused(["--results", str(tmp_path)], "record.json: schema 99 of records, this version reads 1", capsys)
    (folder / "record.json").write_text("{")
    assert main(["experiment=demo", "--results", str(tmp_path), "--to", str(tmp_path / "to")]) == 0
    captured = capsys.readouterr()
    assert "is no whole record, passed over" in captured.err and "demo: 2 not run" in captured.out


def test_no_torch_is_imported(tmp_path: Path) -> None:
    code = "import sys; from tables_command import tables_script; assert tables_script().main(sys.argv[1:]) == 0;"
    code += "assert not {'torch', 'transformers', 'datasets', 'peft'} & set(sys.modules)"
    words = ["experiment=demo", "--results", str(tmp_path), "--to", str(tmp_path / "to")]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{Path(__file__).parent}"}
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    (line,) = (line for line in captured.err.splitlines() if not line.startswith("composing"))
    assert line.startswith("error: ") and message in line and captured.out == ""
