"""Panels of lines: a number against a coordinate of the cells, a line a series, ours and published apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_xs.reporting.cells import Cell
from lora_xs.reporting.figures.panels import at, distinct
from lora_xs.reporting.figures.style import hatch_off, look_of, marks

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Line:
    """One series of one side. x, y: its points in order of x; spread: of each, None where unknown. series: its value of
    the coordinate that tells series apart."""

    series: str
    ours: bool
    x: tuple[float, ...]
    y: tuple[float, ...]
    spread: tuple[float | None, ...]


def lines_of(cells: Sequence[Cell], series: str, x: str, position: Mapping[str, float] | None = None) -> list[Line]:
    """A line for ours and one for the published numbers of each series. x: the coordinate; position: of its values,
    where they are no numbers."""
    found = []
    for (value,) in distinct(cells, series):
        inside = at(cells, [series], [value])
        for ours in (True, False):
            points = sorted(
                (position[cell.place[x]] if position else float(cell.place[x]), y, spread)
                for cell in inside
                if (pair := _number(cell, ours)) is not None
                for y, spread in [pair]
            )
            if points:
                xs, ys, spreads = zip(*points, strict=True)
                found.append(Line(value, ours, xs, ys, spreads))
    return found


def _number(cell: Cell, ours: bool) -> tuple[float, float | None] | None:
    if ours:
        return None if cell.ours is None else (cell.ours, cell.spread)
    return None if cell.published is None else (cell.published.value, cell.published.std)


def draw_lines(axes: Axes, lines: Sequence[Line], among: Sequence[str], shift: float = 0.0) -> None:
    """Draw them, published below ours. among: all series of the figure. shift: sideways, a series, so that spreads do
    not hide each other."""
    for line in sorted(lines, key=lambda one: one.ours):
        look = look_of(line.series, among)
        moved = [x + shift * (list(among).index(line.series) - (len(among) - 1) / 2) for x in line.x]
        axes.plot(moved, line.y, zorder=2.5 if line.ours else 2, **marks(look, line.ours))
        known = [(x, y, spread) for x, y, spread in zip(moved, line.y, line.spread, strict=True) if spread is not None]
        if known:
            x, y, spread = zip(*known, strict=True)
            axes.errorbar(
                x, y, yerr=spread, fmt="none", ecolor=look.colour, elinewidth=0.7, capsize=1.5, alpha=0.7, zorder=1.5,
                gid="spread",
            )  # fmt: skip
    if not lines:
        hatch_off(axes, "not run")
