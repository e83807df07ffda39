"""What has become of runs, read from their folders alone: one listing of each, and no half-written file believed."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lora_xs.lease import LEASE, live_holder
from lora_xs.records import ATTEMPT, RECORD, Record, read_attempt, read_record
from lora_xs.spec import RunSpec

State = Literal["new", "partial", "running", "finished", "diverged", "failed"]
STATES: tuple[State, ...] = get_args(State)
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Seen:
    """A run's state. step: optimiser steps its newest checkpoint has behind it (0: there is none). error: of the last
    attempt, where that failed, or of a run that diverged."""

    state: State
    step: int = 0
    error: str | None = None


class FolderReader:
    """Looks at runs' folders again and again; a record that has not changed on disk is not read twice.

    `finished` and `diverged` is what a whole record of this very signature says; else `running` a folder whose lease
    has a live holder; else `failed` one whose last attempt ended in an error; else `partial` one with a checkpoint.
    An attempt that was killed leaves a dead lease: whatever an earlier one wrote, it counts as `partial` or `new`.
    """

    def __init__(self) -> None:
        self._records: dict[Path, tuple[tuple[int, int, int], Record | None]] = {}
        self._times: dict[Path, float] = {}
        self._folders: dict[int, tuple[RunSpec, Path]] = {}  # by identity: a spec is frozen, but not hashable

    def look_at(self, specs: Iterable[RunSpec]) -> list[Seen]:
        """What is seen of each run now."""
        self._times.clear()
        folders = [self._folder(spec) for spec in specs]
        return [self.look(folder, folder.name.rpartition("-")[2]) for folder in folders]

    def look(self, folder: Path, signature: str) -> Seen:
        """What is seen of the run `signature` in `folder`."""
        try:
            names = set(os.listdir(folder))
        except OSError:
            return Seen("new")
        if RECORD in names:
            record = self._record(folder)
            if record is not None and record.signature == signature:
                diverged = record.status == "diverged"
                return Seen("diverged" if diverged else "finished", 0, _error(record) if diverged else None)
        step = newest_step(folder) if CHECKPOINTS in names else 0
        held = LEASE in names  # by the living or the dead
        if held and live_holder(folder, self._now(folder)) is not None:
            return Seen("running", step)
        if ATTEMPT in names and not held:
            attempt = read_attempt(folder)
            if attempt is not None and attempt.status == "failed" and attempt.signature == signature:
                return Seen("failed", step, _error(attempt))
        return Seen("partial" if step else "new", step)

    def _folder(self, spec: RunSpec) -> Path:
        """Its folder; hashed once, its name ends in the signature."""
        if id(spec) not in self._folders:
            self._folders[id(spec)] = (spec, spec.folder)
        return self._folders[id(spec)][1]

    def _record(self, folder: Path) -> Record | None:
        path = folder / RECORD
        try:
            stat = path.stat()
        except OSError:
            return None
        mark = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        known = self._records.get(path)
        if known is None or known[0] != mark:
            known = self._records[path] = (mark, read_record(folder))
        return known[1]

    def _now(self, folder: Path) -> float:
        """The file system's time, asked once a pass for all folders of one results folder's top."""
        top = folder.parents[min(2, len(folder.parents) - 1)]
        if top not in self._times:
            self._times[top] = file_system_time(top)
        return self._times[top]


def newest_step(folder: Path) -> int:
    """Steps behind the newest whole checkpoint of a run's folder (its rename made it whole); 0 where there is none."""
    steps = [0]
    try:
        for name in os.listdir(folder / CHECKPOINTS):
            head, _, number = name.partition("-")
            if head == "step" and number.isdigit():
                steps.append(int(number))
    except OSError:
        return 0
    return max(steps)


def file_system_time(folder: Path) -> float:
    """Seconds by the clock of the machine that keeps `folder`; by this machine's where nothing may be written there."""
    try:
        handle, name = tempfile.mkstemp(dir=folder, prefix=".now.")
        os.close(handle)
        try:
            return os.stat(name).st_mtime
        finally:
            os.unlink(name)
    except OSError:
        return time.time()


def _error(record: Record) -> str | None:
    error = record.run.get("error")
    return str(error.get("what")) if isinstance(error, dict) else None
