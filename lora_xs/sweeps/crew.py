"""A worker as its launcher sees it: a process of its own that is given runs and answers, or dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

from lora_xs.spec.sections import LauncherSpec
from lora_xs.sweeps.manifest import Runnable
from lora_xs.sweeps.verdict import Verdict

SOURCE = Path(__file__).resolve().parents[2]
LAST_WORDS = 4000  # bytes of a worker's standard error that are looked at when it died


class Worker:
    """A started process. run: what it was given and has not answered for. ready: whether it has said that it is."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self.process, self._errors = process, errors
        self.run: Runnable | None = None
        self.ready = False
        self._rest = b""

    @property
    def output(self) -> int:
        """The descriptor that answers come from."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def give(self, run: Runnable, command: str) -> None:
        """Hand it a run. One that is dead already is found out by its answer."""
        self.run = run
        line = json.dumps({"spec": run.spec.to_json(), "command": command}) + "\n"
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()

    def answers(self) -> list[Verdict] | None:
        """What it has said since; None once it is dead. Blocks until there is either."""
        block = os.read(self.output, 1 << 16)
        if not block:
            self.process.wait()
            return None
        *lines, self._rest = (self._rest + block).split(b"\n")
        verdicts = []
        for line in lines:
            if self.ready:
                verdicts.append(Verdict.from_line(line.decode()))
            self.ready = True  # the first line says so, and nothing else
        return verdicts

    def ask_to_stop(self) -> None:
        """Have it write a checkpoint and go."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def dismiss(self) -> None:
        """No more runs: an idle worker ends by itself."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    def end(self, patience: float = 0.0) -> None:
        """See it off, by force where it is still there after `patience` seconds."""
        self.dismiss()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._errors.close()

    def how_it_died(self) -> str:
        """One line: the signal or exit status, and the last line of standard error."""
        status = self.process.returncode
        if status is not None and status < 0:
            name = signal.Signals(-status).name
            hint = " (as the system does when memory runs out)" if -status == signal.SIGKILL else ""
            how = f"its worker was ended by {name}{hint}"
        else:
            how = f"its worker ended with exit status {status}"
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - LAST_WORDS))
        said = [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return f"{how}; last words: {said[-1].strip()[:300]}" if said else how


def start_worker(threads: int, gpus: str | None, keep: int) -> Worker:
    """A worker process with `threads` OpenMP threads, seeing `gpus` alone where given, that keeps `keep` bytes.

    It is the head of its own session: a Ctrl-C in the terminal is its launcher's to pass on.
    """
    environment = dict(os.environ)
    environment["OMP_NUM_THREADS"] = str(threads)
    environment.setdefault("OMP_WAIT_POLICY", LauncherSpec().wait_policy)
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    environment["PYTHONPATH"] = os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
    if gpus is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpus
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - `Worker.end` closes it
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
    words = [sys.executable, "-m", "lora_xs.sweeps.worker", "--warm-gb", f"{keep / 1e9:.6f}"]
    return Worker(subprocess.Popen(words, env=environment, start_new_session=True, **pipes), errors)


def gpus_here() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may name on this machine, without importing torch; empty where there is no GPU."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip() and name.strip() != "-1"]
    try:
        words = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        listed = subprocess.run(words, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return listed.stdout.split() if listed.returncode == 0 else []
