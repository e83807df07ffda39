"""An experiment: the grid behind a table or figure, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["grid", "analysis", "reference"]
Analysis = Literal["spectrum", "projection", "cost"]
Statistic = Literal["median", "mean"]
Of = Literal["best", "last", "seconds"]
Axis = str | Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Aggregate:
    """How a cell's runs become its number."""

    statistic: Statistic
    of: Of  # a run's best or last evaluation, or its seconds
    seeds: tuple[int, ...]  # a run each
    average: bool = False  # whether the table has a seed's mean over the tasks, aggregated like any cell


@dataclass(frozen=True)
class Start:
    """The run that an arm's run starts from: the same coordinates, rank and seed, but for `over`."""

    over: Mapping[str, str]
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arm:
    """Some cells: the product of `over`'s values; `cell` holds coordinates that say nothing to a run."""

    over: Mapping[str, tuple[str, ...]]
    cell: Mapping[str, str]
    overrides: tuple[str, ...]
    start: Start | None
    seeds: tuple[int, ...] | None  # None: the aggregate's


@dataclass(frozen=True)
class Taken:
    """Cells of another experiment: those whose coordinates are among `where`'s, only the coordinates `keep`."""

    experiment: str
    where: Mapping[str, tuple[str, ...]]
    keep: tuple[str, ...] | None  # None: all
    seeds: tuple[int, ...] | None  # None: the other experiment's


@dataclass(frozen=True)
class NotBuilt:
    """Published cells that no run here stands behind, and why."""

    cell: Mapping[str, str]
    reason: str


@dataclass(frozen=True)
class Experiment:
    """The grid of one table or figure, as its file states it; `lora_xs.sweeps.grid.expand` makes runs of it."""

    name: str
    title: str
    source: str  # e.g. "LoRA-XS Table 1", or "ours"
    published: tuple[str, ...]  # CSV files below results/published
    kind: Kind = "grid"
    aggregate: Aggregate | None = None  # None: no runs
    common: tuple[str, ...] = ()
    axes: Mapping[str, Axis] | None = None  # coordinate → overrides that it stands for
    arms: tuple[Arm | Taken, ...] = ()
    not_built: tuple[NotBuilt, ...] = ()
    reason: str | None = None  # of kind reference: why there are no runs
    analyses: tuple[Analysis, ...] = ()  # what finds the cells' numbers: in runs, or (cost) in architectures
