"""Pairs out of cells: two variants at the same place, seed by seed for ours, number by number for the printed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lora_xs.evaluation.direction import LOWER_IS_BETTER
from lora_xs.reporting.cells import Cell
from lora_xs.reporting.claims.pair import Found, Lost, Pair
from lora_xs.reporting.labels import label
from lora_xs.reporting.published import AVERAGE, agrees

Key = tuple[tuple[str, str], ...]
RATES = ("lr", "classifier_lr")
POINTS, NATS = "points", "nats"


def matched(
    cells: Sequence[Cell], ours: bool, better: Mapping[str, str], worse: Mapping[str, str], *,
    ignoring: Sequence[str] = (), best_over: Sequence[str] = (), words: str = "", by: str = "",
) -> Found:  # fmt: skip
    """`better` minus `worse` at each place where both have a number, averages left out; runs of both that diverged.

    better, worse: coordinates of the two; those, and `ignoring`, need not agree otherwise. best_over: coordinates that
    are searched: each variant stands at the best cell it has. words: said before every place. by: the coordinate whose
    values are judged apart. Losses count the other way round. Where cells of both losses and points pair up, the losses
    are kept: small tests of answers cannot match them.
    """
    aside = {*better, *worse, *ignoring, *best_over}
    left, right = (_by_place(cells, ours, chosen, aside, best_over) for chosen in (better, worse))
    pairs: list[Pair] = []
    lost: list[Lost] = []
    for place, one in left.items():
        if place in right:
            other, split = right[place], named([(key, value) for key, value in place if key == by]) if by else ""
            pairs += [replace(pair, split=split) for pair in cell_pairs(one, other, ours, f"{words}{named(place)}")]
            for cell, chosen in ((one, better), (other, worse)) if ours else ():
                lost += [Lost(signature, side(chosen), split) for signature in cell.diverged]
    return [*([pair for pair in pairs if pair.unit == NATS] or pairs), *lost]


def cell_pairs(one: Cell, other: Cell, ours: bool, place: str) -> list[Pair]:
    """`one` minus `other`, a pair a seed that both have; a single pair of printed numbers."""
    loss = one.metric in LOWER_IS_BETTER
    unit, sign = (NATS, -1) if loss else (POINTS, 1)
    task = label("task", one.place.get("task", ""))
    if not ours:
        if one.published is None or other.published is None:
            return []
        difference = one.published.value - other.published.value
        return [Pair(place, None, difference, POINTS, (*_printed_for(one), *_printed_for(other)), task)]
    theirs = {reading.seed: reading for reading in other.readings}
    both = [(reading, theirs[reading.seed]) for reading in one.readings if reading.seed in theirs]
    return [
        Pair(place, mine.seed, sign * (mine.value - their.value), unit, (mine.signature, their.signature), task)
        for mine, their in both
    ]


def _printed_for(cell: Cell) -> tuple[str, ...]:
    """What tells whether two printed numbers are of the same runs: the runs that are planned for them."""
    return cell.signatures or ((cell.published.source,) if cell.published is not None else ())


def side(chosen: Mapping[str, str]) -> str:
    """A variant in words."""
    return ", ".join(label(key, value) if key != "rank" else f"rank {value}" for key, value in chosen.items())


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


def named(place: Sequence[tuple[str, str]]) -> str:
    """A place in words."""
    words = [label(key, value) if key in ("task", "model", "module") else f"{key} {value}" for key, value in place]
    return ", ".join(words) or "all"


def _by_place(
    cells: Sequence[Cell], ours: bool, chosen: Mapping[str, str], aside: set[str], best_over: Sequence[str]
) -> dict[Key, Cell]:
    inside: dict[Key, list[Cell]] = {}
    for cell in cells:
        there = number(cell, ours) is not None or (ours and cell.diverged)
        if agrees(chosen, cell.place) and cell.place.get("task") != AVERAGE and there:
            inside.setdefault(key_of(cell.place, aside), []).append(cell)
    kept: dict[Key, Cell] = {}
    for place, some in inside.items():
        scored = [cell for cell in some if number(cell, ours) is not None] or some
        kept[place] = (best(scored, ours) if best_over else None) or scored[0]
    return kept
