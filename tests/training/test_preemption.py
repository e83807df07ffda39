"""A signal that an inner block catches is known to the outer one, whoever set the inner handlers."""

from __future__ import annotations

import os
import signal

import pytest

from lora_xs.spawning import _environment, _passing_on
from lora_xs.training.preemption import listening


def test_a_stop_passed_on_to_a_runs_processes_stops_the_worker_too() -> None:
    with listening() as worker:
        with _passing_on([]) as asked:
            os.kill(os.getpid(), signal.SIGUSR2)
        assert asked == [signal.SIGUSR2] and worker.signum == signal.SIGUSR2


def test_a_stop_within_a_run_stops_the_worker_too() -> None:
    with listening() as worker:
        with listening():
            os.kill(os.getpid(), signal.SIGTERM)
        assert worker.signum == signal.SIGTERM


@pytest.mark.parametrize(("allowed", "threads", "each"), [("8", 8, "4"), ("1", None, "1"), ("", 6, "3")])
def test_the_processes_of_a_run_share_its_threads(
    monkeypatch: pytest.MonkeyPatch, tiny_run, allowed: str, threads: int | None, each: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", allowed)
    spec = tiny_run("trainer.processes=2", *([f"launcher.threads={threads}"] if threads else []))
    assert _environment(spec)["OMP_NUM_THREADS"] == each
