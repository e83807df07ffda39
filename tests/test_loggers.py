"""Loggers get every line once; one that fails never stops a run, and one that is not there is said at once."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest

from lora_xs.errors import UserError
from lora_xs.ingredients import Ingredients
from lora_xs.runner import run
from lora_xs.training import loggers, milestones
from lora_xs.training.logged import Logged, start_anew


class Broken:
    def __init__(self, *_: object) -> None:
        self.abandoned = 0

    part = None

    def lines(self, lines: list[dict]) -> None:
        raise ConnectionError("the server is gone")

    def finish(self, record: object) -> None:
        raise AssertionError("a logger that failed is not called again")

    def abandon(self) -> None:
        self.abandoned += 1


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every scalar in all event files of `folder`, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_a_logger_that_breaks_in_mid_run_is_dropped_and_the_run_finishes(tiny_run, monkeypatch) -> None:
    pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
    monkeypatch.setattr(loggers, "TensorBoardLogger", Broken)
    spec = tiny_run("trainer.epochs=1", "logger=tensorboard")
    assert run(spec).status == "finished"
    assert "logger=tensorboard failed and is off" in (spec.folder / "log.txt").read_text()


def test_a_logger_is_let_go_once_and_only_after_a_failure(tmp_path: Path) -> None:
    broken = Broken()
    wrapped = loggers.Unbreakable("any", broken, Logged(tmp_path))
    wrapped.history([])
    assert broken.abandoned == 0
    for _ in range(2):
        wrapped.history([{"kind": "train", "step": 1}])
        wrapped.finish(None)
    assert broken.abandoned == 1 and Logged.read(tmp_path).lines == 0


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_logger_whose_folder_cannot_be_made_is_a_warning(tiny_run, name: str, caplog) -> None:
    pytest.importorskip(name, reason=f"the {name} extra is not installed")
    spec = tiny_run(f"logger={name}", *(["logger.mode=offline"] if name == "wandb" else []))
    spec.folder.mkdir(parents=True)
    (spec.folder / name).write_text("in the way")
    assert loggers.open_logger(spec, spec.folder) is None
    assert f"logger={name} could not start" in caplog.text


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_missing_package_is_the_users_to_install_before_anything_is_read(tiny_run, monkeypatch, name: str) -> None:
    installed = importlib.metadata.version

    def version(package: str) -> str:
        if package == name:
            raise importlib.metadata.PackageNotFoundError(package)
        return installed(package)

    def read(*_: object) -> None:
        raise AssertionError("rows are read")

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(Ingredients, "rows", read)
    with pytest.raises(UserError, match=rf"pip install '\.\[{name}\]'"):
        run(tiny_run(f"logger={name}"))


def test_tensorboard_shows_every_line_of_a_run_in_two_parts_once(tiny_run, monkeypatch) -> None:
    pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
    spec = tiny_run("logger=tensorboard", "trainer.log_steps=1", "trainer.checkpoint_seconds=0")
    usual = milestones.Milestones.on_step_end

    def interrupted(callback, args, state, control, **rest):
        if state.global_step == 5:
            raise KeyboardInterrupt
        return usual(callback, args, state, control, **rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(milestones.Milestones, "on_step_end", interrupted)
        run(spec)
    assert [step for step, _ in curves(spec.folder / "tensorboard")["train/loss"]] == [1, 2, 3, 4]
    run(spec)
    lines = [json.loads(line) for line in (spec.folder / "metrics.jsonl").read_text().splitlines()]
    shown = curves(spec.folder / "tensorboard")
    assert [step for step, _ in shown["train/loss"]] == list(range(1, 13))
    scores = [(line["step"], pytest.approx(line["matthews"], rel=1e-6)) for line in lines if "matthews" in line]
    assert shown["evaluation/matthews"] == scores and len(scores) == 2
    start_anew(spec.folder)
    assert not list((spec.folder / "tensorboard").glob("events*")), "a forced run begins a curve of its own"
    assert Logged.read(spec.folder / "tensorboard") == Logged(spec.folder / "tensorboard", start=2)


def test_metrics_jsonl_has_a_line_an_evaluation_and_the_losses_between(tiny_run) -> None:
    spec = tiny_run("trainer.log_steps=3")
    record = run(spec)
    lines = [json.loads(line) for line in (spec.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line for line in lines if line["kind"] == "evaluation"] == record.train["evaluations"]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [3, 6, 9, 12]
    assert all(Path(spec.folder).is_dir() and line["loss"] > 0 for line in lines)
