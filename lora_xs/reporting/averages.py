"""Averages over tasks: of a paper's row, which is one number, and of ours, which has one a seed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lora_xs.reporting.cells import AVERAGED, Cell, Reading
from lora_xs.reporting.noise import of_average, seed_errors
from lora_xs.reporting.published import AVERAGE


def with_averages(cells: list[Cell]) -> list[Cell]:
    """Averages over tasks, of runs that each have one task, are the averages of the cells beside them.

    What chance allows of an average follows from theirs, and from its own seeds where all of it is of the same runs.
    """
    beside: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in cells:
        if cell.place.get("task") != AVERAGE:
            beside.setdefault(row_of(cell.place), []).append(cell)
    done: list[Cell] = []
    for cell in cells:
        others = beside.get(row_of(cell.place), ()) if cell.place.get("task") == AVERAGE else ()
        is_open = _is_open_average(cell)
        average = _average(cell, others) if is_open else cell
        chances = [other.allowed for other in others]
        known = [chance for chance in chances if chance is not None]
        if known and len(known) == len(chances):
            average = replace(average, of_columns=of_average(known, None if is_open else _seed_errors(cell)))
        done.append(average)
    return done


def _seed_errors(cell: Cell) -> tuple[float, float]:
    printed = cell.published.std if cell.published is not None else None
    return seed_errors(AVERAGE, cell.spread, cell.n, printed, cell.seeds_there, cell.statistic)


def _is_open_average(cell: Cell) -> bool:
    return cell.place.get("task") == AVERAGE and not cell.readings and cell.reason is None


def row_of(place: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """All coordinates but the task."""
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


def own_averages(cells: Sequence[Cell], seeds: Mapping[str, int]) -> list[Cell]:
    """A cell a row that has every task of the table, two at least: a number a seed, the mean of its tasks where it has
    them all. seeds: by signature."""
    with_task = [cell for cell in cells if "task" in cell.place]
    tasks = {cell.place["task"] for cell in with_task}
    rows: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in with_task:
        rows.setdefault(row_of(cell.place), []).append(cell)
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
