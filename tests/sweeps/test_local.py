"""The launcher on this machine: order, needs, faults of a run, stopping; the same bits as a run alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from forked import alive, fork_workers, until
from sweep_runs import leavings, times_trained

from lora_xs.errors import UserError
from lora_xs.records import read_attempt, read_record
from lora_xs.runner import run
from lora_xs.sweeps import crew
from lora_xs.sweeps.crew import gpus_here, start_worker
from lora_xs.sweeps.local import blocks_of_gpus, launch_local
from lora_xs.sweeps.manifest import Line
from lora_xs.sweeps.outcome import Event
from lora_xs.sweeps.verdict import Verdict

SHORT = ["trainer.max_steps=2"]
LONG = ["trainer.epochs=20", "trainer.checkpoint_seconds=0.2", "evaluation=end"]


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    fork_workers(monkeypatch)


def test_four_runs_by_two_workers_are_the_runs_alone(tiny_run, tmp_path: Path, forks) -> None:
    over = {"one": [*SHORT, "method=pissa"], "two": [*SHORT, "task=glue/stsb"]}
    specs = [
        tiny_run(*words, f"seed={seed}", f"results={tmp_path}/swept") for words in over.values() for seed in (0, 1)
    ]
    seen: list[Event] = []
    outcome = launch_local([Line(spec) for spec in specs], workers=2, threads=1, on_event=seen.append, command="sweep")
    assert outcome.complete and outcome.finished == 4 and not outcome.stopped
    assert outcome.lines() == ["4 finished"]
    assert [times_trained(spec.folder) for spec in specs] == [1] * 4
    for spec in specs[::3]:
        alone = spec.replace(results=str(tmp_path / "alone"))
        run(alone)
        assert leavings(spec.folder) == leavings(alone.folder)
    assert [event.kind for event in seen].count("started") == 4
    record = read_record(specs[0].folder)
    assert record is not None and record.run["command"] == "sweep"
    again = launch_local([Line(spec) for spec in specs], workers=2)
    assert again.already == 4 and again.complete


def test_a_run_starts_from_one_that_was_not_there_when_it_was_planned(tiny_run, forks) -> None:
    first = tiny_run(*SHORT, "seed=5")
    then = tiny_run(*SHORT, f"start_from={first.folder}")
    lines = [Line(then, (first.signature,)), Line(first)]
    assert launch_local(lines, workers=2).finished == 2
    record = read_record(then.folder)
    assert record is not None and "start" in record.environment


def test_a_mistake_and_an_error_fail_their_run_once_and_the_sweep_goes_on(tiny_run, tmp_path: Path, forks) -> None:
    good, mistaken = tiny_run(*SHORT), tiny_run(*SHORT, "data.root=/nowhere", "seed=1")
    broken = tiny_run(*SHORT, "seed=2")
    broken.folder.mkdir(parents=True)
    (broken.folder / "adapter").write_text("a file where a folder must be")
    seen: list[Event] = []
    outcome = launch_local([Line(s) for s in (mistaken, broken, good)], workers=1, on_event=seen.append)
    assert outcome.finished == 1 and not outcome.complete and outcome.retried == 0
    said = outcome.lines()
    assert any(str(mistaken.folder) in line and "data.root=/nowhere: no such folder" in line for line in said)
    assert any(str(broken.folder) in line and "Error" in line for line in said)
    assert said[-1].startswith("mend what failed")
    assert [event.kind for event in seen].count("started") == 3
    attempt = read_attempt(broken.folder)
    assert attempt is not None and attempt.status == "failed"


def test_a_worker_that_always_dies_costs_its_run_one_retry_not_the_sweep(tiny_run, monkeypatch, forks) -> None:
    from lora_xs.sweeps import warm

    usual = warm.Warm.run

    def deadly(self, spec, **rest):
        if spec.seed == 0:
            os.write(2, b"a last word\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(self, spec, **rest)

    monkeypatch.setattr(warm.Warm, "run", deadly)
    first = tiny_run(*SHORT)
    specs = [first.replace(seed=seed) for seed in range(3)]
    outcome = launch_local([Line(spec) for spec in specs], workers=2)
    assert outcome.finished == 2 and outcome.retried == 1
    (why,) = outcome.failed.values()
    assert "given up after 2 crashes" in why and "SIGKILL" in why and why.endswith("last words: a last word")


def test_workers_that_cannot_start_end_the_launch_with_their_last_words(tiny_run, monkeypatch) -> None:
    def start(threads, gpus, keep):
        words = [sys.executable, "-c", "raise SystemExit('no torch here')"]
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - `Worker.end` closes it
        return crew.Worker(subprocess.Popen(words, stdin=-1, stdout=-1, stderr=errors), errors)

    monkeypatch.setattr("lora_xs.sweeps.local.start_worker", start)
    outcome = launch_local([Line(tiny_run(*SHORT))], workers=1)
    assert outcome.left == 1 and "no torch here" in outcome.stopped and not outcome.failed


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.heavy)])
def test_a_stopped_launch_leaves_checkpoints_and_the_next_one_goes_on(tiny_run, tmp_path, forks, how) -> None:
    first = tiny_run(*LONG)
    specs = [first.replace(seed=seed) for seed in range(3)]
    checkpoints = [spec.folder / "checkpoints" for spec in specs[:2]]

    def stop_in_the_middle() -> None:
        until(lambda: all(list(folder.glob("step-*")) for folder in checkpoints))
        os.kill(os.getpid(), how)

    asker = threading.Thread(target=stop_in_the_middle)
    asker.start()
    outcome = launch_local([Line(spec) for spec in specs], workers=2)
    asker.join()
    assert outcome.left == 3 and outcome.stopped == f"asked to by {how.name}"
    assert outcome.lines()[-1].startswith("launch it again")
    for spec in specs[:2]:
        attempt = read_attempt(spec.folder)
        assert attempt is not None and attempt.status == "cancelled" and not (spec.folder / "lease.json").exists()
    assert not specs[2].folder.exists()
    if how == signal.SIGINT:
        return
    outcome = launch_local([Line(spec) for spec in specs[:1]], workers=1)
    assert outcome.finished == 1
    alone = specs[0].replace(results=str(tmp_path / "alone"))
    run(alone)
    assert leavings(specs[0].folder) == leavings(alone.folder)


def test_a_second_ctrl_c_ends_it_at_once(tiny_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = tmp_path / "workers"
    fork_workers(monkeypatch, notes)
    spec = tiny_run(*LONG, "trainer.epochs=4000")

    def impatient() -> None:
        until(lambda: list((spec.folder / "checkpoints").glob("step-*")))
        (worker,) = notes.iterdir()
        os.kill(int(worker.name), signal.SIGSTOP)  # a worker that cannot answer
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)

    thread = threading.Thread(target=impatient)
    thread.start()
    outcome = launch_local([Line(spec)], workers=1)
    thread.join()
    assert outcome.left == 1 and outcome.stopped == "interrupted twice"
    assert not any(alive(int(worker.name)) for worker in notes.iterdir())


def test_no_workers_is_a_mistake(tiny_run) -> None:
    with pytest.raises(UserError, match="workers=0 must be at least 1"):
        launch_local([Line(tiny_run())], workers=0)


def test_every_worker_sees_as_many_gpus_as_the_widest_run_has_processes(tiny_run) -> None:
    one, two = Line(tiny_run()), Line(tiny_run("trainer.processes=2"))
    gpus = ["0", "1", "GPU-ab", "3", "4"]
    assert blocks_of_gpus(gpus, [one], 2) == gpus
    assert blocks_of_gpus(gpus[:1], [one], 2) == ["0"]  # they share it
    assert blocks_of_gpus(gpus, [one, two], 2) == ["0,1", "GPU-ab,3"]
    assert blocks_of_gpus([], [two], 9) == blocks_of_gpus([], [], 1) == []
    for few, workers, mend in ((gpus, 3, "give workers=2"), (gpus[:1], 1, "give fewer processes, or a machine with")):
        with pytest.raises(UserError, match=mend):
            blocks_of_gpus(few, [one, two], workers)


def test_workers_get_their_gpus_and_too_few_are_refused_before_anything_starts(tiny_run, monkeypatch) -> None:
    started: list[str | None] = []

    def start(threads, gpus, keep):
        started.append(gpus)
        words = [sys.executable, "-c", ""]
        return crew.Worker(subprocess.Popen(words, stdin=-1, stdout=-1), tempfile.TemporaryFile())

    monkeypatch.setattr("lora_xs.sweeps.local.start_worker", start)
    lines = [Line(tiny_run(*SHORT, "trainer.processes=2", f"seed={seed}")) for seed in range(2)]
    with pytest.raises(UserError, match=r"workers=2 with trainer\.processes=2 need 4 GPUs, and there are 3"):
        launch_local(lines, workers=2, gpus=["0", "1", "2"])
    assert started == []
    launch_local(lines, workers=2, gpus=["0", "1", "2", "3"])
    assert set(started) == {"0,1", "2,3"}


@pytest.mark.heavy
def test_a_real_worker_has_its_threads_and_gpu_and_answers_through_the_noise(tiny_run, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    spec = tiny_run(*SHORT)
    worker = start_worker(2, "1", 10**9)
    try:
        facts = dict(
            line.split("=", 1)
            for line in Path(f"/proc/{worker.process.pid}/environ").read_text().split("\0")
            if "=" in line
        )
        assert facts["OMP_NUM_THREADS"] == "2" and facts["CUDA_VISIBLE_DEVICES"] == "1"
        assert os.getsid(worker.process.pid) == worker.process.pid
        worker.give(Line(spec), "by hand")
        answers: list[Verdict] = []
        while not answers:
            said = worker.answers()
            assert said is not None, worker.how_it_died()
            answers += said
    finally:
        worker.end(30.0)
    assert answers[0].ending == "finished" and worker.process.returncode in (0, 75)
    record = read_record(spec.folder)
    assert record is not None and record.environment["threads"]["torch"] == 2


def test_gpus_are_those_the_user_may_use(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-ab")
    assert gpus_here() == ["2", "GPU-ab"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus_here() == []
