"""A task's exit status is honest, whatever becomes of its worker. Workers here are lines of shell."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from lora_xs.exit_status import UNFIT
from lora_xs.sweeps.manifest import Line, write_manifest
from lora_xs.sweeps.slurm_task import Task, TaskFailed

pytestmark = pytest.mark.heavy

pytest.importorskip("submitit")


@pytest.fixture
def task(tiny_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function (shell lines) -> Task with that worker, in what looks like a job."""
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SUBMITIT_FOLDER", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.chdir(tmp_path)
    manifest = tmp_path / "manifest.jsonl"
    write_manifest(manifest, [Line(tiny_run("seed=1")), Line(tiny_run("seed=2"))])

    def make(shell: str, patience: float = 5.0) -> Task:
        return Task(("bash", "-c", shell, "worker"), str(manifest), 0, 2, patience)

    return make


def test_a_worker_that_is_done_is_success_and_gets_its_slice(task, tmp_path: Path) -> None:
    task('echo "$@" > arguments')()
    assert (tmp_path / "arguments").read_text().split() == ["--manifest", task("").manifest, "--slice", "0/2"]


def test_a_worker_that_fails_fails_the_job_at_once(task, tmp_path: Path) -> None:
    with pytest.raises(TaskFailed, match="ended with 1"):
        task("echo x >> starts; exit 1")()
    assert (tmp_path / "starts").read_text() == "x\n"


def test_a_crashed_worker_is_started_once_more(task, tmp_path: Path) -> None:
    task("echo x >> starts; [ $(wc -l < starts) -gt 1 ] || kill -SEGV $$")()
    assert (tmp_path / "starts").read_text() == "x\nx\n"
    with pytest.raises(TaskFailed, match="ended with -9"):
        task("echo x >> kills; kill -KILL $$")()
    assert (tmp_path / "kills").read_text() == "x\nx\n"


def test_a_worker_that_can_use_its_gpu_no_more_is_started_once_more(task, tmp_path: Path) -> None:
    task(f"echo x >> starts; [ $(wc -l < starts) -gt 1 ] || exit {UNFIT}")()
    assert (tmp_path / "starts").read_text() == "x\nx\n"
    with pytest.raises(TaskFailed, match="ended with 70"):
        task(f"exit {UNFIT}")()


def test_a_worker_that_was_told_to_stop_is_not_started_again(task, tmp_path: Path) -> None:
    with pytest.raises(TaskFailed, match="ended with -15"):
        task("echo x >> starts; kill -TERM $$")()
    assert (tmp_path / "starts").read_text() == "x\n"


def run_aside(task: Task) -> None:
    """Start the worker and come back when it is there."""
    threading.Thread(target=task._work, daemon=True).start()
    while task._worker is None:
        time.sleep(0.01)


def test_before_a_requeue_the_worker_may_finish_saving(task, tmp_path: Path) -> None:
    slow = task("sleep 0.5; touch saved; exit 140")
    run_aside(slow)
    again = slow.checkpoint()
    assert (tmp_path / "saved").exists()
    assert again.function == slow and again.function._worker is None


def test_a_worker_that_does_not_stop_is_killed_in_time(task) -> None:
    stuck = task("exec sleep 60", patience=0.3)
    run_aside(stuck)
    stuck.checkpoint()
    assert stuck._worker.wait(timeout=10) == -9


def test_a_worker_that_finishes_while_it_is_awaited_ends_the_job_well(task) -> None:
    nearly = task("sleep 0.3")
    run_aside(nearly)
    with pytest.raises(SystemExit) as ended:
        nearly.checkpoint()
    assert ended.value.code == 0


def test_the_log_beside_each_run_says_which_job_has_it(task, tiny_run) -> None:
    task("true")()
    assert "SLURM job 7 on " in (tiny_run("seed=1").folder / "log.txt").read_text()
    assert not tiny_run("seed=2").folder.exists(), "a run of another slice"


def test_what_a_kill_left_of_submitits_files_is_cleared(task, tmp_path: Path) -> None:
    for name in ("7_submitted.pkl.save_tmp", "7_0_result.pkl.save_tmp"):
        (tmp_path / name).write_text("half")
    task("true")()
    assert not list(tmp_path.glob("*.save_tmp"))
