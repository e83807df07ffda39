"""The `math-verify` library as an independent judge, in a process of its own that ends when an answer takes too long.

The answer's text is the one that `strict` reads; the library judges whether it equals the reference. A hung answer is
wrong, `timed out`, and costs SECONDS and a new start: on a busy machine that can happen to any, so `scores.py` counts
what was left unjudged. The library evaluates text as code in places; see the worker for
how that is prevented.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import re
import subprocess
import sys
import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lora_xs.errors import UserError
from lora_xs.evaluation.answers.extraction import LONGEST, bare, strict_text
from lora_xs.evaluation.answers.families import Verdict

SECONDS = 5.0  # for one answer
START_SECONDS = 120.0  # for the process's imports, on a busy machine
TIMED_OUT, ENDED = "timed out", "ended the judge's process"
UNJUDGED = (TIMED_OUT, ENDED)  # wrong for want of a verdict: another day, or machine, may have one
WORKER = Path(__file__).with_name("math_verify_worker.py")

_FORMULA = re.compile(r"[\\{}+*/^()=×÷−]|\d\s*-")  # what makes an answer a formula rather than a number and its unit
_PERCENT = re.compile(r"\s*\\?%\s*$")


def installed() -> bool:
    """Whether the optional library is there."""
    return find_spec("math_verify") is not None


def require() -> None:
    """Raise UserError where the optional library is missing."""
    if not installed():
        raise UserError("scorer=math_verify needs math-verify; run `pip install 'math-verify>=0.9,<0.10'`")


def judge(number: bool, completion: str, gold: str) -> Verdict:
    """Whether math-verify holds the answer and `gold` for equal; `number` where a plain number and unit is expected.

    Raises UserError where the library is missing or its process does not start.
    """
    require()
    text = strict_text(completion)
    if text is None:
        return Verdict(False, None, "no marker with an answer")
    if len(text) > LONGEST:
        return Verdict(False, text[:LONGEST], f"longer than {LONGEST} characters")
    reply = _worker().ask({"gold": _delimited(bare(gold), number), "answer": _delimited(text, number)}, SECONDS)
    return Verdict(reply["correct"], text, reply["why"])


def _delimited(text: str, number: bool) -> str:
    """As the library expects it: a formula between dollars, a number with its unit as plain text."""
    if number and not _FORMULA.search(text):
        return text.replace("$", "")
    formula, percent = _PERCENT.subn("", text.replace("\\$", "").replace("$", "").replace("\n", " "))
    return f"${formula}$" + ("%" if percent else "")  # within the dollars the library does not read a percent sign


class Worker:
    """A long-lived process answering one request at a time, started when first asked and again after it was ended."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self._process: subprocess.Popen[str] | None = None
        self._replies: queue.Queue[str | None] = queue.Queue()
        self._lock = threading.Lock()

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The reply, or one that says `timed out` or `ended` (the process died) after at most `seconds`."""
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                reply = self._replies.get(timeout=seconds)
            except queue.Empty:
                self._stop()
                return {"correct": False, "why": TIMED_OUT}
            except OSError:
                reply = None
            if reply is None:
                self._stop()
                return {"correct": False, "why": ENDED}
            return dict(json.loads(reply))

    def close(self) -> None:
        """End the process; a later request starts another."""
        with self._lock:
            self._stop()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        # hash seed: the library orders unknowns by sets, and a verdict must not depend on the day
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONIOENCODING": "utf-8"}
        self._process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                         stderr=subprocess.DEVNULL, encoding="utf-8", env=environment)  # fmt: skip
        self._replies = queue.Queue()
        threading.Thread(target=_read, args=(self._process, self._replies), daemon=True).start()
        try:
            ready = self._replies.get(timeout=START_SECONDS)
        except queue.Empty:
            ready = None
        if ready is None:
            self._stop()
            raise UserError(f"scorer=math_verify: its process does not start; `{' '.join(self.command)}` says why")
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError, ValueError):
                    if pipe is not None and pipe is not process.stdout:  # its reader closes that one
                        pipe.close()
            process.wait()


def _read(process: subprocess.Popen[str], replies: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            replies.put(line)
    replies.put(None)


def _worker() -> Worker:
    return _worker_of(os.getpid())  # a forked process must not share its parent's pipes


@cache
def _worker_of(_process_id: int) -> Worker:
    # -P: the worker's folder must not come before the libraries
    worker = Worker([sys.executable, "-P", str(WORKER)])
    atexit.register(worker.close)
    return worker
