"""What a SLURM task runs under submitit: a warm worker on its slice of a manifest, and an honest exit status.

The worker is a process of its own, so that a crash in it is seen. Before the time limit SLURM signals both: the worker
saves and stops, this process waits for it and has submitit requeue the job. What SLURM itself requeues (preemption, a
lost node) needs nothing from here: a requeued task starts the same slice again and finished runs are passed over.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lora_xs.exit_status import UNFIT
from lora_xs.records import read_record
from lora_xs.sweeps.manifest import read_manifest, take_slice

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

POLL = 0.2  # seconds; polled, because a signal handler that waits on a lock its own frame holds would wait for ever
CRASHES = 1  # a worker that is unfit, or dies of a signal nobody sends on purpose, is started again this often
ON_PURPOSE = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class TaskFailed(RuntimeError):
    """Not every run of the slice is finished; the job must not end as COMPLETED."""


@dataclass
class Task:
    """Call it in a job. command: the worker's, without the two arguments below. manifest, index, count: its slice.

    patience: seconds from SLURM's signal until the worker is killed, whatever it is saving, to requeue in time.
    """

    command: tuple[str, ...]
    manifest: str
    index: int
    count: int
    patience: float

    def __post_init__(self) -> None:
        self._worker: subprocess.Popen[bytes] | None = None
        self._status: int | None = None
        self._asked = False

    def __call__(self) -> None:
        """Run the slice. Raises TaskFailed unless the worker says that all its runs are finished or diverged."""
        _clear_unfinished_pickles()
        self._note_in_logs()
        for attempt in range(CRASHES + 1):
            status = self._work()
            crashed = status == UNFIT or (status < 0 and -status not in ON_PURPOSE)
            if not crashed or self._asked or attempt == CRASHES:
                break
            how = f"died of signal {-status}" if status < 0 else "can use its GPU no more"
            print(f"worker {how}; starting it again", flush=True)
        if status != 0:
            raise TaskFailed(f"the worker of slice {self.index}/{self.count} of {self.manifest} ended with {status}")

    def checkpoint(self) -> DelayedSubmission:
        """What submitit calls at SLURM's signal, before it requeues: wait until the worker has saved."""
        from submitit.helpers import DelayedSubmission

        self._asked = True
        until = time.monotonic() + self.patience
        while self._worker is not None and self._status is None and time.monotonic() < until:
            time.sleep(POLL)
        if self._worker is not None and self._status is None:
            print(f"worker did not stop within {self.patience:.0f} s; killing it, its last checkpoint stands")
            self._worker.kill()
        if self._status == 0:
            sys.exit(0)  # all finished while we waited: nothing to requeue
        return DelayedSubmission(dataclasses.replace(self))

    def _work(self) -> int:
        """One worker, from start to exit status (negative: the signal it died of)."""
        words = [*self.command, "--manifest", self.manifest, "--slice", f"{self.index}/{self.count}"]
        self._status = None
        self._worker = worker = subprocess.Popen(words)

        def wait() -> None:
            self._status = worker.wait()

        threading.Thread(target=wait, daemon=True).start()
        while self._status is None:
            time.sleep(POLL)
        return self._status

    def _note_in_logs(self) -> None:
        """Say in the log beside each run that is not finished which job has it and where the task's output is."""
        job = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID", "?")
        task = os.environ.get("SLURM_ARRAY_TASK_ID")
        name = f"{job}_{task}" if task else job
        restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
        output = Path(self.manifest).parent / f"{name}_0_log.out"
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        line = f"{moment} SLURM job {name} on {socket.gethostname()}, restart {restarts}, output in {output}\n"
        for run in take_slice(read_manifest(Path(self.manifest)), self.index, self.count):
            folder = run.spec.folder
            if read_record(folder) is None:
                folder.mkdir(parents=True, exist_ok=True)
                with open(folder / "log.txt", "a", encoding="utf-8") as log:
                    log.write(line)


def _clear_unfinished_pickles() -> None:
    """Remove what a kill left of submitit's own files: it refuses to write beside a leftover."""
    from submitit.core.job_environment import JobEnvironment

    paths = JobEnvironment().paths
    for path in (paths.submitted_pickle, paths.result_pickle):
        path.with_suffix(path.suffix + ".save_tmp").unlink(missing_ok=True)
