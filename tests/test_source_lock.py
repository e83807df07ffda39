"""A lock names all that runs read from outside; a run that finds something else stops before it trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_xs.errors import UserError
from lora_xs.runner import run
from lora_xs.source_lock import read_lock, resolve, write_lock


def test_a_lock_holds_models_rows_and_packages_once_each(tiny_run) -> None:
    lock = resolve([tiny_run(), tiny_run("seed=1", "method=lora"), tiny_run("task=glue/stsb")])
    assert list(lock["models"]) == ["minilm"] and set(lock["data"]) == {"glue/cola", "glue/stsb"}
    assert len(lock["models"]["minilm"]["files"]["model.safetensors"]) == 64
    assert lock["data"]["glue/cola"]["source"] == "local" and "content" not in lock["data"]["glue/cola"]
    assert lock["packages"]["torch"]


def test_a_run_agrees_with_its_lock_or_says_what_differs(tiny_run, tmp_path: Path) -> None:
    path = tmp_path / "locks" / "mine.json"
    lock = resolve([tiny_run()])
    write_lock(path, lock)
    locked = [f"data.lock={path}", "trainer.max_steps=1"]
    assert tiny_run(*locked).signature == tiny_run("trainer.max_steps=1").signature
    assert run(tiny_run(*locked)).status == "finished"
    for change, said in (
        (lambda: lock["data"]["glue/cola"]["files"].update({"cola/train.jsonl": "0" * 64}), "data.glue/cola .*files"),
        (lambda: lock["models"].clear(), "has no models.minilm"),
    ):
        change()
        write_lock(path, lock)
        with pytest.raises(UserError, match=said):
            run(tiny_run(*locked, "seed=1"))
    lock = resolve([tiny_run()])
    write_lock(path, {**lock, "packages": {**lock["packages"], "torch": "1.0"}})
    with pytest.raises(UserError, match=r"torch .* for 1\.0"):
        run(tiny_run(*locked, "seed=2"))


def test_all_that_is_missing_is_named_at_once(tiny_run) -> None:
    lost = ["model.path=null", "model.package=null"]
    with pytest.raises(UserError) as error:
        resolve([tiny_run("model=roberta-large", "model.path=null"), tiny_run(*lost, "model=mistral-7b", "rank.r=4")])
    assert "roberta-large" in str(error.value) and "mistral-7b" in str(error.value)


def test_a_file_that_is_no_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text(json.dumps({"schema": 7}))
    for name in ("lock.json", "absent.json"):
        with pytest.raises(UserError, match=r"no lock that can be read.*scripts/prefetch.py"):
            read_lock(tmp_path / name)
