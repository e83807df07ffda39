"""Pairs out of cells: two variants at the same place, seed by seed for ours, number by number for the printed ones."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lora_xs.evaluation.direction import LOWER_IS_BETTER
from lora_xs.reporting.cells import Cell
from lora_xs.reporting.claims.paired import Pair
from lora_xs.reporting.labels import label
from lora_xs.reporting.published import AVERAGE, agrees

Key = tuple[tuple[str, str], ...]
RATES = ("lr", "classifier_lr")
POINTS, NATS = "points", "nats"


def matched(
    cells: Sequence[Cell], ours: bool, better: Mapping[str, str], worse: Mapping[str, str], *,
    ignoring: Sequence[str] = (), best_over: Sequence[str] = (), words: str = "",
) -> list[Pair]:  # fmt: skip
    """`better` minus `worse` at each place where both have a number, averages left out.

    better, worse: coordinates of the two; those, and `ignoring`, need not agree otherwise. best_over: coordinates that
    are searched: each variant stands at the best cell it has. words: said before every place. Losses count the other
    way round. Where cells of both losses and points pair up, the losses are kept: small tests of answers cannot match
    them. All numbers of one pair of runs (its tests, its epochs) are one pair, their mean: they are not
    independent evidence.
    """
    aside = {*better, *worse, *ignoring, *best_over}
    left, right = (_by_place(cells, ours, chosen, aside, best_over) for chosen in (better, worse))
    pairs: list[Pair] = []
    for place, one in left.items():
        if place in right:
            pairs += cell_pairs(one, right[place], ours, f"{words}{named(place)}")
    return _a_pair_of_runs_once([pair for pair in pairs if pair.unit == NATS] or pairs)


def cell_pairs(one: Cell, other: Cell, ours: bool, place: str) -> list[Pair]:
    """`one` minus `other`, a pair a seed that both have; a single pair of printed numbers."""
    loss = one.metric in LOWER_IS_BETTER
    unit, sign = (NATS, -1) if loss else (POINTS, 1)
    if not ours:
        if one.published is None or other.published is None:
            return []
        return [Pair(place, None, one.published.value - other.published.value, POINTS)]
    theirs = {reading.seed: reading for reading in other.readings}
    both = [(reading, theirs[reading.seed]) for reading in one.readings if reading.seed in theirs]
    return [
        Pair(place, mine.seed, sign * (mine.value - their.value), unit, (mine.signature, their.signature))
        for mine, their in both
    ]


def _a_pair_of_runs_once(pairs: Sequence[Pair]) -> list[Pair]:
    found: dict[object, list[Pair]] = {}
    for place, pair in enumerate(pairs):
        of_two = len(set(pair.runs)) == 2  # two states of one run's weights are told apart by their places
        found.setdefault(pair.runs if of_two else place, []).append(pair)
    return [
        same[0]
        if len(same) == 1
        else replace(
            same[0],
            place=f"{same[0].place} and {len(same) - 1} more numbers of the same runs",
            difference=statistics.fmean(pair.difference for pair in same),
        )
        for same in found.values()
    ]


def number(cell: Cell, ours: bool) -> float | None:
    """A cell's number of ours, or the printed one."""
    if ours:
        return cell.ours
    return cell.published.value if cell.published is not None else None


def best(cells: Sequence[Cell], ours: bool) -> Cell | None:
    """The cell with the best number, of ours among those of most seeds; None where there is none."""
    most = max((cell.n for cell in cells), default=0)
    there = [(value, c) for c in cells if (value := number(c, ours)) is not None and (not ours or c.n == most)]
    if not there:
        return None
    sign = -1 if there[0][1].metric in LOWER_IS_BETTER else 1
    return max(there, key=lambda found: sign * found[0])[1]


def key_of(place: Mapping[str, str], aside: set[str]) -> Key:
    """What is left of a place without the coordinates `aside`."""
    return tuple(sorted((key, value) for key, value in place.items() if key not in aside))


def named(place: Key) -> str:
    """A place in words."""
    words = [label(key, value) if key in ("task", "model", "module") else f"{key} {value}" for key, value in place]
    return ", ".join(words) or "all"


def _by_place(
    cells: Sequence[Cell], ours: bool, chosen: Mapping[str, str], aside: set[str], best_over: Sequence[str]
) -> dict[Key, Cell]:
    inside: dict[Key, list[Cell]] = {}
    for cell in cells:
        if agrees(chosen, cell.place) and cell.place.get("task") != AVERAGE and number(cell, ours) is not None:
            inside.setdefault(key_of(cell.place, aside), []).append(cell)
    kept = {place: best(some, ours) if best_over else some[0] for place, some in inside.items()}
    return {place: cell for place, cell in kept.items() if cell is not None}
