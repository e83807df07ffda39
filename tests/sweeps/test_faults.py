"""Kills, broken files, two launchers, a full disk: nothing lost, nothing trained twice, nothing half-written kept."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import alive, fork_launcher, fork_workers, until
from sweep_runs import leavings, times_trained

from lora_xs.lease import Lease
from lora_xs.records import read_attempt, read_record
from lora_xs.runner import run
from lora_xs.spec import RunSpec
from lora_xs.sweeps.local import launch_local
from lora_xs.sweeps.manifest import Line

SHORT = ["trainer.max_steps=3", "trainer.checkpoint_seconds=0"]
LONG = ["trainer.epochs=8", "trainer.checkpoint_seconds=0", "evaluation=end"]


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file for each worker that was started, named by its process id."""
    folder = tmp_path / "workers"
    folder.mkdir()
    fork_workers(monkeypatch, folder)
    return folder


def living(notes: Path) -> list[int]:
    """Process ids of workers that live."""
    return [pid for pid in (int(file.name) for file in notes.iterdir()) if alive(pid)]


def checkpointed(spec: RunSpec) -> bool:
    """Whether a run has a checkpoint to go on from."""
    return any((spec.folder / "checkpoints").glob("step-*"))


def same_as_alone(spec: RunSpec, tmp_path: Path) -> None:
    """The run in `spec`'s folder is what an undisturbed one is, and was trained to the end once."""
    rarely = dataclasses.replace(spec.trainer, checkpoint_seconds=60.0)
    alone = spec.replace(results=str(tmp_path / "alone"), trainer=rarely)
    run(alone)
    assert leavings(spec.folder) == leavings(alone.folder)
    assert times_trained(spec.folder) == 1


def test_a_killed_worker_costs_its_run_one_retry_and_no_bit(tiny_run, tmp_path: Path, notes: Path) -> None:
    specs = [tiny_run(*LONG, "trainer.epochs=4"), tiny_run(*SHORT, "seed=1")]

    def killer() -> None:
        until(lambda: checkpointed(specs[0]))
        for pid in living(notes):
            os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=killer)
    thread.start()
    outcome = launch_local([Line(spec) for spec in specs], workers=1)
    thread.join()
    assert outcome.finished == 2 and outcome.retried == 1 and outcome.complete
    same_as_alone(specs[0], tmp_path)
    assert times_trained(specs[1].folder) == 1


@pytest.mark.heavy
def test_a_killed_launcher_leaves_workers_that_stop_and_a_sweep_that_goes_on(tiny_run, tmp_path, notes) -> None:
    specs = [tiny_run(*LONG), tiny_run(*LONG, "seed=1"), tiny_run(*SHORT, "seed=2")]
    launcher = fork_launcher(lambda: launch_local([Line(spec) for spec in specs], workers=2))
    until(lambda: checkpointed(specs[0]) and checkpointed(specs[1]))
    os.kill(launcher, signal.SIGKILL)
    os.waitpid(launcher, 0)
    outcome = launch_local([Line(spec) for spec in specs], workers=2)  # while the orphans may still be stopping
    assert outcome.complete and outcome.finished + outcome.already == 3 and outcome.retried == 0
    until(lambda: not living(notes))
    for spec in specs:
        same_as_alone(spec, tmp_path)


def test_two_launchers_on_one_experiment_train_each_run_once(tiny_run, tmp_path: Path, notes: Path) -> None:
    first = tiny_run(*SHORT)
    specs = [first.replace(seed=seed) for seed in range(4)]
    other = fork_launcher(lambda: launch_local([Line(spec) for spec in specs], workers=1).complete or 1 / 0)
    outcome = launch_local([Line(spec) for spec in reversed(specs)], workers=1)
    assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 0
    assert outcome.complete and outcome.finished + outcome.already == 4 and outcome.retried == 0
    assert [times_trained(spec.folder) for spec in specs] == [1] * 4


@pytest.mark.heavy
def test_half_a_record_is_not_believed(tiny_run, tmp_path: Path, notes: Path) -> None:
    spec, content = tiny_run(*SHORT), b'{"status": "finished", "run": {"signa'
    spec.folder.mkdir(parents=True)
    (spec.folder / "record.json").write_bytes(content)
    (spec.folder / ".record.json.1-00").write_bytes(content)
    assert launch_local([Line(spec)], workers=1).finished == 1
    same_as_alone(spec, tmp_path)


@pytest.mark.heavy
def test_broken_checkpoints_and_store_entries_cost_time_not_the_result(tiny_run, tmp_path, notes, monkeypatch) -> None:
    monkeypatch.setenv("LORA_XS_CACHE", str(tmp_path / "cache"))
    spec = tiny_run(*LONG)
    launcher = fork_launcher(lambda: launch_local([Line(spec)], workers=1))
    until(lambda: len(list((spec.folder / "checkpoints").glob("step-*"))) > 1)
    for pid in (launcher, *living(notes)):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(launcher, 0)
    newest, older = sorted((spec.folder / "checkpoints").glob("step-*"), reverse=True)[:2]
    (newest / "optimizer.safetensors").write_bytes(b"rubbish")
    (newest.parent / "step-99999999").mkdir()
    stored = [*(tmp_path / "cache").rglob("*.safetensors"), *(tmp_path / "cache").rglob("*.parquet")]
    assert len(stored) > 8
    for file in stored:
        file.write_bytes(file.read_bytes()[:-100])
    assert launch_local([Line(spec)], workers=1).finished == 1
    assert f"going on from {older.name}" in (spec.folder / "log.txt").read_text()
    same_as_alone(spec, tmp_path)


@pytest.mark.heavy
def test_a_lease_whose_holder_froze_is_taken_over_and_the_thawed_one_writes_nothing(
    tiny_run, tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lease.__init__, "__defaults__", (0.2, 60.0))  # it is watched for two heartbeats
    spec = tiny_run(*LONG)
    launcher = fork_launcher(lambda: launch_local([Line(spec)], workers=1))
    until(lambda: checkpointed(spec))
    (frozen,) = living(notes)
    os.kill(launcher, signal.SIGSTOP)
    os.kill(frozen, signal.SIGSTOP)
    lease = spec.folder / "lease.json"
    os.utime(lease, (time.time() - 3600,) * 2)
    assert launch_local([Line(spec)], workers=1).finished == 1
    record = (spec.folder / "record.json").stat()
    for pid in (frozen, launcher):
        os.kill(pid, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(launcher, 0)[1]) == 0
    now = (spec.folder / "record.json").stat()
    assert (now.st_mtime_ns, now.st_ino) == (record.st_mtime_ns, record.st_ino)
    assert read_attempt(spec.folder) is None
    same_as_alone(spec, tmp_path)


@pytest.mark.heavy
def test_a_run_whose_folder_is_removed_under_it_is_trained_again(tiny_run, tmp_path: Path, notes: Path) -> None:
    spec = tiny_run(*LONG)

    def remove() -> None:
        until(lambda: checkpointed(spec))
        shutil.rmtree(spec.folder.rename(tmp_path / "removed"))

    thread = threading.Thread(target=remove)
    thread.start()
    outcome = launch_local([Line(spec)], workers=1)
    thread.join()
    assert outcome.finished == 1 and outcome.complete
    same_as_alone(spec, tmp_path)


@pytest.mark.heavy
def test_logs_wandb_and_the_model_may_go_in_mid_run(tiny_run, tiny_model: Path, tmp_path: Path, notes, monkeypatch):
    """The run under way needs none of them; a run that begins later says which is missing."""
    pytest.importorskip("wandb", reason="the wandb extra is not installed")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    spec, late = (tiny_run(*LONG, f"model.path={model}", "logger=wandb", f"seed={seed}") for seed in range(2))

    def remove() -> None:
        until(lambda: checkpointed(spec))
        (spec.folder / "log.txt").unlink()
        shutil.rmtree(spec.folder / "wandb")
        shutil.rmtree(model)

    thread = threading.Thread(target=remove)
    thread.start()
    outcome = launch_local([Line(spec)], workers=1)
    thread.join()
    assert outcome.finished == 1 and outcome.complete
    outcome = launch_local([Line(spec), Line(late)], workers=1)
    assert outcome.already == 1 and f"model.path={model}" in outcome.failed[str(late.folder)]
    shutil.copytree(tiny_model, model)
    assert launch_local([Line(late)], workers=1).finished == 1
    alone = spec.replace(results=str(tmp_path / "alone"), logger=dataclasses.replace(spec.logger, name="none"))
    run(alone)
    assert leavings(spec.folder) == leavings(alone.folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for some files."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a file system that can be filled takes the right to mount one")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.heavy
def test_a_full_disk_stops_the_sweep_and_loses_nothing(tiny_run, tmp_path: Path, notes: Path, small_disk: Path) -> None:
    specs = [tiny_run(*LONG, f"seed={seed}", f"results={small_disk}") for seed in range(2)]

    def fill() -> None:
        until(lambda: checkpointed(specs[0]))
        with open(small_disk / "rubbish", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 1024)
            except OSError:
                pass

    thread = threading.Thread(target=fill)
    thread.start()
    outcome = launch_local([Line(spec) for spec in specs], workers=1)
    thread.join()
    assert outcome.left == 2 and not outcome.failed and "No space left on device" in outcome.stopped
    assert outcome.stopped.endswith("make room on the disk") and "launch it again" in outcome.lines()[-1]
    assert not any(read_record(spec.folder) for spec in specs)
    attempt = read_attempt(specs[0].folder)
    assert attempt is None or attempt.status == "cancelled"
    (small_disk / "rubbish").unlink()
    outcome = launch_local([Line(spec) for spec in specs], workers=1)
    assert outcome.finished == 2
    for spec in specs:
        same_as_alone(spec, tmp_path)


@pytest.mark.heavy
def test_kills_at_random_moments_change_nothing(tiny_run, tmp_path: Path, notes: Path) -> None:
    """A small one of benchmarks/stress.py: six kills of workers and launchers over ten runs."""
    first = tiny_run(*SHORT, "trainer.max_steps=8")
    specs = [first.replace(seed=seed) for seed in range(10)]
    lines, chance = [Line(spec) for spec in specs], random.Random(0)
    kills = {"worker": 0, "launcher": 0}
    seen: dict[Path, tuple[int, int]] = {}
    launches = 0
    while not all(read_record(spec.folder) for spec in specs):
        launcher = fork_launcher(lambda: launch_local(lines, workers=2, retries=3))
        launches += 1
        while alive(launcher):
            time.sleep(chance.uniform(0.2, 1.0))
            if sum(kills.values()) < 6 and (workers := living(notes)):
                victim = launcher if chance.random() < 0.3 else chance.choice(workers)
                os.kill(victim, signal.SIGKILL)
                kills["launcher" if victim == launcher else "worker"] += 1
            for spec in specs:
                if read_record(spec.folder) is not None:
                    stat = (spec.folder / "record.json").stat()
                    mark = stat.st_ino, stat.st_mtime_ns
                    assert seen.setdefault(spec.folder, mark) == mark, "a record was written twice"
        os.waitpid(launcher, 0)
        assert launches < 20
    assert sum(kills.values()) == 6 and kills["launcher"] and kills["worker"]
    until(lambda: not living(notes))
    for spec in specs:
        assert times_trained(spec.folder) == 1
        assert json.loads((spec.folder / "record.json").read_text())["run"]["signature"] == spec.signature
    for spec in specs[:3]:
        same_as_alone(spec, tmp_path)
