"""What runs wrote while they trained, as bands over seeds: the mean, and the lowest and highest seed around it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_xs.reporting.figures.style import Look
from lora_xs.reporting.losses import Trajectory as Trajectory
from lora_xs.reporting.losses import training_losses as training_losses

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARE = 25  # one in so many points is a window of the running mean


@dataclass(frozen=True)
class Band:
    """One series. x: where every seed has a number; mean, low, high: over the seeds there. seeds: how many there are,
    of `planned`; diverged ones are left out."""

    series: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: int
    planned: int


def scores(lines: Sequence[Mapping[str, Any]], metric: str) -> Trajectory:
    """Epoch → validation score, of a record's evaluations."""
    return {float(line["epoch"]): float(line[metric]) for line in lines if line.get(metric) is not None}


def band(series: str, trajectories: Sequence[Trajectory], planned: int) -> Band | None:
    """The band of these runs; None where they share no point."""
    there = [one for one in trajectories if one]
    common = sorted(set.intersection(*(set(one) for one in there))) if there else []
    if not common:
        return None
    values = [[one[x] for one in there] for x in common]
    return Band(
        series, tuple(common), tuple(map(statistics.fmean, values)), tuple(map(min, values)), tuple(map(max, values)),
        len(there), planned,
    )  # fmt: skip


def running_mean(values: Sequence[float]) -> list[float]:
    """The mean of a centred window of a 25th of the points, narrower at both ends; a short line stays as it is."""
    half = len(values) // SHARE // 2
    return [
        statistics.fmean(values[i - near : i + near + 1])
        for i in range(len(values))
        for near in [min(half, i, len(values) - 1 - i)]
    ]


def draw_bands(axes: Axes, bands: Sequence[Band], looks: Mapping[str, Look], smooth: bool) -> None:
    """Means as lines (of smoothed ones the unsmoothed behind), seeds as bands around them. looks: of each series."""
    for one in bands:
        style = looks[one.series]
        shown = running_mean(one.mean) if smooth else list(one.mean)
        low, high = (running_mean(side) if smooth else list(side) for side in (one.low, one.high))
        if one.seeds > 1:
            axes.fill_between(one.x, low, high, color=style.colour, alpha=0.18, linewidth=0, gid="band")
        if shown != list(one.mean):
            axes.plot(one.x, one.mean, color=style.colour, linewidth=0.5, alpha=0.35, gid="raw")
        every = max(1, len(one.x) // 8)
        axes.plot(
            one.x, shown, color=style.colour, marker=style.marker, markevery=every, markersize=3.8, gid="ours",
            label=one.series,
        )  # fmt: skip
