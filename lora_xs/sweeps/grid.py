"""From an experiment's grid to its runs: every cell and seed a RunSpec, each signature once, starts before the rest."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lora_xs.errors import UserError
from lora_xs.spec import RunSpec
from lora_xs.sweeps.composing import settled, spec_of
from lora_xs.sweeps.experiment import Arm, Experiment, Taken
from lora_xs.sweeps.experiment_file import experiment_names, load_experiment

__all__ = ["Experiment", "PlannedRun", "cells", "expand", "experiment_names", "load_experiment", "unique"]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a grid. `cell` holds its coordinates as the table's CSV file names them, without the seed; a run that
    other runs only start from has the coordinate `role: start`."""

    spec: RunSpec
    cell: Mapping[str, str]
    needs: tuple[str, ...] = ()  # signatures of runs that must be finished first
    overrides: tuple[str, ...] = ()  # `python train.py <overrides>` is this run


def expand(experiment: Experiment, overrides: Sequence[str] = ()) -> list[PlannedRun]:
    """The runs behind `experiment`, each signature once and every run after those it needs.

    `overrides` are laid on every run, starts included, and win over the file's; `seed=0` leaves one run a cell.
    Raises UserError naming file, arm and cell where a run is refused.
    """
    return unique(cells(experiment, overrides))


def unique(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """The first run of each signature, in order: also over the runs of several experiments."""
    found: dict[str, PlannedRun] = {}
    for run in runs:
        found.setdefault(run.spec.signature, run)
    return list(found.values())


def cells(experiment: Experiment, overrides: Sequence[str] = ()) -> Iterator[PlannedRun]:
    """Every cell and seed in the file's order, each after its start; two cells may name one run. Raises as `expand`."""
    for number, arm in enumerate(experiment.arms):
        if isinstance(arm, Taken):
            yield from _taken(experiment, number, arm, overrides)
        else:
            yield from _own(experiment, number, arm, overrides)


def _own(
    experiment: Experiment, number: int, arm: Arm, overrides: Sequence[str], seeds: Sequence[int] | None = None
) -> Iterator[PlannedRun]:
    """The runs of one arm; of `seeds` alone where given."""
    _leave_axes_alone(experiment, arm, overrides)
    planned = arm.seeds or (experiment.aggregate.seeds if experiment.aggregate else ())
    for values in itertools.product(*arm.over.values()):
        point = dict(zip(arm.over, values, strict=True))
        for seed in planned if seeds is None else [seed for seed in planned if seed in seeds]:
            needs: tuple[str, ...] = ()
            start: list[str] = []
            if arm.start is not None:
                before = {**point, **arm.start.over}
                with_its_own = [*arm.start.overrides, f"seed={seed}", *overrides]
                earlier = _run(experiment, number, before, {"role": "start"}, with_its_own)
                yield earlier
                needs, start = (earlier.spec.signature,), [f"start_from={_for_hydra(str(earlier.spec.folder))}"]
            with_its_own = [*arm.overrides, *start, f"seed={seed}", *overrides]
            yield _run(experiment, number, point, arm.cell, with_its_own, needs)


def _leave_axes_alone(experiment: Experiment, arm: Arm, overrides: Sequence[str]) -> None:
    """Raise UserError for an override of what the arm's axes set: a cell's place would no longer say what it is."""
    given = {text.partition("=")[0].lstrip("+~"): text for text in overrides}
    for key, values in arm.over.items():
        for value in values:
            for setting in _meaning(experiment, {key: value}):
                name = setting.partition("=")[0].lstrip("+~")
                text = given.get(name) or given.get(f"{name}.r" if name == "rank" else name)
                if text is not None:
                    raise UserError(
                        f"experiment {experiment.name}: {text}: {name} is what its axis {key} varies; choose among its "
                        f"runs with --only {key}=…, or write an experiment of your own"
                    )


def _for_hydra(path: str) -> str:
    """A path as a value of Hydra's grammar: in quotes where it holds anything that means something there."""
    if re.fullmatch(r"[\w./-]+", path):
        return path
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(path, Quote.single).with_quotes()


def _run(
    experiment: Experiment,
    number: int,
    point: Mapping[str, str],
    labels: Mapping[str, str],
    overrides: Sequence[str],
    needs: tuple[str, ...] = (),
) -> PlannedRun:
    """The run at the coordinates `point` of arm `number`; `labels` are coordinates that say nothing to it."""
    try:
        full = settled([*experiment.common, *_meaning(experiment, point), *overrides])
        spec = spec_of(full)
    except UserError as refused:
        where = ", ".join(f"{key}={value}" for key, value in point.items())
        raise UserError(f"experiment {experiment.name}: arms[{number}] at {where}: {refused}") from refused
    grouped = dataclasses.replace(spec.logger, group=spec.logger.group or experiment.name)
    return PlannedRun(spec.replace(logger=grouped), {**point, **labels}, needs, full)


def _meaning(experiment: Experiment, point: Mapping[str, str]) -> Iterator[str]:
    """The overrides that a point's coordinates stand for."""
    for key, value in point.items():
        axis = (experiment.axes or {})[key]
        yield from [axis.replace("{}", value)] if isinstance(axis, str) else axis[value]


def _taken(experiment: Experiment, number: int, arm: Taken, overrides: Sequence[str]) -> Iterator[PlannedRun]:
    """The runs of another experiment that `arm` asks for, each after its start."""
    where = f"experiment {experiment.name}: arms[{number}]: take"
    other = load_experiment(arm.experiment)
    starts: dict[str, PlannedRun] = {}
    taken = 0
    for place, inner in enumerate(other.arms):
        if isinstance(inner, Taken):
            raise UserError(f"{where}: {other.name} takes runs from elsewhere itself; take them from there")
        for run in _own(other, place, inner, overrides, arm.seeds):
            if run.cell.get("role") == "start":
                starts[run.spec.signature] = run
            elif all(run.cell.get(key) in values for key, values in arm.where.items()):
                missing = [key for key in arm.keep or () if key not in run.cell]
                if missing:
                    raise UserError(f"{where}: keep: {missing[0]} is no coordinate of {other.name}; leave it out")
                yield from (starts[signature] for signature in run.needs)
                kept = run.cell if arm.keep is None else {key: run.cell[key] for key in arm.keep}
                yield dataclasses.replace(run, cell=kept)
                taken += 1
    if not taken:
        raise UserError(f"{where}: no run of {other.name} is at {dict(arm.where)}, seeds {arm.seeds}; correct `where`")
