"""One of the processes of a run, as `lora_xs.spawning` starts it: `python -m lora_xs.spawned`."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import Any, BinaryIO

from lora_xs import raised
from lora_xs.errors import UserError
from lora_xs.exit_status import FAILED, MISTAKE
from lora_xs.imports import quiet_libraries
from lora_xs.lease import RunBusy
from lora_xs.runner import run
from lora_xs.spec import RunSpec
from lora_xs.training.preemption import Preempted


def main() -> int:
    """Read what to run from standard input, run it, and stop if whoever started this process is gone."""
    line = b""
    while not line.endswith(b"\n"):  # not sys.stdin: a thread that waits in its buffer aborts the interpreter's end
        line += os.read(0, 1 << 16) or b"\n"
    word = json.loads(line)
    threading.Thread(target=_until_orphaned, daemon=True).start()
    number = os.environ.pop("LORA_XS_OUTCOME", None)  # only the first process has it
    outcome = os.fdopen(int(number), "wb") if number else None
    quiet_libraries()
    said: dict[str, Any] = {"record": True}
    status = 0
    try:
        run(RunSpec.from_json(word["spec"]), force=word["force"], command=word["command"])
    except (Exception, KeyboardInterrupt) as failure:
        said = {"raised": raised.to_json(failure)}
        status = MISTAKE if isinstance(failure, UserError | RunBusy | KeyboardInterrupt) else FAILED
        status = 128 + failure.signum if isinstance(failure, Preempted) else status
        if status == FAILED and outcome is None and not getattr(failure, "told", False):  # the first may not know why
            print(f"process {os.environ['RANK']}: {type(failure).__name__}: {failure}", file=sys.stderr)
            logging.getLogger(__name__).debug("failed", exc_info=True)
    if outcome is not None:
        _answer(outcome, said)
    return status


def _answer(outcome: BinaryIO, said: dict[str, Any]) -> None:
    with suppress(BrokenPipeError), outcome:
        outcome.write(json.dumps(said).encode())


def _until_orphaned() -> None:
    while os.read(0, 1 << 16):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
