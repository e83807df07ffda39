"""Run a sweep on this machine: a few warm workers, runs handed out in order, and nothing that a crash can lose."""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Sequence

from lora_xs.environment import usable_cores
from lora_xs.errors import UserError
from lora_xs.exit_status import REQUEUE
from lora_xs.spec import RunSpec
from lora_xs.sweeps.board import Board
from lora_xs.sweeps.crew import Worker, gpus_here, start_worker
from lora_xs.sweeps.manifest import Runnable
from lora_xs.sweeps.outcome import Event, Outcome
from lora_xs.sweeps.progress_line import ProgressLine
from lora_xs.sweeps.retry import set_aside
from lora_xs.sweeps.verdict import Verdict
from lora_xs.sweeps.worker import free_memory
from lora_xs.training.preemption import StopRequest, listening

TICK = 0.2  # seconds between two looks at signals and at runs that others have
FAREWELL = 20.0  # seconds that an idle worker has to end
GRACE = 600.0  # seconds that workers have to write their checkpoints once they are asked to stop
STILLBORN = 5  # workers in a row that die before they can take a run: then it is not the runs


def launch_local(
    runs: Sequence[Runnable],
    *,
    workers: int,
    threads: int | None = None,
    retries: int = 1,
    on_event: Callable[[Event], None] | None = None,
    gpus: Sequence[str] | None = None,
    command: str = "",
    again: Sequence[RunSpec] = (),
) -> Outcome:
    """Run all of `runs` that have no record yet in `workers` processes; say how they ended.

    A run waits for those it needs. One that fails is not tried again; one whose worker dies is, `retries` times. One
    that another launcher has is waited for. SIGINT (Ctrl-C) and the signals of clusters stop the launch: workers write
    checkpoints, and a second Ctrl-C ends them at once, which loses no more than a minute's training. If this process is
    killed, its workers stop by themselves.

    threads: of each worker; None: OMP_NUM_THREADS, else the cores shared out. gpus: names for CUDA_VISIBLE_DEVICES,
    shared out; None: those there are; where a run takes several processes, each worker has as many as the widest run.
    on_event: told of every change of a run. command: what the records say of how they were asked for. again: runs whose
    diverged records are set aside once the launch can begin. Raises UserError for `workers` below 1, and where there
    are GPUs but too few for the widest run.
    """
    if workers < 1:
        raise UserError(f"workers={workers} must be at least 1")
    known = {run.spec.signature: run for run in runs}
    blocks = blocks_of_gpus(gpus_here() if gpus is None else gpus, known.values(), workers)
    for spec in again:
        set_aside(spec)
    with ProgressLine(len(known)) as line, listening() as stop:

        def tell(event: Event) -> None:
            line.saw(event)
            if on_event is not None:
                on_event(event)

        board = Board(list(known.values()), retries, tell)
        return _Launch(board, workers, threads, blocks, command, stop).go()


def blocks_of_gpus(gpus: Sequence[str], runs: Iterable[Runnable], workers: int) -> list[str]:
    """What CUDA_VISIBLE_DEVICES is for one worker after another: as many of `gpus` as the widest run has processes.

    A narrower run takes the first ones of its worker's. Raises UserError where several processes would share a GPU.
    """
    wide = max((run.spec.trainer.processes for run in runs), default=1)
    if gpus and wide > 1 and workers * wide > len(gpus):
        mend = f"workers={len(gpus) // wide}" if len(gpus) >= wide else "fewer processes, or a machine with more GPUs"
        raise UserError(
            f"workers={workers} with trainer.processes={wide} need {workers * wide} GPUs, and there are {len(gpus)}; "
            f"give {mend}"
        )
    return [",".join(gpus[first : first + wide]) for first in range(0, len(gpus) - wide + 1, wide)]


class _Launch:
    """A launch under way."""

    def __init__(
        self,
        board: Board,
        workers: int,
        threads: int | None,
        blocks: Sequence[str],
        command: str,
        stop: StopRequest,
    ) -> None:
        self.board, self.command, self.stop = board, command, stop
        self.slots: list[Worker | None] = [None] * workers
        asked = os.environ.get("OMP_NUM_THREADS", "")
        self.threads = threads or (int(asked) if asked.isdigit() else max(1, usable_cores() // workers))
        self.blocks, self.keep = list(blocks), free_memory() // 4 // workers
        self.selector = selectors.DefaultSelector()
        self.why = ""  # it stops
        self.until = float("inf")
        self.stillborn = 0
        self.last_words = ""  # of the worker that died last

    def go(self) -> Outcome:
        try:
            while True:
                if not self.why and (why := self._reason_to_stop()):
                    self._stop(why)
                if not self.why:
                    self._hand_out()
                if not self._busy() and (self.why or self.board.over):
                    break
                if time.monotonic() > self.until:
                    break
                self._listen()
        except KeyboardInterrupt:
            self.why = "interrupted twice"
        finally:
            self._see_off()
        return self.board.outcome(self.why)

    def _reason_to_stop(self) -> str:
        if self.stop.signum is not None:
            return f"asked to by {signal.Signals(self.stop.signum).name}"
        if self.board.full:
            return f"{self.board.full}; make room on the disk"
        if self.stillborn >= STILLBORN:
            return f"{STILLBORN} workers in a row died before they could begin: {self.last_words}"
        return ""

    def _stop(self, why: str) -> None:
        self.why, self.until = why, time.monotonic() + GRACE
        for worker in self._busy():
            worker.ask_to_stop()

    def _busy(self) -> list[Worker]:
        return [worker for worker in self.slots if worker is not None and worker.run is not None]

    def _hand_out(self) -> None:
        for number, worker in enumerate(self.slots):
            if worker is not None and worker.run is not None:
                continue
            run = self.board.take()
            if run is None:
                return
            if worker is None:
                gpus = self.blocks[number % len(self.blocks)] if self.blocks else None
                worker = self.slots[number] = start_worker(self.threads, gpus, self.keep)
                self.selector.register(worker.output, selectors.EVENT_READ, number)
            worker.give(run, self.command)

    def _listen(self) -> None:
        if not self.selector.get_map():
            time.sleep(TICK)
            return
        for key, _ in self.selector.select(TICK):
            worker = self.slots[key.data]
            assert worker is not None
            answers = worker.answers()
            if answers is None:
                self._bury(key.data, worker)
                continue
            self.stillborn = 0
            for verdict in answers:
                run, worker.run = worker.run, None
                if run is not None:
                    self.board.settle(run, verdict)

    def _bury(self, number: int, worker: Worker) -> None:
        """A worker died: on its run if it had one and had begun."""
        self.last_words = worker.how_it_died()
        run, worker.run = worker.run, None
        self._dismiss(number, worker)
        if not worker.ready:
            self.stillborn += 1
        if run is not None:
            innocent = self.why or not worker.ready or worker.process.returncode == REQUEUE
            self.board.settle(run, Verdict("stopped" if innocent else "crashed", self.last_words))

    def _dismiss(self, number: int, worker: Worker, patience: float = 0.0) -> None:
        self.selector.unregister(worker.output)
        worker.end(patience)
        self.slots[number] = None

    def _see_off(self) -> None:
        """Idle workers go by themselves, others by force: their leases die with them."""
        for worker in self.slots:
            if worker is not None:
                worker.dismiss()
        for number, worker in enumerate(self.slots):
            if worker is not None:
                run, worker.run = worker.run, None
                self._dismiss(number, worker, 0.0 if run is not None else FAREWELL)
                if run is not None:
                    self.board.settle(run, Verdict("stopped", self.why))
        self.selector.close()
