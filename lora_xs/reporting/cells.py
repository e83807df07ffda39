"""The one data model of tables, figures and claims: a cell of an experiment, ours beside what is published."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lora_xs.records import Record
from lora_xs.reporting.analysed import COUNTED, Analysed, counted
from lora_xs.reporting.counted import CLOSE
from lora_xs.reporting.noise import Status, Tolerance, of_average, spread_of, tolerance, verdict, whiskers_of
from lora_xs.reporting.published import AVERAGE, FACTS, PublishedCell, agrees, number, read_published
from lora_xs.reporting.readings import (
    answers_are_constant,
    answers_of,
    metric_of,
    reading,
    scored_rows,
    without_answer,
)
from lora_xs.sweeps.experiment import Aggregate, Experiment

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
    their loss was not finite. parameters:
    trained without the head, by the records. published: what is printed, None where nothing is.
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
            self.published.std, max(1, self.published_n or self.planned), self.statistic,
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


def build_cells(
    experiment: Experiment,
    runs: Iterable[Behind],
    records: Mapping[str, Record],
    *,
    statistic: str | None = None,
    of: str | None = None,
    analysed: Analysed | None = None,
) -> list[Cell]:
    """Every cell of `experiment`: those published, in print's order, then those that only we have.

    runs: what is planned. records: finished and diverged ones by signature. statistic, of: other than the paper's.
    analysed: what analyses found in the runs, for experiments whose numbers are such; None: nothing.
    """
    analysed = analysed or Analysed()
    planned = [run for run in runs if run.cell.get("role") != START]
    seeds = {run.signature: run.seed for run in planned}
    how = experiment.aggregate or Aggregate("median", "best", ())
    statistic, of = statistic or how.statistic, of or how.of
    printed = [cell for name in experiment.published for cell in read_published(name)]
    columns: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for p in printed:
        if p.place.get("task", AVERAGE) != AVERAGE:
            columns.setdefault(_row(p.place), []).append(p.place["task"])
    cells = [
        _cell(
            p.place, p, _behind(p.place, planned), records, statistic, of, experiment, analysed,
            columns.get(_row(p.place), ()),
        )
        for p in printed
    ]  # fmt: skip
    own: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}
    found = [records[run.signature] for run in planned if run.signature in records]
    answers = list({tuple(place.items()): place for record in found for place in answers_of(record)}.values())
    for run in planned:
        if not any(agrees(run.cell, p.place) for p in printed):
            for place in _places(run, answers, analysed.places(experiment.analyses, records.get(run.signature), of)):
                own.setdefault(tuple(sorted(place.items())), place)
    cells += [
        _cell(place, None, _behind(place, planned), records, statistic, of, experiment, analysed)
        for place in own.values()
    ]
    cells = _with_averages(cells)
    return cells + (_own_averages(cells, seeds) if how.average or (answers and not printed) else [])


def _places(
    run: Behind, answers: Sequence[Mapping[str, str]], points: Sequence[Mapping[str, str]]
) -> list[Mapping[str, str]]:
    """A run's cell: its main metric, and one for each test of the experiment and each reading of it, unless tasks are
    coordinates of runs; or one for each point of its analyses."""
    answered = answers if "task" not in run.cell else ()
    return [{**run.cell, **point} for point in points] or [run.cell, *({**run.cell, **answer} for answer in answered)]


def _behind(place: Mapping[str, str], planned: Sequence[Behind]) -> list[Behind]:
    """The planned runs whose coordinates are all among the place's, each signature once."""
    found: dict[str, Behind] = {}
    for run in planned:
        if agrees(run.cell, place):
            found.setdefault(run.signature, run)
    return list(found.values())


def _cell(
    place: Mapping[str, str], published: PublishedCell | None, behind: Sequence[Behind],
    records: Mapping[str, Record], statistic: str, of: str, experiment: Experiment, analysed: Analysed,
    columns: Sequence[str] = (),
) -> Cell:  # fmt: skip
    number = counted(experiment.analyses, place)
    if number is not None:
        found = (Reading(COUNTED, 0, number),)
        return Cell(place, published, found, metric=place.get("quantity", ""), signatures=(COUNTED,))
    readings: list[Reading] = []
    diverged: list[str] = []
    constant: list[str] = []
    collapsed: list[str] = []
    metric, rows, parameters, unanswered = "", None, None, 0
    for run in behind:
        record = records.get(run.signature)
        if record is None:
            continue
        if not record.scored:
            diverged.append(run.signature)
            continue
        if experiment.analyses:
            value = analysed.value(experiment.analyses, record, place, of)
        else:
            value = reading(record, place, of, columns)
        if value is None:
            continue
        if not experiment.analyses and answers_are_constant(record, place, of):
            constant.append(run.signature)
        elif record.collapsed:
            collapsed.append(run.signature)
        readings.append(Reading(run.signature, run.seed, value))
        metric = "training" if of == "seconds" else metric_of(record, place)
        rows = scored_rows(record, place)
        unanswered += without_answer(record, place)
        parameters = record.train.get("parameters", {}).get("adapter")
    reasons = [left.reason for left in experiment.not_built if agrees(left.cell, place)]
    reason = reasons[0] if reasons else experiment.reason if not behind else None
    return Cell(
        place=place, published=published, readings=tuple(readings), planned=len(behind), diverged=tuple(diverged),
        statistic=statistic, metric=metric, rows=rows, parameters=parameters, reason=reason,
        signatures=tuple(run.signature for run in behind), constant=tuple(constant), collapsed=tuple(collapsed),
        unanswered=unanswered,
        published_n=len(experiment.aggregate.seeds) if experiment.aggregate else 0,
    )  # fmt: skip


def _with_averages(cells: list[Cell]) -> list[Cell]:
    """Averages over tasks, of runs that each have one task, are the averages of the cells beside them."""
    beside: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in cells:
        if cell.place.get("task") != AVERAGE:
            beside.setdefault(_row(cell.place), []).append(cell)
    done: list[Cell] = []
    for cell in cells:
        others = beside.get(_row(cell.place), ()) if cell.place.get("task") == AVERAGE else ()
        average = _average(cell, others) if _is_open_average(cell) else cell
        chances = [other.allowed for other in others]
        known = [chance for chance in chances if chance is not None]
        whole = bool(known) and len(known) == len(chances)
        done.append(replace(average, of_columns=of_average(known)) if whole else average)
    return done


def _is_open_average(cell: Cell) -> bool:
    return cell.place.get("task") == AVERAGE and not cell.readings and cell.reason is None


def _row(place: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, value) for key, value in place.items() if key != "task"))


def _average(cell: Cell, others: Sequence[Cell]) -> Cell:
    """The average of `others`: one reading, where every one of them is complete and has a number."""
    signatures = tuple(signature for other in others for signature in other.signatures)
    complete = bool(others) and all(other.ours is not None and other.is_complete for other in others)
    diverged = tuple(dict.fromkeys(one for other in others for one in other.diverged)) if complete else ()
    values = [other.ours for other in others if other.ours is not None]
    planned = int(any(other.planned for other in others))
    readings = (Reading("average of the row", 0, statistics.fmean(values)),) if complete else ()
    parameters = next((other.parameters for other in others if other.parameters is not None), None)
    return Cell(
        place=cell.place, published=cell.published, readings=readings, planned=planned, statistic="mean",
        metric=AVERAGED, parameters=parameters, signatures=signatures, reason=_shared_reason(others),
        diverged=diverged,
    )  # fmt: skip


def _own_averages(cells: Sequence[Cell], seeds: Mapping[str, int]) -> list[Cell]:
    """A cell a row that has every task of the table, two at least: a number a seed, the mean of its tasks where it has
    them all. seeds: by signature."""
    with_task = [cell for cell in cells if "task" in cell.place]
    tasks = {cell.place["task"] for cell in with_task}
    rows: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in with_task:
        rows.setdefault(_row(cell.place), []).append(cell)
    return [average_by_seed(row, seeds) for row in rows.values() if len(row) == len(tasks) > 1]


def average_by_seed(row: Sequence[Cell], seeds: Mapping[str, int]) -> Cell:
    """The average of cells that differ in their task: a reading a seed that has them all. seeds: by signature."""
    signatures = tuple(dict.fromkeys(signature for cell in row for signature in cell.signatures))
    planned = list(dict.fromkeys(seeds[signature] for signature in signatures))
    values = [{reading.seed: reading.value for reading in cell.readings} for cell in row]
    means = {seed: statistics.fmean(v[seed] for v in values) for seed in planned if all(seed in v for v in values)}
    lost: dict[int, str] = {}  # one a seed: a seed that two tasks lost is one number less
    for signature in (one for cell in row for one in cell.diverged):
        lost.setdefault(seeds[signature], signature)
    return Cell(
        place={**row[0].place, "task": AVERAGE}, published=None, planned=len(planned), statistic=row[0].statistic,
        readings=tuple(Reading(f"seed {seed}", seed, mean) for seed, mean in means.items()), metric=AVERAGED,
        parameters=next((cell.parameters for cell in row if cell.parameters is not None), None),
        signatures=signatures, reason=_shared_reason(row), diverged=tuple(lost.values()),
    )  # fmt: skip


def _shared_reason(cells: Sequence[Cell]) -> str | None:
    reasons = {cell.reason for cell in cells}
    return reasons.pop() if len(reasons) == 1 else None
