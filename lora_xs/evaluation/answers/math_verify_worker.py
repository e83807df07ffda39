"""The process in which the `math-verify` library runs: a JSON line in, a JSON line out. Started by `independent.py`.

Stands alone (it imports nothing of this project), so that starting it is cheap. The library turns the digits of an
answer into numbers by way of SymPy's `sympify`, and plain arithmetic by `parse_expr`; both end in Python's `eval`. Here
that `eval` is replaced: it makes a number of a number's text and refuses all else; no text of a model is run as code.
Memory is bounded, and a computation that outlives even its parent's patience ends by an alarm.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from typing import Any

MEMORY = 4 << 30  # bytes of address space
ALARM = 60  # seconds, for the case that the parent died without ending this process
MOST_DIGITS = 1000
# What SymPy makes of a number's text before it evaluates it: `Integer (18 )`, `Float ('1.5' )`, with a sign or none.
_NUMBER = re.compile(
    r"\s*(?P<sign>-?)\s*(?P<kind>Integer|Float)\s*\(\s*'?(?P<digits>[\d.]+([eE][-+]?\d{1,3})?)'?\s*\)\s*"
)


def numbers_only(code: Any, *_spaces: Any) -> Any:
    """In the place of `eval`: the number that `code` writes. Raises ValueError for anything else."""
    import sympy

    found = _NUMBER.fullmatch(code) if isinstance(code, str) and len(code) <= MOST_DIGITS else None
    if not found:
        raise ValueError("only numbers are read")
    digits = found["digits"]
    value = sympy.Integer(int(digits)) if found["kind"] == "Integer" else sympy.Float(digits)
    return -value if found["sign"] else value


def refuse(*_arguments: Any) -> None:
    """In the place of `exec`."""
    raise ValueError("no code is run here")


def disarm() -> None:
    """Take `eval` and `exec` from SymPy's parser and from its compiler of expressions."""
    from importlib import import_module

    # a module's own name comes before the builtin one
    vars(import_module("sympy.parsing.sympy_parser"))["eval"] = numbers_only
    vars(import_module("sympy.utilities.lambdify")).update(eval=refuse, exec=refuse)


def verdict(gold: str, answer: str) -> dict[str, Any]:
    """Whether `answer` equals `gold`, each a formula between dollars, or plain text with a number in it."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    parsed = []
    for text in (gold, answer):
        # One reader each: the other would take any number out of a formula that cannot be parsed. And without the
        # library's own time limits, which are signals: the parent keeps the time.
        reader = LatexExtractionConfig(boxed_match_priority=0) if text.startswith("$") else ExprExtractionConfig()
        parsed.append(parse(text, [reader], parsing_timeout=None))
    if not all(parsed):
        return {"correct": False, "why": f"the {'answer' if parsed[0] else 'reference'} cannot be parsed"}
    correct = bool(verify(parsed[0], parsed[1], timeout_seconds=None))
    return {"correct": correct, "why": "judged equal" if correct else "judged different"}


def main() -> None:
    """Answer requests `{"gold", "answer"}` until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not come between the replies
    logging.disable(logging.CRITICAL)
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except (ImportError, ValueError, OSError):
        pass  # not on this system: the time limit alone holds
    disarm()
    import math_verify  # noqa: F401  (the slow part of the start)

    alarm = getattr(signal, "alarm", lambda seconds: None)
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        alarm(ALARM)
        try:
            reply = verdict(request["gold"], request["answer"])
        except Exception as error:
            reply = {"correct": False, "why": f"{type(error).__name__} in math-verify"}
        alarm(0)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
