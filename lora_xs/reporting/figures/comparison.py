"""Scores of a few variants side by side (LoRA-XS Table 4; LoRA-SB Table 4, Figure 3), a panel a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lora_xs.reporting.cells import Cell
from lora_xs.reporting.figures.bars import Bar, draw_bars, gap_of
from lora_xs.reporting.figures.keys import bar_source_handles
from lora_xs.reporting.figures.panels import WHISKERS, at, distinct, score_label, titled
from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.figures.style import finish, label_edges, new_figure, styled
from lora_xs.reporting.labels import label
from lora_xs.reporting.material import Material, coverage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "variants"
VARIANTS = ("init", "decomposed_matrix", "variant")
PANELS = ("model", "task")


def comparison(material: Material) -> list[Picture]:
    """A figure for each thing that varies, of the cells that have it; none without numbers."""
    having = {key: [cell for cell in material.cells if key in cell.place] for key in VARIANTS}
    keys = [key for key, cells in having.items() if len(distinct(cells, key)) > 1]
    if material.is_empty:
        return []
    caption = f"{material.heading}. Bars, ours above the published score of the same variant. {WHISKERS} {material.how}"
    pictures = []
    for key in keys:
        name = f"{material.name}-{KIND}" if len(keys) == 1 else f"{material.name}-{KIND}-{key}"
        picture = _draw(material, panels_of(having[key], key))
        pictures.append(Picture(name, KIND, material.name, caption, picture))
    return pictures


def panels_of(cells: Sequence[Cell], key: str) -> dict[str, list[Bar]]:
    """The bars of each task, by its title."""
    return {titled(PANELS, where): [_bar(cell, key) for cell in at(cells, PANELS, where)]
            for where in distinct(cells, *PANELS)}  # fmt: skip


def _bar(cell: Cell, key: str) -> Bar:
    printed = cell.published
    value, text = (printed.value, printed.printed) if printed is not None else (None, "")
    return Bar(label(key, cell.place[key]), cell.place[key], cell.ours, cell.whiskers, value, text, gap_of(cell))


def _draw(material: Material, panels: Mapping[str, Sequence[Bar]]) -> Figure:
    series = list(dict.fromkeys(bar.method for inside in panels.values() for bar in inside))
    with styled():
        figure, axes = new_figure(1, len(panels), 1.25 + 0.36 * len(series), sharey=True)
        for one, (title, inside) in zip(axes.flat, panels.items(), strict=True):
            one.set_title(title)
            draw_bars(one, inside, series)
        sources = {True for i in panels.values() for bar in i if bar.ours is not None}
        sources |= {False for i in panels.values() for bar in i if bar.published is not None}
        label_edges(axes, score_label(material.cells))
        handles = bar_source_handles(sources)
        finish(figure, material.heading, coverage(material.cells), material.synthetic, handles)
    return figure
