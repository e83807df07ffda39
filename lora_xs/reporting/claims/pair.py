"""What a claim is tested on: pairs of numbers, those that divergence took away, and which of them are independent."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Pair:
    """Two numbers of one place and seed. place: what they share, in words; seed: None of printed numbers; difference:
    positive where it speaks for the claim, in `unit`. runs: signatures behind it; of printed numbers, of the runs that
    are planned for them, else where they stand. task: in words, where the place has one. split: of a part whose places
    are judged apart, to which of them it belongs."""

    place: str
    seed: int | None
    difference: float
    unit: str = "points"
    runs: tuple[str, ...] = ()
    task: str = ""
    split: str = ""


@dataclass(frozen=True)
class Lost:
    """A run that diverged, so that no pair could be made of it. side: which of the two variants it is of."""

    run: str
    side: str
    split: str = ""


Found = Sequence[Pair | Lost]


def independent(differences: Sequence[Pair]) -> tuple[Pair, ...]:
    """One pair for all differences that share a run, at first hand or through others: their mean.

    Tests, epochs and modules of the same runs, and one run set against several, are no independent evidence.
    """
    groups: list[tuple[set[str], list[Pair]]] = []
    for one in differences:
        runs = set(one.runs)
        sharing = [group for group in groups if group[0] & runs]
        inside = [pair for _, pairs in sharing for pair in pairs]
        groups = [group for group in groups if group not in sharing]
        groups.append((runs.union(*(known for known, _ in sharing)), [*inside, one]))
    return tuple(_mean(inside) for _, inside in groups)


def _mean(pairs: Sequence[Pair]) -> Pair:
    first = pairs[0]
    if len(pairs) == 1:
        return first
    return replace(
        first,
        place=f"{first.place} and {len(pairs) - 1} more numbers of the same runs",
        difference=statistics.fmean(pair.difference for pair in pairs),
        runs=tuple(dict.fromkeys(run for pair in pairs for run in pair.runs)),
        seed=first.seed if len({pair.seed for pair in pairs}) == 1 else None,
        task=first.task if len({pair.task for pair in pairs}) == 1 else "",
    )
