"""A launcher as a user starts it, with the worker processes it starts: kill -9, and launch it again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from forked import alive, until
from sweep_runs import leavings, times_trained

from lora_xs.records import read_record
from lora_xs.runner import run
from lora_xs.sweeps.manifest import Line, write_manifest

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]  # minutes, where other work has the cores

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH = """
import sys
from pathlib import Path
from lora_xs.sweeps.local import launch_local
from lora_xs.sweeps.manifest import read_manifest

outcome = launch_local(read_manifest(Path(sys.argv[1])), workers=2, threads=1)
print(*outcome.lines(), sep="\\n")
sys.exit(not outcome.complete)
"""


def launch(manifest: Path) -> subprocess.Popen[str]:
    """A launcher of its own on the runs of `manifest`."""
    words = [sys.executable, "-c", LAUNCH, str(manifest)]
    return subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def children(pid: int) -> list[int]:
    """Process ids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def saved(folders: Sequence[Path]) -> bool:
    """Whether each run has a checkpoint to go on from."""
    return all(any(folder.glob("checkpoints/step-*")) for folder in folders)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are listed in /proc")
def test_workers_stop_by_themselves_when_their_launcher_is_killed_and_the_next_one_finishes(
    tiny_run, tmp_path: Path
) -> None:
    long = ["trainer.epochs=25", "trainer.checkpoint_seconds=0.3", "evaluation=end"]
    specs = [tiny_run(*long), tiny_run(*long, "seed=1"), tiny_run("trainer.max_steps=3", "seed=2")]
    manifest = tmp_path / "runs.jsonl"
    write_manifest(manifest, [Line(spec) for spec in specs])
    killed = launch(manifest)
    until(lambda: saved([spec.folder for spec in specs[:2]]), 200)
    workers = children(killed.pid)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)  # a worker first: the launcher starts another
    until(lambda: len(set(children(killed.pid)) - {workers[0]}) == 2)
    workers = [pid for pid in children(killed.pid) if alive(pid)]
    killed.kill()
    killed.wait()
    until(lambda: not any(alive(pid) for pid in workers))
    assert not any(read_record(spec.folder) for spec in specs[:2]), "the runs must be longer for this test"
    assert not any((spec.folder / "lease.json").exists() for spec in specs[1:2])
    again = launch(manifest)
    said, _ = again.communicate(timeout=400)
    assert again.returncode == 0 and said.strip() == "3 finished"
    assert [times_trained(spec.folder) for spec in specs] == [1, 1, 1]
    assert "going on from step-" in (specs[1].folder / "log.txt").read_text()
    alone = specs[1].replace(results=str(tmp_path / "alone"))
    run(alone)
    assert leavings(specs[1].folder) == leavings(alone.folder)
