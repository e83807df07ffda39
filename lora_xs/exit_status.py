"""What a process says by the way it ends; each number stands here alone."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

from lora_xs.errors import UserError

FINISHED, FAILED, MISTAKE, DIVERGED = 0, 1, 2, 3
UNFIT = 70
"""Of a worker: its CUDA context is gone; another process goes on."""
REQUEUE = 75
"""Of a worker: it was asked to stop, its run is saved; whoever asked may start it again."""
INTERRUPTED = 130
UNREAD = 141
"""Whoever read the output has closed it (`… | head`): what a shell calls a process that SIGPIPE ended."""

Given = ParamSpec("Given")


def told_in_a_line(command: Callable[Given, int]) -> Callable[Given, int]:
    """`command` with a user's mistake told in one line on standard error and status `MISTAKE`, not as a traceback.

    Output that nobody reads any more ends it with `UNREAD`.
    """

    @functools.wraps(command)
    def told(*arguments: Given.args, **named: Given.kwargs) -> int:
        try:
            status = command(*arguments, **named)
            sys.stdout.flush()
            return status
        except UserError as mistake:
            print(f"error: {mistake}", file=sys.stderr)
            return MISTAKE
        except BrokenPipeError:
            # what is still buffered would raise again where the interpreter ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return UNREAD

    return told
