"""A run's state is what its folder says, and nothing half-written is believed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from planned_runs import checkpoint, hold, leave, planned, state_of

from lora_xs.lease import LEASE
from lora_xs.spec import RunSpec
from lora_xs.sweeps import state as states
from lora_xs.sweeps.retry import set_aside
from lora_xs.sweeps.state import FolderReader, newest_step


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    return planned(tmp_path).spec


def look(spec: RunSpec) -> states.Seen:
    return FolderReader().look(spec.folder, spec.signature)


def test_a_run_without_a_folder_or_with_an_empty_one_is_new(spec: RunSpec) -> None:
    assert state_of(spec) == "new"
    spec.folder.mkdir(parents=True)
    assert state_of(spec) == "new"


@pytest.mark.parametrize(
    ("status", "state"),
    [("finished", "finished"), ("diverged", "diverged"), ("failed", "failed"), ("cancelled", "new")],
)
def test_the_record_or_attempt_of_a_run_says_its_state(spec: RunSpec, status: str, state: str) -> None:
    leave(spec, status)
    assert state_of(spec) == state
    assert look(spec).error == ("the loss is nan" if status in ("failed", "diverged") else None)


def test_a_checkpoint_makes_a_run_partial_and_its_name_says_the_step(spec: RunSpec) -> None:
    leave(spec, "cancelled")
    checkpoint(spec.folder, 120)
    checkpoint(spec.folder, 1040)
    (spec.folder / "checkpoints" / ".step-00002000.partial").mkdir()  # being written
    assert look(spec) == states.Seen("partial", 1040)


def test_a_record_cut_short_or_of_another_run_is_not_believed(spec: RunSpec, tmp_path: Path) -> None:
    file = leave(spec, "finished") / "record.json"
    whole = file.read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 3):
        file.write_bytes(whole[:size])
        assert state_of(spec) == "new"
    other = planned(tmp_path, "seed=1").spec
    shutil.copytree(leave(other, "finished"), spec.folder, dirs_exist_ok=True)
    assert state_of(other) == "finished"
    assert state_of(spec) == "new"


def test_a_corrupt_attempt_leaves_what_the_checkpoints_say(spec: RunSpec) -> None:
    file = leave(spec, "failed") / "attempt.json"
    file.write_bytes(file.read_bytes()[:-20])
    checkpoint(spec.folder, 5)
    assert look(spec) == states.Seen("partial", 5)


def test_a_live_holder_makes_a_run_running_whatever_came_before(spec: RunSpec) -> None:
    leave(spec, "failed")
    hold(spec.folder)
    assert state_of(spec) == "running"


def test_a_killed_attempt_is_neither_running_nor_what_an_earlier_one_said(spec: RunSpec) -> None:
    leave(spec, "failed")
    child = subprocess.Popen(["sleep", "60"])
    hold(spec.folder, pid=child.pid)
    assert state_of(spec) == "running"
    child.kill()
    child.wait()
    assert state_of(spec) == "new"
    checkpoint(spec.folder, 3)
    assert state_of(spec) == "partial"


def test_another_machines_holder_counts_as_long_as_its_lease_is_fresh(spec: RunSpec) -> None:
    lease = hold(spec.folder, host="elsewhere", pid=1, born="1")
    assert state_of(spec) == "running"
    for jump in (-3600, 3600):
        other = time.time() + jump
        os.utime(lease, (other, other))
        assert state_of(spec) == "new"


def test_this_machines_clock_says_nothing_about_another_machines_holder(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(spec.folder, host="elsewhere", pid=1, born="1")
    monkeypatch.setattr(time, "time", lambda: 4e9)  # a jump of decades
    assert state_of(spec) == "running"


def test_a_finished_run_is_finished_whoever_holds_its_folder(spec: RunSpec) -> None:
    leave(spec, "finished")
    hold(spec.folder)
    assert state_of(spec) == "finished"


def test_looking_changes_nothing_in_the_folders(spec: RunSpec) -> None:
    leave(spec, "failed")
    hold(spec.folder, host="elsewhere", pid=1, born="1")
    before = {path: path.stat().st_mtime_ns for path in (spec.folder, *spec.folder.iterdir())}
    look(spec)
    assert {path: path.stat().st_mtime_ns for path in (spec.folder, *spec.folder.iterdir())} == before


def test_many_folders_are_listed_once_each_and_a_record_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = planned(tmp_path)
    specs = [first.spec.replace(seed=seed) for seed in range(40)]
    for spec in specs[:30]:
        leave(spec, "finished")
    listed: list[object] = []
    read: list[Path] = []
    listing, reading = os.listdir, states.read_record
    monkeypatch.setattr(states.os, "listdir", lambda path: (listed.append(path), listing(path))[1])
    monkeypatch.setattr(states, "read_record", lambda folder: (read.append(folder), reading(folder))[1])
    reader = FolderReader()
    assert [seen.state for seen in reader.look_at(specs)] == ["finished"] * 30 + ["new"] * 10
    assert (len(listed), len(read)) == (40, 30)
    leave(specs[0], "diverged")
    assert [seen.state for seen in reader.look_at(specs)][:2] == ["diverged", "finished"]
    assert (len(listed), len(read)) == (80, 31)


def test_a_diverged_record_is_set_aside_whole_and_the_run_counts_as_new(spec: RunSpec) -> None:
    content = (leave(spec, "diverged") / "record.json").read_bytes()
    kept = set_aside(spec)
    assert kept is not None and kept.read_bytes() == content
    assert state_of(spec) == "new"
    assert set_aside(spec) is None
    leave(spec, "finished")
    assert set_aside(spec) is None and state_of(spec) == "finished"
    assert not (spec.folder / LEASE).exists()
    assert json.loads(kept.read_text())["status"] == "diverged"


def test_a_folder_without_checkpoints_has_no_step(tmp_path: Path) -> None:
    assert newest_step(tmp_path) == 0
