"""Bars of cells, ours above published: seconds (LoRA-XS Tables 5 and 6, LoRA-SB Table 5) and counted operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_xs.reporting.cells import Cell
from lora_xs.reporting.figures.keys import bar_handles, bar_marks, bar_source_handles
from lora_xs.reporting.figures.panels import WHISKERS, distinct
from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.figures.style import GREY, Look, finish, look_of, new_figure, styled
from lora_xs.reporting.labels import label, metric_label, named
from lora_xs.reporting.material import Material, coverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KIND = "bars"
QUANTITY, METHOD = "quantity", "method"
MILLION = 1e6
PLAIN = Look("#0072B2", "o", "")


@dataclass(frozen=True)
class Bar:
    """One place of one quantity. ours, published: None where there is none. whiskers: of ours, down and up. text: the
    published number as printed."""

    name: str
    method: str
    ours: float | None
    whiskers: tuple[float, float] | None
    published: float | None
    text: str
    gap: str = "not run"  # what stands where ours is None


def bars(material: Material) -> list[Picture]:
    """One figure, a panel a quantity."""
    panels = panels_of(material.cells)
    if not any(bar.ours is not None or bar.published is not None for inside in panels.values() for bar in inside):
        return []
    caption = f"{material.heading}. Bars, ours above the published number of the same place. {WHISKERS} {material.how}"
    return [Picture(f"{material.name}-{KIND}", KIND, material.name, caption, _draw(material, panels))]


def panels_of(cells: Sequence[Cell]) -> dict[str, list[Bar]]:
    """The bars of each quantity, by its name."""
    varied = [key for key in _keys(cells) if key != QUANTITY and len(distinct(cells, key)) > 1]
    found: dict[str, list[Bar]] = {}
    for cell in cells:
        quantity = cell.place.get(QUANTITY)
        title = label(QUANTITY, quantity) if quantity else metric_label(cell.metric or "training")
        name = ", ".join(named(key, cell.place[key]) for key in varied if cell.place.get(key))
        printed = cell.published
        bar = Bar(
            name, cell.place.get(METHOD, ""), cell.ours, cell.whiskers, printed.value if printed else None,
            printed.printed if printed else "", gap_of(cell),
        )  # fmt: skip
        found.setdefault(title, []).append(bar)
    return found


def gap_of(cell: Cell) -> str:
    """What stands where a number of ours is missing."""
    return cell.status if cell.status in ("not built", "diverged") else "not run"


def _keys(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(key for cell in cells for key in cell.place))


def _draw(material: Material, panels: Mapping[str, Sequence[Bar]]) -> Figure:
    longest = max(len(inside) for inside in panels.values())
    methods = list(dict.fromkeys(bar.method for inside in panels.values() for bar in inside if bar.method))
    with styled():
        figure, axes = new_figure(1, len(panels), 1.3 + 0.30 * longest, sharey=True)
        for one, (title, inside) in zip(axes.flat, panels.items(), strict=True):
            one.set_title(title)
            draw_bars(one, inside, methods)
        sources = {True for i in panels.values() for bar in i if bar.ours is not None}
        sources |= {False for i in panels.values() for bar in i if bar.published is not None}
        handles = bar_handles(METHOD, methods) if len(methods) > 1 else []
        where = [f"Ours ran on: {material.hardware}."] if True in sources and material.hardware else []
        finish(
            figure,
            material.heading,
            [*coverage(material.cells), *where],
            material.synthetic,
            [*handles, *bar_source_handles(sources)],
        )
    return figure


def draw_bars(axes: Axes, inside: Sequence[Bar], methods: Sequence[str]) -> None:
    """Horizontal bars, the first on top; a place without ours says so."""
    from matplotlib.ticker import EngFormatter

    axes.grid(False, axis="y")
    axes.set_yticks(range(len(inside)), [bar.name for bar in inside])
    axes.set_ylim(len(inside) - 0.4, -0.6)
    own = [bar.ours + (bar.whiskers or (0, 0))[1] for bar in inside if bar.ours is not None]
    top = max([*own, *(bar.published for bar in inside if bar.published is not None)], default=0.0) or 1.0
    two = any(bar.published is not None for bar in inside)
    for place, bar in enumerate(inside):
        look = look_of(bar.method, methods) if bar.method else PLAIN
        high, low = (place - 0.19, place + 0.19) if two else (place, place)
        size = 0.36 if two else 0.6
        if bar.ours is not None:
            reach = [[one] for one in bar.whiskers] if bar.whiskers else None
            axes.barh(high, bar.ours, height=size, xerr=reach, error_kw={"elinewidth": 0.7}, **bar_marks(look, True))
            _name(axes, bar.ours + (bar.whiskers or (0, 0))[1], high, _short(bar.ours), top)
        else:
            _name(axes, 0.0, high, bar.gap, top, GREY)
        if bar.published is not None:
            axes.barh(low, bar.published, height=size, **bar_marks(look, False))
            _name(axes, bar.published, low, bar.text, top)
    axes.set_xlim(0, top * 1.28)
    if top >= MILLION:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _name(axes: Axes, x: float, y: float, words: str, top: float, colour: str = "black") -> None:
    axes.text(x + top * 0.015, y, words, va="center", fontsize=6, color=colour, gid="number")


def _short(value: float) -> str:
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if abs(value) >= scale:
            return f"{value / scale:.2f}{unit}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"
