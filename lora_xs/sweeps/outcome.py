"""What a launch came to, what happened on the way, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lora_xs.sweeps.manifest import Runnable


@dataclass(frozen=True)
class Event:
    """A change of one run. kind: started; finished, diverged, already, failed, blocked, which are the end of it;
    busy, stopped, crashed, after which it waits again. why: one line. seconds: since it was last started."""

    kind: str
    run: Runnable
    why: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """Runs by how they ended. already: finished before this launch, or meanwhile by another. failed, blocked: why, by
    folder. left: neither begun nor ended, or stopped on the way. retried: crashes that were tried again. stopped: why
    the launch ended before the runs did; empty where it did not."""

    finished: int = 0
    diverged: int = 0
    already: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    blocked: Mapping[str, str] = field(default_factory=dict)
    left: int = 0
    retried: int = 0
    stopped: str = ""

    @property
    def complete(self) -> bool:
        """Whether every run has a record."""
        return not (self.failed or self.blocked or self.left)

    def lines(self) -> list[str]:
        """The counts in a line, then what went wrong and what to do about it, a line each."""
        counts = {
            "finished": self.finished,
            "finished before": self.already,
            "diverged": self.diverged,
            "failed": len(self.failed),
            "waiting for others that did not finish": len(self.blocked),
            "left": self.left,
            "crashed and tried again": self.retried,
        }
        said = [", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing to run"]
        said += [f"failed: {folder}: {why}; see log.txt there" for folder, why in self.failed.items()]
        said += [f"not run: {folder}: {why}" for folder, why in self.blocked.items()]
        if self.stopped:
            said.append(f"stopped: {self.stopped}")
        if self.left:
            said.append("launch it again to go on: finished runs are passed over, the others go on from checkpoints")
        elif self.failed:
            said.append("mend what failed and launch those runs again; all others are recorded")
        return said
