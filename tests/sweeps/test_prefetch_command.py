"""`scripts/prefetch.py`: the words of a sweep or a run, as a user copies them, become the runs that are meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from planned_runs import REPOSITORY, script

from lora_xs import source_lock
from lora_xs.spec import RunSpec


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[RunSpec]:
    """The runs that would be resolved; the working directory is empty."""
    specs: list[RunSpec] = []

    def resolve(chosen: Sequence[RunSpec], **_: Any) -> dict[str, Any]:
        specs[:] = chosen
        return {"models": {}, "data": {}, "tests": {}}

    monkeypatch.setattr(source_lock, "resolve", resolve)
    monkeypatch.chdir(tmp_path)
    return specs


def test_the_words_of_a_sweep_may_be_copied_with_its_launcher(asked: list[RunSpec], tmp_path: Path) -> None:
    words = ["experiment=demo", "launcher=slurm", "launcher.slurm.partition=gpu", "seed=3"]
    assert script("prefetch").main(words) == 0
    assert [spec.seed for spec in asked] == [3, 3]
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json")] == ["locks/demo.json"]


def test_the_lock_of_an_experiment_that_is_a_file_lies_among_the_locks(asked: list[RunSpec], tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "mine.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text((REPOSITORY / "experiments" / "demo.yaml").read_text())
    assert script("prefetch").main([f"experiment={elsewhere}"]) == 0
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json")] == ["locks/mine.json"]


def test_a_single_run_is_named_as_train_py_takes_it(asked: list[RunSpec], tmp_path: Path) -> None:
    assert script("prefetch").main(["task=glue/mrpc", "rank=4", "--to", "mine.json"]) == 0
    assert [(spec.task.name, spec.rank) for spec in asked] == [("glue/mrpc", 4)]
    assert (tmp_path / "mine.json").is_file()
    assert script("prefetch").main(["task=glue/mrpc", "rnak=4"]) == 2
