"""Heat maps of learning-rate grids (LoRA-XS Tables 12–15 and 18–25): ours above the published ones, one scale."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_xs.reporting.cells import Cell
from lora_xs.reporting.figures.panels import at, distinct, titled
from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.figures.style import GREY, finish, label_edges, new_figure, styled
from lora_xs.reporting.labels import head, named
from lora_xs.reporting.layout import COMPARED, RATES
from lora_xs.reporting.material import Material, coverage
from lora_xs.reporting.published import same

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KIND = "grid"
MAP = "cividis"  # even steps of lightness: reads the same to the colour-blind and in grey
SCALE, SIZE = "score (points)", 6.2


@dataclass(frozen=True)
class Square:
    """One cell of a heat map. value: None where there is none, and `words` says why."""

    row: int
    column: int
    value: float | None
    words: str


@dataclass(frozen=True)
class Map:
    """One heat map: a variant, ours or published. lr, classifier_lr: the rates, in order."""

    title: str
    ours: bool
    lr: tuple[str, ...]
    classifier_lr: tuple[str, ...]
    squares: tuple[Square, ...]


def maps_of(cells: Sequence[Cell]) -> list[tuple[Map, ...]]:
    """A tuple a variant: ours, and the published one where anything of the experiment is published."""
    keys = [key for key in COMPARED if len({cell.place.get(key, "") for cell in cells}) > 1] or ["task"]
    lr, heads = (_rates(cells, key) for key in RATES)
    printed = any(cell.published is not None for cell in cells)
    return [
        tuple(
            _map(at(cells, keys, values), titled(keys, values), ours, lr, heads)
            for ours in ((True, False) if printed else (True,))
        )
        for values in distinct(cells, *keys)
    ]


def rate_grids(material: Material) -> list[Picture]:
    """A figure a task, or none without numbers."""
    cells = [cell for cell in material.cells if all(key in cell.place for key in RATES)]
    tasks = distinct(cells, "task")
    return [
        picture
        for (task,) in tasks
        for picture in _picture(material, at(cells, ["task"], [task]), task if len(tasks) > 1 else "")
    ]


def _picture(material: Material, cells: Sequence[Cell], task: str) -> list[Picture]:
    if not any(cell.published is not None or cell.ours is not None for cell in cells):
        return []
    heading = f"{material.heading} ({named('task', task)})" if task else material.heading
    caption = (
        f"{heading}. Heat maps over the adapter's learning rate (down) and the classifier's (across); a square with a "
        f"number is a cell, ± is the sample standard deviation over seeds; darker is lower, and outliers lie below "
        f"the scale. {material.how}"
    )
    name = "-".join(filter(None, [material.name, KIND, task]))
    return [Picture(name, KIND, material.name, caption, _draw(material, cells, heading))]


def _rates(cells: Sequence[Cell], key: str) -> tuple[str, ...]:
    found: list[str] = []
    for cell in cells:
        if not any(same(cell.place[key], other) for other in found):
            found.append(cell.place[key])
    return tuple(sorted(found, key=float))


def _map(cells: Sequence[Cell], title: str, ours: bool, lr: tuple[str, ...], heads: tuple[str, ...]) -> Map:
    squares = []
    for row, rate in enumerate(lr):
        for column, other in enumerate(heads):
            inside = [c for c in cells if same(c.place["lr"], rate) and same(c.place["classifier_lr"], other)]
            squares.append(_square(row, column, inside[0] if inside else None, ours))
    return Map(title, ours, lr, heads, tuple(squares))


def _square(row: int, column: int, cell: Cell | None, ours: bool) -> Square:
    if ours:
        if cell is None or cell.ours is None:
            return Square(
                row, column, None, "diverged" if cell is not None and cell.status == "diverged" else "not run"
            )
        spread = f"\n±{cell.spread:.2f}" if cell.spread is not None else ""
        part = f"\n{cell.n}/{cell.planned}" if cell.status == "partial" else ""
        return Square(row, column, cell.ours, f"{cell.ours:.2f}{spread}{part}")
    if cell is None or cell.published is None:
        return Square(row, column, None, "not\nprinted")
    spread = f"\n±{cell.published.std:.2f}" if cell.published.std is not None else ""
    return Square(row, column, cell.published.value, f"{cell.published.printed}{spread}")


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """The colour scale's ends: all values but those far below the rest (Tukey's fence), so that one run that collapsed
    does not paint all others alike."""
    if len(values) > 3:
        first, _, third = statistics.quantiles(values, n=4)
        values = [value for value in values if value >= first - 1.5 * (third - first)]
    return min(values), max(values) if max(values) > min(values) else min(values) + 1


def _draw(material: Material, cells: Sequence[Cell], heading: str) -> Figure:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    maps = maps_of(cells)
    values = [square.value for pair in maps for one in pair for square in one.squares if square.value is not None]
    low, high = bounds(values)
    scale = Normalize(low, high, clip=True)
    across = min(3, len(maps))
    bands = -(-len(maps) // across)
    deep = len(maps[0])
    with styled():
        figure, axes = new_figure(bands * deep, across, 1.0 + 1.75 * bands * deep)
        for place, pair in enumerate(maps):
            for down, one in enumerate(pair):
                _draw_map(axes[place // across * deep + down][place % across], one, scale, place % across == 0)
        for place in range(len(maps), bands * across):
            for down in range(deep):
                axes[place // across * deep + down][place % across].remove()
        colours = ScalarMappable(scale, MAP)
        extend = "min" if min(values) < low else "neither"
        there = [one for one in axes.flat if one.figure is not None]
        bar = figure.colorbar(colours, ax=there, shrink=0.7, pad=0.015, aspect=30, extend=extend)
        bar.set_label(SCALE)
        bar.outline.set_linewidth(0.4)
        label_edges(axes, head("classifier_lr"), head("lr"))
        outside = sum(value < low for value in values)
        below = [f"{outside} of {len(values)} squares lie below the colour scale."] if outside else []
        finish(figure, heading, [*coverage(cells), *below], material.synthetic)
    return figure


def _draw_map(axes: Axes, one: Map, scale: Any, first: bool) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    axes.grid(False)
    axes.set_xlim(-0.5, len(one.classifier_lr) - 0.5)
    axes.set_ylim(len(one.lr) - 0.5, -0.5)
    axes.set_xticks(range(len(one.classifier_lr)), [f"{float(rate):g}" for rate in one.classifier_lr])
    axes.set_yticks(range(len(one.lr)), [f"{float(rate):g}" if first else "" for rate in one.lr])
    axes.tick_params(length=0)
    kind = "ours" if one.ours else "published"
    axes.set_title(f"{one.title}: {kind}")
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_linestyle("-" if one.ours else (0, (4, 2)))
        spine.set_linewidth(1.0)
    for square in one.squares:
        colour = colormaps[MAP](scale(square.value)) if square.value is not None else "white"
        box = Rectangle((square.column - 0.5, square.row - 0.5), 1, 1, facecolor=colour, edgecolor="white", zorder=0.5)
        box.set_gid(kind if square.value is not None else "gap")
        if square.value is None:
            box.set(hatch="////", edgecolor="#E4E4E4", linewidth=0)
        axes.add_patch(box)
        dark = square.value is not None and scale(square.value) < 0.5
        axes.text(
            square.column, square.row, square.words, ha="center", va="center", fontsize=SIZE, zorder=2,
            color="white" if dark else "black" if square.value is not None else GREY,
        )  # fmt: skip
