"""How one try at a run ended, as a worker tells it to whoever handed the run out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, get_args

Ending = Literal["finished", "diverged", "failed", "busy", "stopped", "crashed", "full"]


@dataclass(frozen=True)
class Verdict:
    """ending: finished, diverged: there is a record. failed: an error of the run's, which would come again. busy:
    another process has the run. stopped: asked to, a checkpoint is written. crashed: the process, or its memory, did
    not live through it. full: the disk is. why: one line, for all but the first two."""

    ending: Ending
    why: str = ""

    def to_line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Verdict:
        """Read back. Raises ValueError for a line that is none."""
        try:
            verdict = cls(**json.loads(line))
        except TypeError as error:
            raise ValueError(f"not a verdict: {line[:200]}") from error
        if verdict.ending not in get_args(Ending):
            raise ValueError(f"not a verdict: {line[:200]}")
        return verdict


def first_line(error: BaseException) -> str:
    """An error as one line: its kind and the first line of what it says."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
