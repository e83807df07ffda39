"""How far a launch is: a line that moves on a terminal, a line an ended run elsewhere; all on standard error."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lora_xs.sweeps.outcome import Event

ENDS = ("finished", "diverged", "already", "failed", "blocked")


class ProgressLine:
    """`with ProgressLine(runs) as line: … line.saw(event)`."""

    def __init__(self, runs: int) -> None:
        self.console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self.counts: dict[str, int] = {}
        self.running = 0
        columns = (TextColumn("runs"), BarColumn(None), MofNCompleteColumn(), TextColumn("{task.fields[said]}"))
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self._progress = Progress(*columns, *times, console=self.console, disable=not self.console.is_terminal)
        self._task = self._progress.add_task("runs", total=runs, said="")

    def __enter__(self) -> ProgressLine:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def saw(self, event: Event) -> None:
        """Count an event, and show it where it is the end of a run or a fault."""
        if event.kind == "started":
            self.running += 1
        elif event.kind not in ("already", "blocked") and event.seconds:
            self.running -= 1
        if event.kind in ENDS:
            self.counts[event.kind] = self.counts.get(event.kind, 0) + 1
            self._progress.advance(self._task)
        said = [f"{self.running} running", *(f"{count} {kind}" for kind, count in self.counts.items())]
        self._progress.update(self._task, said=", ".join(said))
        if event.kind in ("started", "already"):
            return
        spec = event.run.spec
        why = f": {event.why}" if event.why else ""
        after = f" after {event.seconds:.0f} s" if event.kind in ("finished", "diverged") else ""
        name = f"{spec.task.name}/{spec.folder.parent.name}/{spec.folder.name}"
        self.console.print(f"{event.kind} {name}{after}{why}", markup=False)
