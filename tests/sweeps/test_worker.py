"""A worker on a slice of a manifest, as a SLURM task runs it: exit status, needs, signals; and under a launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from forked import Fork, until
from sweep_runs import times_trained

from lora_xs.exit_status import FAILED, FINISHED, MISTAKE, REQUEUE, UNFIT
from lora_xs.lease import Lease
from lora_xs.records import read_attempt, read_record
from lora_xs.sweeps import worker
from lora_xs.sweeps.crew import Worker
from lora_xs.sweeps.manifest import Line, write_manifest
from lora_xs.sweeps.worker import free_memory, main

REPOSITORY = Path(__file__).resolve().parents[2]
SHORT = ["trainer.max_steps=2"]
LONG = ["trainer.epochs=15", "trainer.checkpoint_seconds=0.2", "evaluation=end"]


def slice_of(tmp_path: Path, *lines: Line) -> list[str]:
    """Arguments for a worker on all of `lines`."""
    write_manifest(tmp_path / "runs.jsonl", lines)
    return ["--manifest", str(tmp_path / "runs.jsonl"), "--warm-gb", "1"]


def test_a_slice_runs_what_it_needs_of_others_and_exits_0(tiny_run, tmp_path: Path, capsys) -> None:
    first, wild = tiny_run(*SHORT), [*SHORT, "trainer.learning_rate=1e30", "trainer.head_learning_rate=1e30"]
    then = tiny_run(*SHORT, f"start_from={first.folder}", "seed=1")
    diverges = tiny_run(*wild, "trainer.max_grad_norm=0", "trainer.max_steps=6", "seed=2")
    lines = [Line(then, (first.signature,)), Line(first), Line(diverges)]
    assert main([*slice_of(tmp_path, *lines), "--slice", "0/2"]) == FINISHED
    assert capsys.readouterr().out.splitlines()[-1] == "2 finished, 1 diverged"
    assert all(read_record(line.spec.folder) for line in lines)
    assert main([*slice_of(tmp_path, *lines), "--slice", "1/2"]) == FINISHED
    assert capsys.readouterr().out.splitlines()[-1] == "1 finished before"
    assert [times_trained(line.spec.folder) for line in lines] == [1, 1, 1]


def test_a_slice_with_a_run_that_fails_exits_1_and_names_it(tiny_run, tmp_path: Path, capsys) -> None:
    good, bad = tiny_run(*SHORT), tiny_run(*SHORT, "data.root=/nowhere")
    assert main(slice_of(tmp_path, Line(bad.replace(seed=1)), Line(good))) == FAILED
    said = capsys.readouterr().out
    assert "1 finished, 1 failed" in said and "data.root=/nowhere: no such folder" in said


def test_a_broken_gpu_context_ends_the_worker_and_a_lack_of_its_memory_does_not(
    tiny_run, tmp_path: Path, monkeypatch
) -> None:
    from torch import OutOfMemoryError

    from lora_xs.sweeps import warm

    usual, errors = warm.Warm.run, [OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")]

    def failing(self, spec, **rest):
        if errors:
            raise errors.pop()
        return usual(self, spec, **rest)

    monkeypatch.setattr(warm.Warm, "run", failing)
    one, two = tiny_run(*SHORT), tiny_run(*SHORT, "seed=1")
    assert main(slice_of(tmp_path, Line(one))) == FINISHED
    errors.append(RuntimeError("CUDA error: an illegal memory access was encountered\nmore lines"))  # type: ignore
    assert main(slice_of(tmp_path, Line(one), Line(two))) == UNFIT
    assert not (two.folder / "record.json").exists(), "it went on in the broken context"


def test_a_manifest_or_slice_that_is_none_is_a_mistake_in_a_line(tmp_path: Path, capsys) -> None:
    assert main(["--manifest", str(tmp_path / "missing")]) == MISTAKE
    (tmp_path / "bad").write_text('{"spec": 1}\n')
    assert main(["--manifest", str(tmp_path / "bad")]) == MISTAKE
    assert main(["--manifest", str(tmp_path / "bad"), "--slice", "3/2"]) == MISTAKE
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and "bad:1" in said[1] and "--slice=3/2" in said[2]


@pytest.mark.parametrize("how", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_before_the_limit_leaves_a_checkpoint_and_asks_for_a_requeue(tiny_run, tmp_path: Path, how) -> None:
    one, two = tiny_run(*LONG), tiny_run(*LONG, "seed=1")
    arguments = slice_of(tmp_path, Line(one), Line(two))

    def near_the_limit() -> None:
        until(lambda: list((one.folder / "checkpoints").glob("step-*")))
        os.kill(os.getpid(), how)

    thread = threading.Thread(target=near_the_limit)
    thread.start()
    assert main(arguments) == REQUEUE
    thread.join()
    attempt = read_attempt(one.folder)
    assert attempt is not None and attempt.status == "cancelled" and not two.folder.exists()


def test_a_signal_in_a_runs_last_moment_keeps_the_next_one_from_beginning(
    tiny_run, tmp_path: Path, monkeypatch
) -> None:
    """The run ends in its own time and nothing has to stop: the worker must not forget that it was asked to."""
    from lora_xs import runner

    usual = runner._Attempt._summarise

    def signalled(self, prepared):
        os.kill(os.getpid(), signal.SIGUSR2)
        usual(self, prepared)

    monkeypatch.setattr(runner._Attempt, "_summarise", signalled)
    one, two = tiny_run(*SHORT), tiny_run(*SHORT, "seed=1")
    assert main(slice_of(tmp_path, Line(one), Line(two))) == REQUEUE
    assert read_record(one.folder) is not None and not two.folder.exists()


def test_a_run_that_another_process_has_is_waited_for(tiny_run, tmp_path: Path, capsys) -> None:
    one, two = tiny_run(*SHORT), tiny_run(*SHORT, "seed=1")
    with_lease = Lease(one.folder)
    with_lease.__enter__()

    def let_go() -> None:
        until(lambda: read_record(two.folder))
        with_lease.__exit__(None, None, None)

    thread = threading.Thread(target=let_go)
    thread.start()
    assert main(slice_of(tmp_path, Line(one), Line(two))) == FINISHED
    thread.join()
    said = capsys.readouterr().out
    assert (
        said.index(f"busy {one.folder}") < said.index(f"finished {two.folder}") < said.index(f"finished {one.folder}")
    )


def test_the_end_of_input_stops_a_run_that_is_under_way(tiny_run, tmp_path: Path) -> None:
    spec = tiny_run(*LONG, "trainer.epochs=4000")
    with open(tmp_path / "errors", "w+b") as errors:
        fork = Fork(lambda: worker.main(["--warm-gb", "1"]), errors.fileno())
        held = Worker(fork, errors)  # type: ignore[arg-type]
        held.give(Line(spec), "")
        until(lambda: list((spec.folder / "checkpoints").glob("step-*")))
        held.dismiss()  # as the system does when the launcher is killed
        assert fork.wait(60) == REQUEUE
        held.end()
    attempt = read_attempt(spec.folder)
    assert attempt is not None and attempt.status == "cancelled" and not (spec.folder / "lease.json").exists()


def test_what_libraries_print_is_no_answer(tiny_run, tmp_path: Path, monkeypatch) -> None:
    from lora_xs.sweeps import warm

    usual = warm.Warm.run

    def noisy(self, spec, **rest):
        print('{"ending": "failed"}', flush=True)
        os.write(1, b"from C\n")
        subprocess.run([sys.executable, "-c", "print('from a child'); assert not input.__doc__ is None"], check=True)
        return usual(self, spec, **rest)

    monkeypatch.setattr(warm.Warm, "run", noisy)
    with open(tmp_path / "errors", "w+b") as errors:
        held = Worker(Fork(lambda: worker.main(["--warm-gb", "1"]), errors.fileno()), errors)  # type: ignore[arg-type]
        held.give(Line(tiny_run(*SHORT)), "")
        answers = []
        while not answers:
            said = held.answers()
            assert said is not None
            answers += said
        errors.seek(0)
        printed = errors.read().decode()
        held.end(30)
    assert [answer.ending for answer in answers] == ["finished"]
    assert "from C" in printed and "from a child" in printed


def test_the_module_is_a_command(tiny_run, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "lora_xs.sweeps.worker", "--manifest", str(tmp_path / "none")]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=100)
    assert done.returncode == MISTAKE and done.stderr.startswith("error: cannot read the manifest")


def test_memory_is_counted_in_bytes() -> None:
    assert 10**8 < free_memory() < 10**14
