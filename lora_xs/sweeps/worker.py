"""The process of a worker: runs one after another, warm, until there are no more or it is asked to stop.

    python -m lora_xs.sweeps.worker --manifest runs.jsonl --slice 0/4    # a SLURM task: every fourth run of a list
    python -m lora_xs.sweeps.worker                                      # of a launcher: runs come on standard input

Exit status of a slice: 0 all are finished or diverged, 1 some are not (said on standard output), 75 stopped by a
signal after writing a checkpoint: start it again, or have it requeued; 70 the process can use its GPU no more: another
one can go on.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from lora_xs.environment import set_threads
from lora_xs.errors import UserError
from lora_xs.exit_status import FAILED, FINISHED, MISTAKE, REQUEUE, UNFIT
from lora_xs.imports import import_libraries, quiet_libraries
from lora_xs.spec import RunSpec
from lora_xs.sweeps.board import Board
from lora_xs.sweeps.manifest import Runnable, parse_slice, read_manifest, take_slice
from lora_xs.sweeps.outcome import Event
from lora_xs.training.preemption import StopRequest, listening

READY = "ready"
POLL = 0.5  # seconds between two looks at whether a signal has come, or a run has become free


def main(arguments: Sequence[str] | None = None) -> int:
    """Work through a slice of a manifest, or through what a launcher sends; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m lora_xs.sweeps.worker", description="Run many runs in a process.")
    parser.add_argument("--manifest", type=Path, help='lines of {"spec": …, "needs": […]}')
    parser.add_argument("--slice", default="0/1", metavar="I/N", help="lines I, I + N, …, counted from 0")
    parser.add_argument("--warm-gb", type=float, help="memory for what is kept (default: a quarter of what is free)")
    options = parser.parse_args(arguments)
    keep = int(1e9 * options.warm_gb) if options.warm_gb is not None else free_memory() // 4
    with listening() as stop:
        try:
            if options.manifest is None:
                return _serve(keep, stop)
            index, count = parse_slice(options.slice)
            runs = with_needs(read_manifest(options.manifest), index, count)
            return _work_through(runs, keep, stop, f"{options.manifest.name} {options.slice}")
        except UserError as mistake:  # of the manifest or the slice
            print(f"error: {mistake}", file=sys.stderr)
            return MISTAKE


def with_needs(runs: Sequence[Runnable], index: int, count: int) -> list[Runnable]:
    """A slice, and after it the runs of other slices that it needs: where nobody else has them, they run here."""
    known = {run.spec.signature: run for run in runs}
    chosen = {run.spec.signature: run for run in take_slice(runs, index, count)}
    wanted = [need for run in chosen.values() for need in run.needs]
    while wanted:
        need = wanted.pop()
        if need in known and need not in chosen:
            chosen[need] = known[need]
            wanted.extend(known[need].needs)
    return list(chosen.values())


def free_memory() -> int:
    """Bytes that processes can still take without swapping; where the system does not say, 8 GB."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            facts = dict(line.split(":", 1) for line in lines)
        return 1024 * int(facts["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return 8 * 10**9


def _work_through(runs: Sequence[Runnable], keep: int, stop: StopRequest, title: str) -> int:
    """All of `runs`, those that others have at the end, once these are done with them."""
    board = Board(runs, on_event=_print)
    warm, unfit = None, ""
    while not (board.over or board.full or unfit) and stop.signum is None:
        run = board.take()
        if run is None:
            time.sleep(POLL)
            continue
        if warm is None:
            launcher = run.spec.launcher
            set_threads(launcher.threads, launcher.wait_policy)
            quiet_libraries()
            from lora_xs.sweeps.warm import Warm

            warm = Warm(keep)
        from lora_xs.sweeps.trying import attempt

        verdict = attempt(run.spec, warm, f"sweep: {title}")
        board.settle(run, verdict)
        if verdict.ending == "crashed" and "CUDA error" in verdict.why:
            unfit = f"this process can use its GPU no more ({verdict.why})"
    asked = signal.Signals(stop.signum).name if stop.signum is not None else ""
    outcome = board.outcome(f"asked to by {asked}" if asked else board.full or unfit)
    print(*outcome.lines(), sep="\n", flush=True)
    if outcome.complete:
        return FINISHED
    if asked:
        return REQUEUE
    return UNFIT if unfit else FAILED


def _print(event: Event) -> None:
    why = f": {event.why}" if event.why else ""
    print(f"{event.kind} {event.run.spec.folder}{why}", flush=True)


def _serve(keep: int, stop: StopRequest) -> int:
    """Answer a launcher: `{"spec": …, "command": …}` comes in, a verdict goes out, a line each.

    Standard output becomes standard error, so that what libraries print is not taken for an answer. The end of input
    means that the launcher is gone: a run that is under way stops at its next safe point.
    """
    incoming, outgoing = _own_streams()
    jobs: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(incoming, jobs), daemon=True).start()
    quiet_libraries()
    import_libraries(quantised=True)
    from lora_xs.sweeps.trying import attempt
    from lora_xs.sweeps.warm import Warm

    warm = Warm(keep)
    _send(outgoing, json.dumps({READY: os.getpid()}) + "\n")
    while stop.signum is None:
        try:
            line = jobs.get(timeout=POLL)
        except queue.Empty:
            continue
        if line is None:
            return FINISHED
        job = json.loads(line)
        verdict = attempt(RunSpec.from_json(job["spec"]), warm, job["command"])
        _send(outgoing, verdict.to_line())
        if verdict.ending == "crashed":
            return FAILED
    return REQUEUE


def _own_streams() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output for this module alone; the process and its children get none, and standard error."""
    incoming, outgoing = os.dup(0), os.dup(1)  # not inherited by children
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return os.fdopen(incoming, "rb"), os.fdopen(outgoing, "wb")


def _read(incoming: BinaryIO, jobs: queue.SimpleQueue[bytes | None]) -> None:
    descriptor, rest = incoming.fileno(), b""
    while True:
        block = os.read(descriptor, 1 << 16)  # not the buffered file: a thread inside its lock would break the exit
        if not block:
            break
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            jobs.put(line)
    os.kill(os.getpid(), signal.SIGTERM)
    jobs.put(None)  # afterwards: once the main thread has left, the signal would find nobody who listens


def _send(outgoing: BinaryIO, line: str) -> None:
    try:
        outgoing.write(line.encode())
        outgoing.flush()
    except BrokenPipeError:  # the launcher is gone; the folders say it all
        pass


if __name__ == "__main__":
    sys.exit(main())
