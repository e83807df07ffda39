"""Every cell of an experiment, made of what is printed, what is planned and the records of what was run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lora_xs.records import Record
from lora_xs.reporting.analysed import COUNTED, Analysed, counted
from lora_xs.reporting.averages import own_averages, row_of, with_averages
from lora_xs.reporting.cells import START, Behind, Cell, Reading
from lora_xs.reporting.published import AVERAGE, PublishedCell, agrees, read_published
from lora_xs.reporting.readings import (
    answers_are_constant,
    answers_of,
    metric_of,
    reading,
    scored_rows,
    without_answer,
)
from lora_xs.sweeps.experiment import Aggregate, Experiment


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
            columns.setdefault(row_of(p.place), []).append(p.place["task"])
    cells = [
        _cell(
            p.place, p, _behind(p.place, planned), records, statistic, of, experiment, analysed,
            columns.get(row_of(p.place), ()),
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
    cells = with_averages(cells)
    return cells + (own_averages(cells, seeds) if how.average or (answers and not printed) else [])


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
