"""Stop at the next safe point when asked to: SIGINT, SIGTERM, or the signals clusters send before a limit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lora_xs.processes import most
from lora_xs.raised import portable

ASKED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))


@portable
class Preempted(Exception):
    """The run was asked to stop and has written a checkpoint; `signum` says by which signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; the same command goes on from the last checkpoint")
        self.signum = signum

    @property
    def arguments(self) -> tuple[int]:
        """What it is made from anew in another process."""
        return (self.signum,)


class StopRequest:
    """Set by a signal handler, read between optimiser steps. A second SIGINT interrupts at once.

    checks: called where it is safe to stop; one of them may raise to have the run stopped for a reason of its own.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.checks: list[Callable[[], None]] = []

    def raise_if_asked(self) -> None:
        """Raise Preempted when a signal has come."""
        if self.signum is not None:
            raise Preempted(self.signum)
        self.check()

    def check(self) -> None:
        """Whatever `checks` raise."""
        for check in self.checks:
            check()

    def agree(self) -> None:
        """Let every process of the run know of a signal that came to one; they all call this at the same place."""
        self.signum = int(most(self.signum or 0)[0]) or self.signum

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum == signal.SIGINT and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Catch the signals while the block runs and put the former handlers back; outside the main thread, catch none.

    Blocks may lie within each other: what the inner one caught, the outer one knows of when the inner ends.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    former = {number: signal.signal(number, request._handle) for number in ASKED}
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        tell_outer(former[signal.SIGTERM], request.signum)


def tell_outer(handler: object, signum: int | None) -> None:
    """Let the `listening` block that `handler` belongs to know of a signal that was caught in its place."""
    outer = getattr(handler, "__self__", None)
    if isinstance(outer, StopRequest) and signum is not None:
        outer.signum = signum
