"""Learning by initialisation (LoRA-XS Table 16): the score after one epoch, two, and the best, ours and printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lora_xs.reporting.cells import Cell
from lora_xs.reporting.figures.keys import series_handles, source_handles
from lora_xs.reporting.figures.lines import Line, draw_lines, lines_of
from lora_xs.reporting.figures.panels import WHISKERS, at, distinct, score_label, titled
from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.figures.style import finish, label_edges, new_figure, styled
from lora_xs.reporting.labels import label
from lora_xs.reporting.material import Material, coverage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "learning"
WHEN, SERIES, PANELS = "when", "init", ("task", "rank")
POSITION = {"epoch1": 1.0, "epoch2": 2.0, "best": 3.0}
"""Where the printed moments stand; the best epoch is another one in every run."""
Panels = Mapping[tuple[str, ...], Sequence[Line]]


def learning_curves(material: Material) -> list[Picture]:
    """One figure: tasks are its rows, ranks its columns."""
    cells = [cell for cell in material.cells if WHEN in cell.place]
    panels = panels_of(cells)
    if not any(panels.values()):
        return []
    caption = (
        f"{material.heading}. Score after the first epoch, after the second and at the best one. {WHISKERS} "
        f"{material.how}"
    )
    return [Picture(f"{material.name}-{KIND}", KIND, material.name, caption, _draw(material, cells, panels))]


def panels_of(cells: Sequence[Cell]) -> dict[tuple[str, ...], list[Line]]:
    """The lines of each panel (task, rank)."""
    return {v: lines_of(at(cells, PANELS, v), SERIES, WHEN, POSITION) for v in distinct(cells, *PANELS)}


def _draw(material: Material, cells: Sequence[Cell], panels: Panels) -> Figure:
    tasks, ranks = (list(dict.fromkeys(values[place] for values in panels)) for place in (0, 1))
    series = [value for (value,) in distinct(cells, SERIES)]
    with styled():
        figure, axes = new_figure(len(tasks), len(ranks), 1.0 + 1.7 * len(tasks), sharex=True, sharey="row")
        for values, lines in panels.items():
            one = axes[tasks.index(values[0])][ranks.index(values[1])]
            one.set_title(titled(PANELS, values))
            draw_lines(one, lines, series, shift=0.09)
            one.set_xticks(list(POSITION.values()), [label(WHEN, when) for when in POSITION])
            one.set_xlim(0.7, 3.3)
        label_edges(axes, y=score_label(cells))
        sources = {line.ours for lines in panels.values() for line in lines}
        handles = [*series_handles(SERIES, series), *source_handles(sources)]
        finish(figure, material.heading, coverage(cells), material.synthetic, handles)
    return figure
