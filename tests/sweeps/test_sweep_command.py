"""`scripts/sweep.py`: the plan first, refusals in a line, and runs handed to the launcher that was named."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from planned_runs import Planned, leave, planned, script, state_of

from lora_xs.sweeps.retry import set_aside

Launched = list[tuple[str, list[str], dict[str, Any]]]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Planned], Launched]:
    """Stand-ins for the grid and both launchers. Runs: three seeds; what was launched is appended to the list."""
    base = planned(tmp_path, task="mrpc", rank="4")
    runs = [dataclasses.replace(base, spec=base.spec.replace(seed=seed)) for seed in range(3)]
    launched: Launched = []

    def module(name: str, **content: Any) -> None:
        made = ModuleType(f"lora_xs.sweeps.{name}")
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, made.__name__, made)

    def split(overrides: Sequence[str]) -> tuple[Any, list[str]]:
        name = "slurm" if "launcher=slurm" in overrides else "local"
        return SimpleNamespace(name=name, threads=None), [o for o in overrides if not o.startswith("launcher")]

    def launch(chosen: Sequence[Planned], **settings: Any) -> Any:
        launched.append(("local", [run.spec.signature for run in chosen], settings))
        for spec in settings["again"]:
            set_aside(spec)
        for run in chosen:
            leave(run.spec, "finished")
        complete = settings["workers"] != 7  # seven workers: as if a run had failed
        return SimpleNamespace(complete=complete, lines=lambda: ["the outcome in words"])

    def submit(chosen: Sequence[Planned], settings: Any, **more: Any) -> Any:
        launched.append(("slurm", [run.spec.signature for run in chosen], more))
        return SimpleNamespace(in_words=lambda: "the submission in words")

    def load(word: str) -> Any:
        return SimpleNamespace(name=Path(word).stem)

    module("grid", load_experiment=load, expand=lambda one, overrides=(): runs if one.name == "x" else [])
    module("launcher", split_launcher=split)
    module("local", launch_local=launch)
    module("slurm", submit=submit)
    return runs, launched


Sweep = Callable[..., int]


@pytest.fixture
def sweep(world: Any) -> Sweep:
    return lambda *words: script("sweep").main(["experiment=x", *words])


def signatures(runs: list[Planned]) -> list[str]:
    return [run.spec.signature for run in runs]


def test_nothing_runs_without_submit(sweep: Sweep, world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("--device", "h100") == 0
    assert world[1] == []
    assert "to be run now" in capsys.readouterr().out


def test_submit_hands_what_is_to_be_run_to_the_local_launcher(sweep: Sweep, world: Any) -> None:
    runs, launched = world
    leave(runs[1].spec, "finished")
    assert sweep("--submit", "--workers", "2", "seed=0", "data.root=/somewhere") == 0
    asked = {"workers": 2, "threads": None, "command": "python scripts/sweep.py experiment=x seed=0", "again": []}
    assert launched == [("local", signatures([runs[0], runs[2]]), asked)]
    assert sweep("--submit") == 0 and len(launched) == 1  # nothing is left


def test_slurm_gets_the_runs_and_the_experiments_name(
    sweep: Sweep, world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, launched = world
    assert sweep("launcher=slurm", "--limit", "2", "--submit") == 0
    assert launched == [("slurm", signatures(runs[:2]), {"name": "x", "retry": []})]
    assert capsys.readouterr().err == "the submission in words\n"


def test_only_slurm_sets_the_diverged_records_of_its_runs_aside(sweep: Sweep, world: Any) -> None:
    runs, launched = world
    leave(runs[1].spec, "diverged")
    assert sweep("launcher=slurm", "--retry", "diverged", "--submit") == 0
    assert launched == [("slurm", signatures(runs), {"name": "x", "retry": signatures(runs[1:2])})]
    assert state_of(runs[1].spec) == "diverged"


def test_an_experiment_that_is_named_by_its_file_is_known_by_its_name(
    world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, launched = world
    words = ["experiment=/home/me/x.yaml", "seed=0", "--submit"]
    assert script("sweep").main([*words, "--json"]) == 0
    assert launched[0][2]["command"] == "python scripts/sweep.py experiment=x seed=0"
    assert json.loads(capsys.readouterr().out)["experiment"] == "x"
    world[0][:] = [dataclasses.replace(run, spec=run.spec.replace(seed=9)) for run in world[0][:1]]
    assert script("sweep").main([*words, "launcher=slurm"]) == 0
    assert launched[1][2]["name"] == "x"


def test_an_experiment_without_runs_is_a_mistake(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("sweep").main(["experiment=y"]) == 2
    assert capsys.readouterr().err == "error: experiment=y has no runs; its file says why\n"


def test_the_exit_status_says_whether_all_were_finished(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("--submit", "--workers", "7") == 1
    assert capsys.readouterr().err == "the outcome in words\n"


def test_a_failed_or_diverged_run_is_run_again_only_when_asked(sweep: Sweep, world: Any) -> None:
    runs, launched = world
    leave(runs[0].spec, "failed")
    folder = leave(runs[1].spec, "diverged")
    leave(runs[2].spec, "finished")
    assert sweep("--submit") == 1 and launched == []  # a failed one is left
    assert sweep("--submit", "--retry", "failed") == 0
    assert launched.pop()[1] == signatures(runs[:1])
    assert sweep("--retry", "diverged") == 0 and state_of(runs[1].spec) == "diverged"  # only planned
    assert sweep("--submit", "--retry", "diverged") == 0
    assert launched.pop()[1] == signatures(runs[1:2])
    assert (folder / "record-diverged-1.json").is_file()


def test_json_is_the_whole_plan_and_nothing_else(sweep: Sweep, world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("--json", "--only", "seed=1", "--device", "a100-80") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [run["signature"] for run in shown["runs"]] == signatures(world[0][1:2])
    assert shown["device"]["name"] == "a100-80" and shown["to_run"]["runs"] == 1
    assert shown["to_run"]["gpu_hours"] > 0 and shown["assumptions"]


def test_what_does_not_fit_is_refused_before_anything_runs(
    sweep: Sweep, world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, launched = world
    runs[:] = [planned(tmp_path, "task=math/metamathqa", "rank=64", task="math")]
    assert sweep("--device", "l4", "--submit") == 2
    captured = capsys.readouterr()
    assert launched == [] and "to be run now" in captured.out
    assert captured.err.startswith("error: math needs ") and captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "h1000"], "no such device"),
        (["--only", "task=sst2"], "no run is there"),
        (["--limit", "0"], "--limit 0 must be at least 1"),
        (["--workers", "0"], "--workers 0 must be at least 1"),
        (["experiment=y"], "name one experiment"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(
    sweep: Sweep, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(*words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
