"""The one data model of tables, figures and claims: a cell of an experiment, ours beside what is published."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lora_xs.reporting.analysed import COUNTED
from lora_xs.reporting.counted import CLOSE
from lora_xs.reporting.noise import Status, Tolerance, spread_of, tolerance, verdict, whiskers_of
from lora_xs.reporting.published import FACTS, PublishedCell, number

START = "start"
AVERAGED = "average"
"""The metric of an average over cells: of a paper's row, which is one number, or of ours, which has one a seed."""
SETTING = "setting"
"""The metric of a cell that says with what runs are planned: no result, and no record is behind it."""


@dataclass(frozen=True)
class Behind:
    """A planned run as a cell sees it.

    cell: its coordinates in the experiment's grid. overrides: `python train.py <overrides>` is this run. needs:
    signatures of runs that come first. settings: what the papers' tables of settings print (`lr`, `epochs`, …).
    """

    signature: str
    seed: int
    cell: Mapping[str, str]
    overrides: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    settings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """One run's number, in points, nats, seconds or percent."""

    signature: str
    seed: int
    value: float


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    place: its coordinates. ours: the statistic of `readings` (None: there are none); spread: their sample standard
    deviation; planned: how many runs the cell should have; diverged: signatures of those without a number, for
    their loss was not finite. parameters: trained without the head, by the records. published: what is printed, None
    where nothing is.
    """

    place: Mapping[str, str]
    published: PublishedCell | None
    readings: tuple[Reading, ...] = ()
    planned: int = 0
    diverged: tuple[str, ...] = ()
    statistic: str = "median"
    metric: str = ""
    rows: int | None = None
    parameters: int | None = None
    reason: str | None = None  # why no run is behind it
    signatures: tuple[str, ...] = field(default=())
    published_n: int = 0  # seeds behind the published number, by the experiment's file; 0: as many as planned here
    unanswered: int = 0  # completions without an answer, of all readings
    constant: tuple[str, ...] = ()  # signatures of runs that gave every row the same answer
    collapsed: tuple[str, ...] = ()  # of runs that did so in the end alone
    of_columns: Tolerance | None = None  # of an average: from the cells that it is the average of

    @property
    def n(self) -> int:
        """Runs behind `ours`."""
        return len(self.readings)

    @property
    def seeds_there(self) -> int:
        """Seeds behind the published number."""
        return max(1, self.published_n or self.planned)

    @property
    def is_complete(self) -> bool:
        """Whether every planned run has ended."""
        return self.n + len(self.diverged) >= self.planned

    @property
    def ours(self) -> float | None:
        """The aggregate of the readings."""
        values = [reading.value for reading in self.readings]
        return aggregate(values, self.statistic) if values else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over seeds; None below two."""
        return spread_of([reading.value for reading in self.readings])

    @property
    def whiskers(self) -> tuple[float, float] | None:
        """From `ours` down to the lowest seed and up to the highest; None below two."""
        return None if self.ours is None else whiskers_of([reading.value for reading in self.readings], self.ours)

    @property
    def difference(self) -> float | None:
        """Ours − published, in the cell's unit."""
        if self.ours is None or self.published is None:
            return None
        return self.ours - self.published.value

    @property
    def allowed(self) -> Tolerance | None:
        """What chance allows between the two; None where there are no two, or they are not scores."""
        if self.ours is None or self.published is None:
            return None
        if self.of_columns is not None:
            return self.of_columns
        if self.metric == SETTING:
            return Tolerance(0.0, "a setting is equal or it is not")
        if self.signatures == (COUNTED,):  # there is no chance in a count
            return Tolerance(CLOSE * self.published.value, "one percent of what is printed: counters differ in norms")
        if "quantity" in self.place or self.metric == "training":
            return None
        return tolerance(
            self.place.get("task", ""), self.ours, self.spread, self.n, self.rows, self.published.value,
            self.published.std, self.seeds_there, self.statistic,
        )  # fmt: skip

    @property
    def status(self) -> Status:
        """What to think of it; `partial` while runs are missing."""
        if self.reason is not None:
            return "not built"
        if not self.readings:
            return "diverged" if self.diverged else "not run"
        if not self.is_complete:
            return "partial"
        allowed, difference = self.allowed, self.difference
        if difference is None:
            return "ours alone"
        if allowed is None:
            return "not compared"
        found = verdict(difference, allowed)
        return "as published" if self.metric == SETTING and found == "reproduced" else found


def own_parameters(cell: Cell) -> float | None:
    """Trained without the head, by the records."""
    return cell.parameters


def printed_parameters(cell: Cell) -> float | None:
    """As the paper prints them."""
    text = cell.published.facts.get(FACTS[0]) if cell.published is not None else None
    return number(text, cell.published.source, FACTS[0]) if cell.published is not None and text else None


def aggregate(values: Sequence[float], statistic: str) -> float:
    """The median or the mean."""
    return statistics.median(values) if statistic == "median" else statistics.fmean(values)
