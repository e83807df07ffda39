"""A sweep as it goes, read from its folders: states, the runs under way, when it may be done. Changes nothing."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from lora_xs.sweeps.calibration import Calibration, calibrate
from lora_xs.sweeps.plan import Entry, Plan, make_plan, results_folders
from lora_xs.sweeps.show import state_table
from lora_xs.sweeps.state import FolderReader

if TYPE_CHECKING:
    from lora_xs.sweeps.devices import Device
    from lora_xs.sweeps.grid import PlannedRun

METRICS, TAIL = "metrics.jsonl", 1 << 16
SHOWN = 20


@dataclass(frozen=True)
class Progress:
    """Where a run is. step of steps, epoch; score: its main metric at the last evaluation, by name."""

    step: int
    steps: int
    epoch: float | None
    score: tuple[str, float] | None


class Watch:
    """Looks at a sweep's runs whenever asked; calibrated anew when a run has finished."""

    def __init__(self, name: str, runs: Sequence[PlannedRun], device: Device) -> None:
        self.name, self.runs, self.device = name, runs, device
        self.reader = FolderReader()
        self._calibration: Calibration | None = None
        self._finished = 0

    def look(self) -> Plan:
        """The plan as it is now; a run under way counts as far as its metrics or its checkpoint say."""
        if self._calibration is None:
            self._calibration = calibrate(results_folders(self.runs))
        plan = make_plan(self.name, self.runs, self.device, calibration=self._calibration, reader=self.reader)
        finished = plan.counts()["finished"]
        if finished != self._finished:
            self._finished = finished
            self._calibration = None  # a new record to learn from, at the next look
        entries = tuple(
            dataclasses.replace(entry, step=progress_of(entry).step) if entry.state == "running" else entry
            for entry in plan.entries
        )
        return dataclasses.replace(plan, entries=entries)


def progress_of(entry: Entry) -> Progress:
    """How far a run is by its metrics.jsonl, or by its newest checkpoint where that is further."""
    lines = last_lines(entry.run.spec.folder / METRICS)
    main = entry.run.spec.task.main_metric
    step, epoch, score = entry.step, None, None
    for line in lines:
        if isinstance(line.get("step"), int) and line["step"] >= step:
            step, epoch = line["step"], line.get("epoch")
        if main in line:
            score = (main, float(line[main]))
    return Progress(step, entry.cost.steps, epoch, score)


def last_lines(file: Path) -> list[dict[str, Any]]:
    """The whole lines among the last 64 KiB of a JSON-lines file; none where there is no such file."""
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - TAIL))
            content = opened.read()
    except OSError:
        return []
    found = []
    for text in content.split(b"\n"):
        try:
            line = json.loads(text)
        except ValueError:
            continue  # empty, or cut by the window
        if isinstance(line, dict):
            found.append(line)
    return found


def remaining(plan: Plan) -> str:
    """When the sweep may be done, in words."""
    counts = plan.counts()
    waiting = counts["new"] + counts["partial"] + counts["running"]
    stuck = f"; {counts['failed']} failed, see --retry" if counts["failed"] else ""
    if not waiting:
        return f"done: {counts['finished']} finished, {counts['diverged']} diverged{stuck}"
    hours = sum(entry.left_hours for entry in plan.entries if entry.state in ("new", "partial", "running"))
    if not counts["running"]:
        return f"nothing is running; {hours:.2f} hours of {plan.device.name} are left{stuck}"
    longest = max(entry.left_hours for entry in plan.entries if entry.state == "running")
    left = max(hours / counts["running"], longest)
    return f"about {left:.2f} h to go with {counts['running']} at once ({hours:.2f} {plan.device.name} hours){stuck}"


def picture(plan: Plan) -> Group:
    """What the terminal shows of a plan under way."""
    running = [entry for entry in plan.entries if entry.state == "running"]
    table = Table(box=None, pad_edge=False, title="running" if running else None, title_justify="left")
    for column in ("run", "step", "epoch", "last score"):
        table.add_column(column, justify="left" if column == "run" else "right")
    for entry in running[:SHOWN]:
        at = progress_of(entry)
        table.add_row(
            escape(f"{entry.arm}, seed {entry.run.spec.seed}"),
            f"{at.step}/{at.steps}",
            "" if at.epoch is None else f"{at.epoch:.2f}",
            "" if at.score is None else f"{at.score[0]} {at.score[1]:.2f}",
        )
    more = [f"and {len(running) - SHOWN} more"] if len(running) > SHOWN else []
    return Group(state_table(plan), *([table] if running else []), *more, remaining(plan))


def watch(
    look: Callable[[], Plan], console: Console, every: float, sleep: Callable[[float], None] = time.sleep
) -> Plan:
    """Show `look()` every `every` seconds until nothing is left to run, or the user has seen enough (Ctrl-C).

    Stopping to watch stops nothing else. Returns what was seen last.
    """
    plan = look()
    with Live(picture(plan), console=console, auto_refresh=False) as live:
        try:
            while any(entry.state in ("new", "partial", "running") for entry in plan.entries):
                sleep(every)
                plan = look()
                live.update(picture(plan), refresh=True)
        except KeyboardInterrupt:
            live.update(Group(picture(plan), "no longer watched; the sweep goes on"), refresh=True)
    return plan
