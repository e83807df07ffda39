"""Panels of lines: a number against a coordinate of the cells, a line a series, ours and published apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_xs.reporting.cells import Cell
from lora_xs.reporting.figures.panels import at, distinct
from lora_xs.reporting.figures.style import hatch_off, look_of, marks
from lora_xs.reporting.labels import named

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Whiskers = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One series of one side. x, y: its points in order of x; whiskers: of each, down and up, None where unknown.
    series: its value of the coordinate that tells series apart. end: words at its last point."""

    series: str
    ours: bool
    x: tuple[float, ...]
    y: tuple[float, ...]
    whiskers: tuple[Whiskers | None, ...]
    end: str = ""


def lines_of(
    cells: Sequence[Cell], series: str, x: str, position: Mapping[str, float] | None = None, apart: str = ""
) -> list[Line]:
    """A line for ours and one for the published numbers of each series. x: the coordinate; position: of its values,
    where they are no numbers. apart: a coordinate by which a series is several lines, each with its value at the end.
    """
    found = []
    for (value,) in distinct(cells, series):
        of_series = at(cells, [series], [value])
        parts = [part for (part,) in distinct(of_series, apart)] if apart else [""]
        for part in parts:
            inside = at(of_series, [apart], [part]) if apart else of_series
            for ours in (True, False):
                points = sorted(
                    ((position[cell.place[x]] if position else float(cell.place[x]), *number)
                     for cell in inside
                     if (number := _number(cell, ours)) is not None),
                    key=lambda point: point[0],
                )  # fmt: skip
                if points:
                    xs, ys, whiskers = zip(*points, strict=True)
                    end = named(apart, part) if len(parts) > 1 else ""
                    found.append(Line(value, ours, xs, ys, whiskers, end))
    return found


def _number(cell: Cell, ours: bool) -> tuple[float, Whiskers | None] | None:
    if ours:
        return None if cell.ours is None else (cell.ours, cell.whiskers)
    return None if cell.published is None else (cell.published.value, cell.published.whiskers)


def draw_lines(axes: Axes, lines: Sequence[Line], among: Sequence[str], shift: float = 0.0) -> None:
    """Draw them, published below ours. among: all series of the figure. shift: sideways, a series, so that whiskers do
    not hide each other."""
    for line in sorted(lines, key=lambda one: one.ours):
        look = look_of(line.series, among)
        moved = [x + shift * (list(among).index(line.series) - (len(among) - 1) / 2) for x in line.x]
        axes.plot(moved, line.y, zorder=2.5 if line.ours else 2, **marks(look, line.ours))
        known = [(x, y, reach) for x, y, reach in zip(moved, line.y, line.whiskers, strict=True) if reach is not None]
        if known:
            x, y, reach = zip(*known, strict=True)
            axes.errorbar(
                x, y, yerr=list(zip(*reach, strict=True)), fmt="none", ecolor=look.colour, elinewidth=0.7, capsize=1.5,
                alpha=0.7, zorder=1.5, gid="whiskers",
            )  # fmt: skip
        if line.end:
            axes.annotate(
                line.end, (moved[-1], line.y[-1]), xytext=(4, 0), textcoords="offset points", va="center", fontsize=5.5,
                color="#333333", gid="end",
            )  # fmt: skip
    if not lines:
        hatch_off(axes, "not run")
