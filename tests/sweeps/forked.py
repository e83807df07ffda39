"""Workers and launchers as forks of the test's process: real processes, real pipes and signals, no imports to pay."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tqdm

from lora_xs.imports import import_libraries
from lora_xs.sweeps import local, worker
from lora_xs.sweeps.crew import Worker

tqdm.tqdm.monitor_interval = 0  # its thread may hold a lock at the moment of a fork
_ends: set[int] = set()  # the pipes' ends that this process has open


class _End(io.FileIO):
    """One of them."""

    def close(self) -> None:
        if not self.closed:
            _ends.discard(self.fileno())
        super().close()


class Fork:
    """A child process with the parts of `subprocess.Popen` that `Worker` uses."""

    def __init__(self, child: Callable[[], int], errors: int) -> None:
        job_end, self_in = os.pipe()
        self_out, answer_end = os.pipe()
        self.pid = os.fork()
        self.returncode: int | None = None
        if self.pid == 0:
            try:
                os.setsid()
                for own, standard in ((job_end, 0), (answer_end, 1), (errors, 2)):
                    os.dup2(own, standard)
                for pipe in (self_in, self_out, *_ends):  # a worker waits for the end of what its launcher sends
                    os.close(pipe)
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
                    signal.signal(number, signal.SIG_DFL)
                os._exit(child())
            finally:
                os._exit(70)
        os.close(job_end)
        os.close(answer_end)
        _ends.update((self_in, self_out))
        self.stdin, self.stdout = _End(self_in, "wb"), _End(self_out, "rb")

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = time.monotonic() + (60.0 if timeout is None else timeout)
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("fork", timeout or 60.0)
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def fork_workers(patch: pytest.MonkeyPatch, notes: Path | None = None) -> None:
    """Let `launch_local` fork its workers; with `notes`, each leaves a file there that is named by its process id."""
    import_libraries(quantised=True)  # once, not in every worker

    def start(threads: int, gpus: str | None, keep: int) -> Worker:
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - `Worker.end` closes it
        fork = Fork(lambda: worker.main(["--warm-gb", "1"]), errors.fileno())
        if notes is not None:
            notes.mkdir(parents=True, exist_ok=True)
            (notes / str(fork.pid)).touch()
        return Worker(fork, errors)  # type: ignore[arg-type]

    patch.setattr(local, "start_worker", start)


def fork_launcher(launch: Callable[[], object]) -> int:
    """`launch` in a child process that dies of signals as any process does; its process id."""
    pid = os.fork()
    if pid == 0:
        try:
            launch()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    return pid


def until(what: Callable[[], object], seconds: float = 90.0) -> None:
    """Wait until `what()` is true; fail if it never is."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
