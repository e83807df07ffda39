"""A plan: every run of an experiment with its state and cost, which of them are to be run, and what may not be."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_xs.errors import UserError
from lora_xs.sweeps.calibration import Calibration, calibrate
from lora_xs.sweeps.cost import ASSUMPTIONS, Cost, estimate
from lora_xs.sweeps.devices import Device
from lora_xs.sweeps.fitting import how_to_fit
from lora_xs.sweeps.state import STATES, FolderReader, State

if TYPE_CHECKING:
    from lora_xs.sweeps.grid import PlannedRun

OPEN: tuple[State, ...] = ("new", "partial")
SEED, METHOD, RANK = "seed", "method", "rank"


@dataclass(frozen=True)
class Entry:
    """One run of a plan. cost: of the whole run; step: optimiser steps behind it; error: why it failed or diverged."""

    run: PlannedRun
    state: State
    cost: Cost
    step: int = 0
    error: str | None = None

    @cached_property
    def signature(self) -> str:
        """The run's twelve hex digits."""
        return self.run.spec.signature

    @property
    def arm(self) -> str:
        """Its cell in words: what runs of several seeds share."""
        return ", ".join(self.run.cell.values()) or self.run.spec.folder.parent.name

    @property
    def left_hours(self) -> float:
        """Device hours until it is finished; 0 when it is, and the whole run again where it failed without a step."""
        if self.state in ("finished", "diverged"):
            return 0.0
        done = min(1.0, self.step / self.cost.steps) if self.cost.steps else 0.0
        return max(0.0, self.cost.gpu_hours - done * self.cost.train_seconds / 3600)

    def coordinates(self) -> dict[str, str]:
        """What `--only` may name: the cell's, and seed, method and rank of any run."""
        spec = self.run.spec
        own = {SEED: str(spec.seed), METHOD: spec.method.name, RANK: str(spec.rank or "")}
        return own | {key: str(value) for key, value in self.run.cell.items()}


@dataclass(frozen=True)
class Choice:
    """What a plan would run now. runs: in order, needed ones first; among these, one that another process has and that
    is waited for. blocked: signature → what it waits for in vain."""

    runs: tuple[Entry, ...]
    blocked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Runs of an experiment, as they are now, priced for one device. everything: all its runs, also those that `only`
    left out of the entries."""

    name: str
    entries: tuple[Entry, ...]
    device: Device
    calibration: Calibration
    everything: tuple[Entry, ...]

    def counts(self) -> dict[State, int]:
        """How many runs are in each state."""
        return _counts(self.entries)

    def arms(self) -> dict[str, tuple[Entry, ...]]:
        """Runs by their cell, in the plan's order."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.arm, []).append(entry)
        return {arm: tuple(entries) for arm, entries in found.items()}

    def only(self, conditions: str) -> Plan:
        """The runs at `key=value,…` and those they need; a key named twice means either. Raises UserError for a key or
        value that no run has."""
        if not conditions:
            return self
        wanted = _conditions(conditions)
        everywhere = [entry.coordinates() for entry in self.entries]
        for key, values in wanted.items():
            known = sorted({at[key] for at in everywhere if key in at}, key=lambda value: (len(value), value))
            if not known:
                keys = sorted({key for at in everywhere for key in at})
                raise UserError(f"--only {key}={values[0]}: no run has a {key}; use {', '.join(keys)}")
            missing = [value for value in values if value not in known]
            if missing:
                raise UserError(f"--only {key}={missing[0]}: no run is there; {key} is one of {', '.join(known)}")
        chosen = {
            entry.signature
            for entry, at in zip(self.entries, everywhere, strict=True)
            if all(at.get(key) in values for key, values in wanted.items())
        }
        if not chosen:
            raise UserError(f"--only {conditions}: no run is there; give fewer conditions")
        for entry in reversed(self.entries):  # needed runs stand before those that need them
            if entry.signature in chosen:
                chosen.update(entry.run.needs)
        return dataclasses.replace(self, entries=tuple(entry for entry in self.entries if entry.signature in chosen))

    def choose(self, retry: Sequence[State] = (), limit: int | None = None) -> Choice:
        """The first `limit` runs that are new or partial, or in a state of `retry`, and what these need.

        A run that is running is chosen where one of these needs it, and does not count against `limit`. A run is
        blocked by one it needs that is neither finished, running, nor among the chosen.
        """
        known = {entry.signature: entry for entry in self.entries}
        chosen: dict[str, Entry] = {}
        blocked: dict[str, str] = {}
        own = 0
        for entry in self.entries:
            if entry.state not in (*OPEN, *retry):
                continue
            if limit is not None and own >= limit:
                break
            states = {need: known[need].state if need in known else "in no plan" for need in entry.run.needs}
            for need, state in states.items():
                if need not in chosen and state not in ("finished", "running"):
                    blocked[entry.signature] = f"needs {need}, which is {state}"
            if entry.signature not in blocked:
                # a launcher knows of no runs but those it is given, and takes this one over if its holder dies
                chosen |= {need: known[need] for need, state in states.items() if state == "running"}
                chosen[entry.signature] = entry
                own += 1
        return Choice(tuple(chosen.values()), blocked)

    def check_fit(self, chosen: Iterable[Entry]) -> None:
        """Raise UserError, one line, for the run that needs most of the memory the device does not have."""
        over = [entry for entry in chosen if entry.cost.peak_gib > self.device.memory_gib]
        if over:
            worst = max(over, key=lambda entry: entry.cost.peak_gib)
            others = f" ({len(over)} runs in all)" if len(over) > 1 else ""
            raise UserError(
                f"{worst.arm} needs {worst.cost.peak_gib:.1f} GiB, {self.device.name} has "
                f"{self.device.memory_gib:.1f}{others}; {how_to_fit(worst.run.spec, self.device)}"
            )

    def to_json(self, choice: Choice) -> dict[str, Any]:
        """Everything the plan says, as JSON values."""
        to_run = {entry.signature for entry in choice.runs}
        return {
            "experiment": self.name,
            "device": {"name": self.device.name, "memory_gib": round(self.device.memory_gib, 1)},
            "counts": self.counts(),
            "arms": {arm: _counts(entries) for arm, entries in self.arms().items()},
            "to_run": totals(choice.runs),
            "whole": totals(self.everything, whole=True),
            "blocked": dict(choice.blocked),
            "calibration": [dataclasses.asdict(fit) for fit in self.calibration.fits],
            "assumptions": list(ASSUMPTIONS),
            "runs": [_run_json(entry, entry.signature in to_run) for entry in self.entries],
        }


def experiment_in(words: Sequence[str]) -> tuple[str, list[str]]:
    """The experiment's name and the other words. Raises UserError where none or several are named."""
    names = [word.partition("=")[2] for word in words if word.startswith("experiment=")]
    if len(names) != 1 or not names[0]:
        raise UserError("name one experiment, e.g. experiment=demo; experiments/ holds them")
    return names[0], [word for word in words if not word.startswith("experiment=")]


def make_plan(
    name: str,
    runs: Sequence[PlannedRun],
    device: Device,
    *,
    calibration: Calibration | None = None,
    reader: FolderReader | None = None,
) -> Plan:
    """Look at every run's folder and price it; calibration None: by the finished records of the runs' results folders.

    Raises UserError where there are no runs, and where a model's architecture is not known.
    """
    if not runs:
        raise UserError(f"experiment={name} has no runs; its file says why")
    if calibration is None:
        calibration = calibrate(results_folders(runs))
    seen = (reader or FolderReader()).look_at(run.spec for run in runs)
    entries = []
    for run, what in zip(runs, seen, strict=True):
        cost = estimate(run.spec, device, calibration.factor(device, run.spec))
        entries.append(Entry(run, what.state, cost, what.step, what.error))
    return Plan(name, tuple(entries), device, calibration, tuple(entries))


def results_folders(runs: Sequence[PlannedRun]) -> list[Path]:
    """The results folders of the runs that exist."""
    return sorted(folder for folder in {Path(run.spec.results) for run in runs} if folder.is_dir())


def totals(entries: Sequence[Entry], *, whole: bool = False) -> dict[str, float]:
    """runs; gpu_hours left of them (`whole`: had none been run); the highest peak_gib; disk_mib they leave; the most
    scratch_mib one needs while it runs; flops."""
    costs = [entry.cost for entry in entries]
    hours = [entry.cost.gpu_hours if whole else entry.left_hours for entry in entries]
    return {
        "runs": len(costs),
        "gpu_hours": round(sum(hours), 4),
        "peak_gib": round(max((cost.peak_gib for cost in costs), default=0.0), 3),
        "disk_mib": round(sum(cost.disk_mib for cost in costs), 3),
        "scratch_mib": round(max((cost.scratch_mib for cost in costs), default=0.0), 3),
        "flops": sum(cost.flops for cost in costs),
    }


def _conditions(text: str) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--only {text}: {part!r} is no key=value; for example --only task=mrpc,rank=16")
        wanted.setdefault(key.strip(), []).append(value.strip())
    return wanted


def _counts(entries: Iterable[Entry]) -> dict[State, int]:
    found = Counter(entry.state for entry in entries)
    return {state: found[state] for state in STATES}


def _run_json(entry: Entry, to_run: bool) -> dict[str, Any]:
    spec, cost = entry.run.spec, entry.cost
    return {
        "signature": entry.signature,
        "folder": str(spec.folder),
        "cell": dict(entry.run.cell),
        "seed": spec.seed,
        "needs": list(entry.run.needs),
        "state": entry.state,
        "error": entry.error,
        "step": entry.step,
        "to_run": to_run,
        "left_hours": round(entry.left_hours, 5),
        **{key: round(value, 5) for key, value in dataclasses.asdict(cost).items()},
    }
