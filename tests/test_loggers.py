"""Loggers get every line once; one that fails never stops a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_xs.errors import UserError
from lora_xs.runner import run
from lora_xs.training import loggers

wandb = pytest.importorskip("wandb", reason="the wandb extra is not installed")


class Broken:
    def line(self, values: dict) -> None:
        raise ConnectionError("the server is gone")

    def finish(self, summary: dict) -> None:
        raise AssertionError("a logger that failed is not called again")


def test_a_logger_that_breaks_in_mid_run_is_dropped_and_the_run_finishes(tiny_run, monkeypatch) -> None:
    monkeypatch.setattr(loggers, "WandbLogger", lambda spec, folder: Broken())
    spec = tiny_run("trainer.epochs=1", "logger=wandb")
    assert run(spec).status == "finished"
    assert "logger=wandb failed and is off" in (spec.folder / "log.txt").read_text()


def test_a_logger_that_cannot_start_is_a_warning(tiny_run, monkeypatch) -> None:
    def unable(spec, folder):
        raise OSError("no space")

    monkeypatch.setattr(loggers, "TensorBoardLogger", unable)
    spec = tiny_run("trainer.epochs=1", "logger=tensorboard")
    assert run(spec).status == "finished"
    assert "could not start" in (spec.folder / "log.txt").read_text()


def test_a_missing_package_is_the_users_to_install(tiny_run, monkeypatch) -> None:
    def absent(spec, folder):
        raise ImportError

    monkeypatch.setattr(loggers, "WandbLogger", absent)
    with pytest.raises(UserError, match="pip install wandb"):
        run(tiny_run("logger=wandb"))


def test_wandb_offline_holds_the_spec_and_every_evaluation(tiny_run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    spec = tiny_run("trainer.epochs=2", "logger=wandb")
    record = run(spec)
    files = list((spec.folder / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 1 and spec.signature in files[0].name
    content = files[0].read_bytes()
    assert b"evaluation/matthews" in content and spec.task.name.encode() in content
    assert record.status == "finished"


def test_metrics_jsonl_has_a_line_an_evaluation_and_the_losses_between(tiny_run) -> None:
    spec = tiny_run("trainer.log_steps=3")
    record = run(spec)
    lines = [json.loads(line) for line in (spec.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line for line in lines if line["kind"] == "evaluation"] == record.train["evaluations"]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [3, 6, 9, 12]
    assert all(Path(spec.folder).is_dir() and line["loss"] > 0 for line in lines)
