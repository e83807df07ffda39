"""Start the processes of one run on this machine, and answer for them as a run in one process would.

torchrun starts a run too (see `lora_xs.processes`). Here what the first process raises is raised again with its own
type and exit status, a terminal's Ctrl-C counts once, a checkpoint may take longer than torchrun's thirty seconds, and
the process that only waits does not import torch.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from lora_xs import raised
from lora_xs.environment import usable_cores
from lora_xs.records import Record, read_record
from lora_xs.spec import RunSpec
from lora_xs.training.preemption import ASKED, Preempted, tell_outer

NOTICE, GRACE = 60.0, 15.0
"""Seconds for the first process to write down that another died, and for any to end once it is asked to."""
SOURCE = Path(__file__).resolve().parents[1]


def run_in_processes(spec: RunSpec, *, force: bool = False, command: str = "") -> Record:
    """`lora_xs.runner.run` of `spec` in `trainer.processes` processes of their own; raises what it would raise.

    Signals that ask a run to stop are passed on to all. If this process dies, they stop at the next step and leave a
    checkpoint. If one of them dies the others are ended: RuntimeError, and the next start goes on from the last
    checkpoint.
    """
    word = json.dumps({"spec": spec.to_json(), "force": force, "command": command}).encode() + b"\n"
    hears, answers = os.pipe()
    ranks: list[subprocess.Popen[bytes]] = []
    with _passing_on(ranks) as asked, os.fdopen(hears, "rb") as outcome:
        try:
            shared = _environment(spec)
            for rank in range(spec.trainer.processes):
                last = rank == spec.trainer.processes - 1
                ranks.append(
                    _start(rank, {**shared, "LORA_XS_OUTCOME": str(answers)} if rank == 0 else shared, answers)
                )
                if last:
                    os.close(answers)  # with the first process gone, nobody holds it
                with suppress(BrokenPipeError):
                    _stdin(ranks[-1]).write(word)
                    _stdin(ranks[-1]).flush()  # left open: its end tells a process that this one is gone
            _wait(ranks)
            said = outcome.read()
        finally:
            _end(ranks)
    return _result(spec, json.loads(said or b"{}"), ranks, asked)


def _environment(spec: RunSpec) -> dict[str, str]:
    count = spec.trainer.processes
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(allowed) if allowed.isdecimal() else spec.launcher.threads or usable_cores()
    return {
        **os.environ,
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": str(max(1, threads // count)),
        "PYTHONPATH": os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


def _start(rank: int, environment: dict[str, str], answers: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "lora_xs.spawned"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        pass_fds=(answers,) if rank == 0 else (),
        start_new_session=True,  # a terminal's Ctrl-C comes to this process, and from here once to each of them
    )


def _wait(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until the first process has ended, or another failed and the first had time to notice."""
    while ranks[0].poll() is None and not any(rank.poll() for rank in ranks):
        time.sleep(0.05)
    with suppress(subprocess.TimeoutExpired):
        ranks[0].wait(NOTICE)
    _end(ranks)


def _end(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    """See all processes off: a while to end by themselves, a while to stop, then no more."""
    for urge in (None, signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + GRACE
        for rank in ranks:
            if urge is not None and rank.poll() is None:
                rank.send_signal(urge)
        for rank in ranks:
            with suppress(subprocess.TimeoutExpired):
                rank.wait(max(0.0, until - time.monotonic()))
    for rank in ranks:
        with suppress(BrokenPipeError):
            _stdin(rank).close()


def _result(
    spec: RunSpec, said: dict[str, Any], ranks: Sequence[subprocess.Popen[bytes]], asked: Sequence[int]
) -> Record:
    """The record, or the exception that the first process ended with."""
    killed = {number: signal.Signals(-rank.returncode).name for number, rank in enumerate(ranks) if rank.returncode < 0}
    if said.get("record"):
        record = read_record(spec.folder)
        if record is not None:
            return record
        raise RuntimeError(f"{spec.folder}: its record, just written, cannot be read")
    if "raised" not in said and asked:
        raise Preempted(asked[0])
    silence = RuntimeError("the first process ended without a word")
    error = raised.from_json(said["raised"]) if "raised" in said else silence
    if type(error) is RuntimeError:
        ends = (f"; process {number} of {len(ranks)} was ended by {name}" for number, name in killed.items())
        raise RuntimeError(f"{error}{''.join(ends)}")
    raise error


@contextmanager
def _passing_on(ranks: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Signals that ask a run to stop go to its processes and are noted; outside the main thread, none come."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def pass_on(signum: int, frame: FrameType | None) -> None:
        asked.append(signum)
        for rank in ranks:
            with suppress(ProcessLookupError):
                os.kill(rank.pid, signum)  # not send_signal, which may wait for a lock that the main thread holds

    former = {number: signal.signal(number, pass_on) for number in ASKED}
    try:
        yield asked
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        tell_outer(former[signal.SIGTERM], asked[-1] if asked else None)


def _stdin(rank: subprocess.Popen[bytes]) -> Any:
    return rank.stdin
