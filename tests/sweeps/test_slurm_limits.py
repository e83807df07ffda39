"""What ends a job of its own accord on the real SLURM: its time limit, and a job that matters more."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from test_kill import bits, newest_step
from throwaway_slurm import SETTINGS, Sweep, ask, checkout, job, state, until

from lora_xs.records import read_record
from lora_xs.runner import run
from lora_xs.spec import RunSpec
from lora_xs.sweeps.launcher import split_launcher
from lora_xs.sweeps.manifest import Line
from lora_xs.sweeps.slurm import Submission, submit

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]


def sent(sweep: Sweep, place: Path, *overrides: str, epochs: int) -> tuple[RunSpec, Submission]:
    """One run, submitted from a checkout of its own."""
    settings, _ = split_launcher([*SETTINGS, f"launcher.slurm.folder={place / 'sweeps'}", *overrides])
    spec = sweep.spec(*(word for word in sweep.parent_words if "epochs" not in word), f"trainer.epochs={epochs}")
    return spec, submit([Line(spec)], settings, name="limits", source=checkout(place / "source"))


def epochs_of(seconds: float, sweep: Sweep, place: Path) -> int:
    """How many epochs train so long on this machine: ten, timed."""
    words = (word for word in sweep.parent_words if "epochs" not in word)
    ten = sweep.spec(*words, "trainer.epochs=10").replace(results=str(place / "timed"))
    return round(10 * seconds / run(ten).train["train_seconds"])


def same_as_undisturbed(spec: RunSpec, place: Path) -> None:
    """The record and every tensor's bits."""
    rarely = dataclasses.replace(spec.trainer, checkpoint_seconds=60)
    alone = spec.replace(results=str(place / "alone"), trainer=rarely)
    run(alone)
    assert bits(alone.folder) == bits(spec.folder)


def test_a_run_longer_than_its_time_limit_is_saved_requeued_and_whole(
    cluster: Path,
    tiny_model: Path,
    tiny_data: Path,
    tmp_path: Path,
) -> None:
    sweep = Sweep(tmp_path / "runs", tiny_model, tiny_data)
    # SLURM signals up to a minute early, but leaves a task the seconds it takes to listen
    limit = ["launcher.slurm.minutes=1", "launcher.slurm.signal_seconds=20"]
    spec, submission = sent(sweep, tmp_path, *limit, epochs=epochs_of(80, sweep, tmp_path))
    until(lambda: not ask("squeue", "--noheader"), "the queue is empty", 800)
    ended = state(job(submission, spec))
    assert ended["JobState"] == "COMPLETED" and int(ended["Restarts"]) >= 1 and ended["TimeLimit"] == "00:01:00"
    log = (spec.folder / "log.txt").read_text()
    assert "going on from step-" in log
    assert "timed out" in Path(re.findall(r"output in (\S+)", log)[0]).read_text()
    same_as_undisturbed(spec, tmp_path)


def test_a_preempted_run_is_requeued_by_slurm_and_goes_on_from_its_checkpoint(
    cluster: Path,
    tiny_model: Path,
    tiny_data: Path,
    tmp_path: Path,
) -> None:
    sweep = Sweep(tmp_path / "runs", tiny_model, tiny_data)
    spec, submission = sent(sweep, tmp_path, epochs=100)
    until(lambda: newest_step(spec.folder) > 0, "the run has a checkpoint")
    urgent = ["--partition=urgent", "--cpus-per-task=2", "--mem=10M", "--output=/dev/null", "--wrap=true"]
    ask("sbatch", "--parsable", *urgent)
    until(lambda: state(job(submission, spec))["Restarts"] == "1", "the run is requeued")
    assert read_record(spec.folder) is None
    until(lambda: not ask("squeue", "--noheader"), "the queue is empty", 800)
    assert state(job(submission, spec))["JobState"] == "COMPLETED"
    assert "going on from step-" in (spec.folder / "log.txt").read_text()
    same_as_undisturbed(spec, tmp_path)
