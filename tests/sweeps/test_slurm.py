"""The SLURM launcher against a real slurmctld, slurmd and sbatch: one throw-away node, one eventful sweep."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from test_kill import bits, newest_step
from throwaway_slurm import PATH, REPOSITORY, SETTINGS, Sweep, ask, checkout, job, state, until

from lora_xs.errors import UserError
from lora_xs.records import read_attempt, read_record
from lora_xs.runner import run
from lora_xs.sweeps.launcher import split_launcher
from lora_xs.sweeps.manifest import Line
from lora_xs.sweeps.queued import queued_runs
from lora_xs.sweeps.slurm import submit

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]  # minutes, where other work has the cores


@pytest.fixture(scope="module")
def story(cluster: Path, tiny_model: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """One sweep in which everything happens to somebody; what was seen on the way."""
    place = tmp_path_factory.mktemp("sweep")
    sweep = Sweep(place / "runs", tiny_model, tiny_data)
    source, node = checkout(place / "source"), socket.gethostname().partition(".")[0]
    settings, _ = split_launcher([*SETTINGS, f"launcher.slurm.folder={place / 'sweeps'}"])
    send = {"name": "eventful", "source": source}
    seen: dict = {"sweep": sweep, "settings": settings}

    ask("scontrol", "update", f"node={node}", "state=drain", "reason=test")
    first = seen["first"] = submit(sweep.lines(), settings, **send)
    seen["again"] = submit(sweep.lines(), settings, **send)
    seen["queued"] = queued_runs(place / "sweeps", sweep.results)
    runner = source / "lora_xs" / "runner.py"
    runner.write_text("raise SystemExit('edited after the submission')\n")
    time.sleep(2)
    seen["while drained"] = {state(job(first, spec))["JobState"] for spec in (sweep.parent, sweep.long)}
    ask("scontrol", "update", f"node={node}", "state=resume")

    parent, long = job(first, sweep.parent), job(first, sweep.long)
    until(lambda: newest_step(sweep.parent.folder) > 0, "the first run has a checkpoint")
    ask("scancel", "--signal=USR2", parent)  # what SLURM sends before a time limit
    until(lambda: state(parent)["Restarts"] == "1", "the signalled task is requeued")
    seen["record at requeue"] = read_record(sweep.parent.folder)
    until(lambda: newest_step(sweep.long.folder) > 0, "the long run has a checkpoint")
    trainer = json.loads((sweep.long.folder / "lease.json").read_text())["pid"]
    os.kill(trainer, signal.SIGSTOP)  # so that it cannot be done before slurmd is back
    os.kill(int((cluster / "slurmd.pid").read_text()), signal.SIGKILL)
    script = [str(REPOSITORY / "slurm" / "slurm-local.sh"), "restart-node", str(cluster)]
    subprocess.run(script, check=True, timeout=60, env={**os.environ, "PATH": PATH})
    seen["after slurmd"] = state(long)["JobState"]
    os.kill(trainer, signal.SIGCONT)
    before = newest_step(sweep.long.folder)
    until(lambda: newest_step(sweep.long.folder) > before, "the run goes on without its slurmd")
    ask("scancel", long)
    until(lambda: state(long)["JobState"] == "CANCELLED", "the long run is cancelled")
    until(lambda: read_attempt(sweep.long.folder), "it says so beside the run")
    seen["cancelled"] = read_attempt(sweep.long.folder).status

    wanted = [line for line in sweep.lines() if line.spec not in (sweep.broken, sweep.orphan)]
    runner.write_text((REPOSITORY / "lora_xs" / "runner.py").read_text())
    second = seen["second"] = submit(wanted, settings, **send)
    until(lambda: not ask("squeue", "--noheader"), "the queue is empty")
    seen["states"] = {name: state(job(first, getattr(sweep, name))) for name in NAMES}
    seen["second state"] = state(job(second, sweep.long))
    return seen


NAMES = ("parent", "broken", "long", "other", "child", "orphan")


def test_records_equal_those_of_local_runs(story: dict, tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    local = Sweep(tmp_path, tiny_model, tiny_data)
    for name in ("parent", "long", "other", "child"):
        mine, theirs = getattr(local, name), getattr(story["sweep"], name)
        run(mine.replace(trainer=dataclasses.replace(mine.trainer, checkpoint_seconds=60)))
        assert mine.signature == theirs.signature
        assert bits(mine.folder) == bits(theirs.folder), name


def test_a_signalled_run_saves_is_requeued_and_goes_on(story: dict) -> None:
    assert story["record at requeue"] is None
    parent = story["states"]["parent"]
    assert (parent["JobState"], parent["ExitCode"], parent["Restarts"]) == ("COMPLETED", "0:0", "1")
    log = (story["sweep"].parent.folder / "log.txt").read_text()
    assert "restart 0" in log and "restart 1" in log and "going on from step-" in log
    output = Path(re.findall(r"output in (\S+)", log)[0])
    assert str(story["sweep"].parent.folder) in output.read_text()


def test_a_failing_run_fails_its_job_and_cancels_those_that_need_it(story: dict) -> None:
    states = story["states"]
    assert (states["broken"]["JobState"], states["broken"]["ExitCode"]) == ("FAILED", "1:0")
    assert states["orphan"]["JobState"] == "CANCELLED"
    assert states["child"]["JobState"] == states["parent"]["JobState"] == "COMPLETED"
    assert read_attempt(story["sweep"].broken.folder).status == "failed"
    assert not story["sweep"].orphan.folder.exists()


def test_jobs_wait_for_a_drained_node_and_survive_the_death_of_slurmd(story: dict) -> None:
    assert story["while drained"] == {"PENDING"}
    assert story["after slurmd"] == "RUNNING"


def test_a_cancelled_run_is_picked_up_by_the_next_submission(story: dict) -> None:
    sweep, second = story["sweep"], story["second"]
    assert story["cancelled"] == "cancelled"
    assert {s for array in second.arrays for s in array.runs} == {sweep.long.signature, sweep.other.signature}
    assert second.recorded + len(second.already) == 2
    assert story["second state"]["JobState"] == "COMPLETED"
    assert "going on from step-" in (sweep.long.folder / "log.txt").read_text()


def test_what_is_queued_is_not_queued_twice(story: dict) -> None:
    sweep = story["sweep"]
    assert story["again"].arrays == ()
    expected = {getattr(sweep, name).signature: job(story["first"], getattr(sweep, name)) for name in NAMES}
    assert story["again"].already == story["queued"] == expected


def test_jobs_run_the_code_as_it_was_submitted(story: dict) -> None:
    code = story["first"].code
    for name in ("parent", "long", "child"):
        environment = read_record(getattr(story["sweep"], name).folder).environment
        assert (environment["commit"], environment["dirty"]) == (code.commit, False)


def test_the_folder_of_a_submission_says_what_was_submitted(story: dict) -> None:
    facts = json.loads((story["first"].folder / "submission.json").read_text())
    assert [array["job"] for array in facts["arrays"]] == list(story["first"].jobs)
    assert facts["commit"] == story["first"].code.commit


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("launcher.slurm.partition=nowhere", "partition"),
        ("launcher.slurm.gres=gpu:1", "gres"),
        ("launcher.slurm.mem=900T", "Memory|configuration"),
        ("launcher.slurm.constraint=imagined", "feature"),
        ("+launcher.slurm.extra.imagined=1", "unrecognized option"),
    ],
)
def test_what_slurm_does_not_know_is_one_line_before_anything_is_queued(
    cluster: Path, tiny_run, tmp_path: Path, override: str, answer: str
) -> None:
    settings, _ = split_launcher([*SETTINGS, override, f"launcher.slurm.folder={tmp_path / 'sweeps'}"])
    with pytest.raises(UserError, match=answer) as refused:
        submit([Line(tiny_run())], settings, name="refused", source=tmp_path)
    assert "\n" not in str(refused.value) and "mend" in str(refused.value)
    assert not (tmp_path / "sweeps").exists()


def test_the_template_requeues_before_the_limit_and_passes_the_exit_status_on(cluster: Path, tmp_path: Path) -> None:
    """Its worker is played by a script: first it works until it is signalled, then it finishes; slice 1 fails."""
    worker = tmp_path / "python"
    worker.write_text(
        f"#!/bin/bash\nfolder={tmp_path}\n"
        '[[ "$*" == "-m lora_xs.sweeps.worker --manifest m.jsonl --slice "* ]] || exit 9\n'
        '[ "${@: -1}" = 1/2 ] && exit 7\n'
        "[ -e $folder/saved ] && { touch $folder/finished; exit 0; }\n"
        "trap 'sleep 1; touch $folder/saved; exit 140' USR2\n"
        "touch $folder/started; while :; do sleep 0.1; done\n"
    )
    worker.chmod(0o755)
    options = ["--parsable", "--array=0-1", "--time=5", "--cpus-per-task=1", f"--chdir={tmp_path}"]
    options.append(f"--export=ALL,LORA_XS_PYTHON={worker}")
    array = ask("sbatch", *options, str(REPOSITORY / "slurm" / "sweep.sbatch"), "m.jsonl").strip()
    until((tmp_path / "started").exists, "the worker started")
    ask("scancel", "--batch", "--signal=USR2", f"{array}_0")
    until(lambda: not ask("squeue", "--noheader"), "the array ended")
    assert (tmp_path / "finished").exists()
    assert (state(f"{array}_0")["JobState"], state(f"{array}_0")["Restarts"]) == ("COMPLETED", "1")
    assert (state(f"{array}_1")["JobState"], state(f"{array}_1")["ExitCode"]) == ("FAILED", "7:0")
