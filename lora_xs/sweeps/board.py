"""Which run is next: the runs of one launch in their order, with what each waits for and how it ended.

What the folders say goes first: a run that has a record is never handed out, whoever made the record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lora_xs.records import Record, read_record
from lora_xs.spec import RunSpec
from lora_xs.sweeps.manifest import Runnable
from lora_xs.sweeps.outcome import Event, Outcome
from lora_xs.sweeps.verdict import Verdict

BUSY_PAUSE = (1.0, 15.0)
"""Seconds until a run that another process has is looked at again: at first, and at most."""


@dataclass
class _Place:
    """A run's place on the board."""

    run: Runnable
    state: str = "waiting"  # running, finished, diverged, already, failed, blocked
    why: str = ""
    crashes: int = 0
    pause: float = BUSY_PAUSE[0]
    again: float = 0.0  # not before this time
    began: float = 0.0


@dataclass
class Board:
    """Hand out runs with `take`, say how they ended with `settle`.

    retries: how often a run is tried again whose worker crashed. on_event: told of every change. Of runs that are not
    on the board and that others need, the record decides, as it is when it is asked for.
    """

    runs: Sequence[Runnable]
    retries: int = 1
    on_event: Callable[[Event], None] | None = None
    clock: Callable[[], float] = time.monotonic
    full: str = ""  # why the disk is said to be full
    _places: dict[str, _Place] = field(init=False)
    _retried: int = 0

    def __post_init__(self) -> None:
        self._places = {}
        for run in self.runs:
            self._places.setdefault(run.spec.signature, _Place(run))
        self._elsewhere: dict[str, Path | None] = {}

    def take(self) -> Runnable | None:
        """The next run that can start now; None where all that are left wait for others, or none is left."""
        ended = True
        while ended:  # the end of one may be the beginning of those that need it
            ended = False
            for signature, place in self._places.items():
                if place.state != "waiting" or place.again > self.clock():
                    continue
                if self._ended_already(signature, place):
                    ended = True
                elif self._missing(place.run) == "":
                    place.state, place.began = "running", self.clock()
                    self._tell("started", place)
                    return place.run
        return None

    def _ended_already(self, signature: str, place: _Place) -> bool:
        """Whether a waiting run is at its end: it has a record, or never can start."""
        record = _record_of(place.run.spec)
        if record is not None:
            self._end(signature, "already" if record.status == "finished" else "diverged", "recorded before")
            return True
        missing = self._missing(place.run)
        if missing:
            self._end(signature, "blocked", missing)
            return True
        return False

    def settle(self, run: Runnable, verdict: Verdict) -> None:
        """Say how a run that was taken ended. What its folder says wins: a worker may die after its last word."""
        signature = run.spec.signature
        place = self._places[signature]
        record = _record_of(run.spec)
        if record is not None:
            self._end(signature, "finished" if record.status == "finished" else "diverged", verdict.why)
        elif verdict.ending == "failed":
            self._end(signature, "failed", verdict.why)
        elif verdict.ending == "busy":
            place.again, place.pause = self.clock() + place.pause, min(2 * place.pause, BUSY_PAUSE[1])
            self._back(place, "busy", verdict.why)
        elif verdict.ending in ("stopped", "full"):
            self.full = verdict.why if verdict.ending == "full" else self.full
            self._back(place, "stopped", verdict.why)
        else:
            why = verdict.why or "its worker said that it was done, but there is no record"
            place.crashes += 1
            if place.crashes > self.retries:
                self._end(signature, "failed", f"given up after {place.crashes} crashes: {why}")
            else:
                self._retried += 1
                self._back(place, "crashed", why)

    @property
    def over(self) -> bool:
        """Whether nothing is left to run, and nothing runs."""
        return all(place.state not in ("waiting", "running") for place in self._places.values())

    def outcome(self, stopped: str = "") -> Outcome:
        """The sum of it. stopped: why no more is handed out, where that is so."""
        states = [place.state for place in self._places.values()]
        return Outcome(
            finished=states.count("finished"),
            diverged=states.count("diverged"),
            already=states.count("already"),
            failed={str(p.run.spec.folder): p.why for p in self._places.values() if p.state == "failed"},
            blocked={str(p.run.spec.folder): p.why for p in self._places.values() if p.state == "blocked"},
            left=states.count("waiting") + states.count("running"),
            retried=self._retried,
            stopped=stopped,
        )

    def _missing(self, run: Runnable) -> str | None:
        """Why `run` can never start; empty: it can start now; None: not yet."""
        for need in run.needs:
            place = self._places.get(need)
            if place is None:
                record = self._record_elsewhere(need, run.spec)
                state = record.status if record else "not finished, and not part of this launch; launch it too"
                if state != "finished":
                    return f"it needs run {need}, which is {state}"
            elif place.state in ("failed", "blocked", "diverged"):
                return f"it needs run {need}, which is {place.state}"
            elif place.state not in ("finished", "already"):
                return None
        return ""

    def _record_elsewhere(self, signature: str, spec: RunSpec) -> Record | None:
        """The record of a run that is not on the board, from wherever it lies below the same results."""
        if self._elsewhere.get(signature) is None:
            folders = Path(spec.results).glob(f"**/s*-{signature}")
            self._elsewhere[signature] = next(folders, None)
        folder = self._elsewhere[signature]
        record = read_record(folder) if folder is not None else None
        return record if record is not None and record.signature == signature else None

    def _end(self, signature: str, state: str, why: str) -> None:
        place = self._places[signature]
        place.state, place.why = state, why
        self._tell(state, place)

    def _back(self, place: _Place, kind: str, why: str) -> None:
        place.state, place.why = "waiting", why
        self._tell(kind, place)

    def _tell(self, kind: str, place: _Place) -> None:
        if self.on_event is not None:
            seconds = self.clock() - place.began if place.began else 0.0
            self.on_event(Event(kind, place.run, place.why if kind != "started" else "", seconds))


def _record_of(spec: RunSpec) -> Record | None:
    record = read_record(spec.folder)
    return record if record is not None and record.signature == spec.signature else None
