"""What a submission does around SLURM's own part, which is played here: no cluster is asked."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from planned_runs import Planned, hold, leave, planned, state_of

from lora_xs.errors import UserError
from lora_xs.sweeps import queued, slurm
from lora_xs.sweeps.devices import device_named
from lora_xs.sweeps.launcher import split_launcher
from lora_xs.sweeps.plan import make_plan
from lora_xs.sweeps.queued import queued_runs
from lora_xs.sweeps.slurm import Submission, submit
from lora_xs.sweeps.snapshot import Snapshot

pytest.importorskip("submitit")

Submit = Callable[..., Submission]


@pytest.fixture
def runs(tmp_path: Path) -> list[Planned]:
    """A start, a run that needs it, and one that needs nothing."""
    first = planned(tmp_path, "task=glue/mnli")
    then, alone = planned(tmp_path, needs=(first.spec.signature,)), planned(tmp_path, "task=glue/cola")
    return [first, then, alone]


@pytest.fixture
def send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Submit:
    """`submit` on a cluster that takes everything, gives jobs the ids 100, 101, … and never runs one."""
    live: set[str] = set()

    def sent(parameters: dict[str, Any], settings: Any, folder: Path, tasks: Sequence[object]) -> str:
        job = str(100 + len({name.partition("_")[0] for name in live}))
        live.update(queued.job_of(job, task, len(tasks)) for task in range(len(tasks)))
        return job

    monkeypatch.setattr(slurm, "check_cluster", lambda settings: None)
    monkeypatch.setattr(slurm, "take_snapshot", lambda source, folder, how: Snapshot(tmp_path, None))
    monkeypatch.setattr(slurm, "_send", sent)
    monkeypatch.setattr(queued, "_live_jobs", lambda: live)
    settings, _ = split_launcher(["launcher=slurm", f"launcher.slurm.folder={tmp_path / 'sweeps'}"])
    return lambda chosen, **more: submit(chosen, settings, **{"name": "mine", **more})


def test_what_any_sweep_has_queued_is_not_queued_again(send: Submit, runs: list[Planned], tmp_path: Path) -> None:
    first = send(runs[:1], name="theirs")
    assert queued_runs(tmp_path / "sweeps", tmp_path) == {runs[0].spec.signature: "100"}
    second = send(runs)
    assert second.already == {runs[0].spec.signature: "100"}
    needy = next(array for array in second.arrays if runs[1].spec.signature in array.runs)
    assert needy.after == first.jobs
    assert not send(runs, name="third").arrays
    elsewhere = dataclasses.replace(runs[0], spec=runs[0].spec.replace(results=str(tmp_path / "other")))
    assert elsewhere.spec.signature == runs[0].spec.signature
    assert send([elsewhere], name="trial").arrays, "its results are wanted somewhere else"


def test_a_submission_says_what_it_did_or_why_it_did_nothing(send: Submit, runs: list[Planned]) -> None:
    leave(runs[2].spec, "finished")
    first = send(runs[:1])
    assert first.in_words() == f"submitted 100; {first.folder}"
    second = send(runs)
    assert second.in_words() == f"submitted 101; 1 queued already (100); {second.folder}"
    assert send(runs).in_words() == "nothing to submit: 1 recorded, 2 queued already (100, 101)"
    assert send(runs[2:]).in_words() == "nothing to submit: 1 recorded"
    leave(runs[0].spec, "finished")  # its task is not over yet
    assert send(runs).in_words() == "nothing to submit: 2 recorded, 1 queued already (101)"


def test_a_start_that_is_trained_elsewhere_is_waited_for(send: Submit, runs: list[Planned]) -> None:
    hold(runs[0].spec.folder)
    plan = make_plan("mine", runs, device_named("h100"))
    submission = send([entry.run for entry in plan.choose().runs])
    place = {signature: array for array in submission.arrays for signature in array.runs}
    start = place[runs[0].spec.signature]
    assert place[runs[1].spec.signature].after == (start.job,) and start.after == ()


def test_a_diverged_record_is_set_aside_once_slurm_would_take_the_run(
    send: Submit, runs: list[Planned], monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in runs[::2]:
        leave(run.spec, "diverged")
    retry = [runs[2].spec.signature]

    def refuse(*_: object) -> None:
        raise UserError("SLURM refuses the job")

    with monkeypatch.context() as refusing:
        refusing.setattr(slurm, "check_cluster", refuse)
        with pytest.raises(UserError, match="refuses"):
            send(runs[2:], retry=retry)
    with monkeypatch.context() as dirty:
        dirty.setattr(slurm, "take_snapshot", refuse)
        with pytest.raises(UserError, match="refuses"):
            send(runs[2:], retry=retry)
    assert state_of(runs[2].spec) == "diverged"
    submission = send(runs[::2], retry=retry)
    assert [array.runs for array in submission.arrays] == [tuple(retry)] and submission.recorded == 1
    assert [state_of(run.spec) for run in runs[::2]] == ["diverged", "new"]


def test_the_command_to_submit_by_hand_is_quoted_for_the_shell(
    runs: list[Planned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: None)
    settings, _ = split_launcher(["launcher=slurm", f"launcher.slurm.folder='{tmp_path}/my sweeps'"])
    with pytest.raises(UserError) as refused:
        submit(runs[:1], settings, name="by_hand")
    leave(runs[2].spec, "diverged")
    with pytest.raises(UserError, match="by hand"):
        submit(runs[2:3], settings, name="again", retry=[runs[2].spec.signature])
    assert state_of(runs[2].spec) == "new"  # what is submitted by hand passes over records
    words = shlex.split(str(refused.value).partition("by hand: ")[2])
    assert json.loads(Path(words[3]).read_text())["needs"] == []
