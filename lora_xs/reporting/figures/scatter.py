"""Score against a method's cost (parameters, bytes), a panel a test, with the Pareto front of ours and of theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from lora_xs.reporting.cells import Cell
from lora_xs.reporting.figures.keys import series_handles, source_handles
from lora_xs.reporting.figures.panels import at, distinct, headline, is_loss, score_label, spare, titled
from lora_xs.reporting.figures.style import (
    GREY,
    Look,
    finish,
    hatch_off,
    label_edges,
    look_of,
    marks,
    new_figure,
    plain_log,
    styled,
)
from lora_xs.reporting.labels import label
from lora_xs.reporting.material import Material, coverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cost = Callable[[Cell], float | None]
LEVELS = ("full_ft", "head_only")
"""Methods drawn as a level across the panel: one trains everything, the other nothing but the head."""


@dataclass(frozen=True)
class Point:
    """One number of ours or one published. cost: None for a level; whiskers: down and up from the score."""

    method: str
    rank: str
    cost: float | None
    score: float
    whiskers: tuple[float, float] | None
    ours: bool


@dataclass(frozen=True)
class Panel:
    """The points of one test of one model."""

    title: str
    axis: str
    lower_is_better: bool
    points: tuple[Point, ...]


def panels_of(cells: Sequence[Cell], ours: Cost, published: Cost, levels: bool) -> list[Panel]:
    """What to draw. levels: whether LEVELS have no cost."""
    shown = [cell for cell in headline(cells) if "method" in cell.place]
    keys = ("model", "task")
    found = []
    for values in distinct(shown, *keys):
        inside = at(shown, keys, values)
        points = [point for cell in inside for point in _points(cell, ours, published, levels)]
        if points or any(cell.planned for cell in inside):
            found.append(Panel(titled(keys, values), score_label(inside), is_loss(inside), tuple(points)))
    return found if any(panel.points for panel in found) else []


def _points(cell: Cell, ours: Cost, published: Cost, levels: bool) -> list[Point]:
    method, rank = cell.place["method"], cell.place.get("rank", "")
    level = levels and method in LEVELS
    found = []
    printed = cell.published
    for is_ours, cost, score, whiskers in (
        (True, ours(cell), cell.ours, cell.whiskers),
        (False, published(cell), *((printed.value, printed.whiskers) if printed else (None, None))),
    ):
        if score is not None and (level or cost):
            found.append(Point(method, rank, None if level else cost, score, whiskers, is_ours))
    return found


def front(points: Sequence[Point], lower_is_better: bool) -> list[Point]:
    """The points that no other beats at the same cost or a smaller one, cheapest first."""
    sign = -1 if lower_is_better else 1
    best: list[Point] = []
    for point in sorted((p for p in points if p.cost is not None), key=lambda p: (p.cost, -sign * p.score)):
        if not best or sign * point.score > sign * best[-1].score:
            best.append(point)
    return best


def draw(material: Material, panels: Sequence[Panel], title: str, axis: str) -> Figure:
    """The figure of these panels. axis: what the cost is."""
    with styled():
        columns = min(len(panels), 3 if len(panels) != 4 else 2)
        rows = -(-len(panels) // columns)
        figure, axes = new_figure(rows, columns, 3.6 if rows == 1 else 0.8 + 2.3 * rows)
        flat = list(axes.flat)
        for one, panel in zip(flat, panels, strict=False):
            _draw(one, panel)
        spare(flat[len(panels) :])
        label_edges(axes, axis)
        methods = list(dict.fromkeys(point.method for panel in panels for point in panel.points))
        sources = {point.ours for panel in panels for point in panel.points}
        handles = [*series_handles("method", methods), *source_handles(sources), _front_handle()]
        finish(figure, title, coverage(material.cells), material.synthetic, handles)
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    plain_log(axes, [point.cost for point in panel.points if point.cost is not None])
    axes.set_title(panel.title)
    axes.margins(x=0.12, y=0.12)
    axes.set_ylabel(panel.axis)
    if not panel.points:
        hatch_off(axes, "not run")
    methods = list(dict.fromkeys(point.method for point in panel.points))
    for ours in (False, True):
        inside = [point for point in panel.points if point.ours is ours]
        _draw_front(axes, front(inside, panel.lower_is_better), ours)
        for method, group in groupby(sorted(inside, key=lambda p: methods.index(p.method)), key=lambda p: p.method):
            _draw_series(axes, sorted(group, key=lambda p: p.cost or 0), look_of(method, methods), ours)
    _name_ranks(axes, panel.points)


def _draw_series(axes: Axes, points: Sequence[Point], look: Look, ours: bool) -> None:
    placed = [(p.cost, p) for p in points if p.cost is not None]
    for point in points:
        if point.cost is None:
            style = {key: value for key, value in marks(look, ours).items() if key in ("color", "linestyle", "gid")}
            axes.axhline(point.score, linewidth=0.9, **style)
            name = label("method", point.method) + ("" if ours else ", published")
            axes.annotate(
                name, (0.01 if ours else 0.99, point.score), xycoords=("axes fraction", "data"), fontsize=6,
                ha="left" if ours else "right", va="bottom", color=look.colour,
            )  # fmt: skip
    if placed:
        costs, scores = [cost for cost, _ in placed], [p.score for _, p in placed]
        axes.plot(costs, scores, **marks(look, ours))
        known = [(cost, p.score, p.whiskers) for cost, p in placed if p.whiskers]
        if known:
            x, y, reach = zip(*known, strict=True)
            axes.errorbar(
                x, y, yerr=list(zip(*reach, strict=True)), fmt="none", ecolor=look.colour, elinewidth=0.7, capsize=1.5,
                alpha=0.7, gid="whiskers",
            )  # fmt: skip


def _draw_front(axes: Axes, points: Sequence[Point], ours: bool) -> None:
    if len(points) > 1:
        costs, scores = [p.cost or 0 for p in points], [p.score for p in points]
        axes.step(
            costs, scores, where="post", color=GREY, linewidth=3.2 if ours else 2.2, alpha=0.28, zorder=0.5,
            linestyle="-" if ours else (0, (3, 1)), gid="front, ours" if ours else "front, published",
        )  # fmt: skip


def _name_ranks(axes: Axes, points: Sequence[Point]) -> None:
    """Ranks beside one point each: ours where there is one, for methods of several."""
    for method in dict.fromkeys(point.method for point in points):
        inside = [point for point in points if point.method == method and point.cost is not None and point.rank]
        kept = {point.rank: point for point in sorted(inside, key=lambda p: p.ours)}
        if len(kept) < 2:
            continue
        for rank, point in kept.items():
            axes.annotate(
                f"r={rank}", (point.cost or 0, point.score), xytext=(3, -7), textcoords="offset points", fontsize=5.5,
                color="#333333",
            )  # fmt: skip


def _front_handle() -> object:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=GREY, linewidth=3, alpha=0.28, label="Pareto front, of each")
