"""Singular values kept (LoRA-XS Tables 8–10), ΔW projected (Table 11): score against the fraction, a panel a module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lora_xs.reporting.cells import Cell
from lora_xs.reporting.figures.keys import series_handles, source_handles
from lora_xs.reporting.figures.lines import Line, draw_lines, lines_of
from lora_xs.reporting.figures.panels import WHISKERS, at, distinct, score_label, spare, titled
from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.figures.style import finish, label_edges, new_figure, styled
from lora_xs.reporting.labels import label
from lora_xs.reporting.material import Material, coverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FRACTION, SUBSET, MODULE, ANALYSIS = "retained_fraction", "subset", "module", "analysis"
SPECTRUM, PROJECTION = "spectrum", "projection"
WORDS = {
    SPECTRUM: "fraction of W's singular values kept in one kind of module, all layers",
    PROJECTION: "fraction of W's singular vectors that ΔW is projected on (log scale)",
}
AXES = {SPECTRUM: "fraction kept", PROJECTION: "fraction of vectors (log)"}


def retention(material: Material) -> list[Picture]:
    """A figure a task: modules are its panels."""
    cells = _cells(material, SPECTRUM)
    tasks = distinct(cells, "task")
    return [
        picture
        for (task,) in tasks
        for picture in _picture(material, at(cells, ["task"], [task]), SPECTRUM, task if len(tasks) > 1 else "")
    ]


def projection(material: Material) -> list[Picture]:
    """One figure: tasks are its rows, modules its columns."""
    return _picture(material, _cells(material, PROJECTION), PROJECTION, "")


def panels_of(cells: Sequence[Cell]) -> dict[tuple[str, str], list[Line]]:
    """The lines of each panel (task, module): top, middle and bottom."""
    return {(t, m): lines_of(at(cells, ["task", MODULE], [t, m]), SUBSET, FRACTION)
            for t, m in distinct(cells, "task", MODULE)}  # fmt: skip


def _cells(material: Material, analysis: str) -> list[Cell]:
    there = [cell for cell in material.cells if FRACTION in cell.place]
    return [cell for cell in there if cell.place.get(ANALYSIS, analysis) == analysis]


def _picture(material: Material, cells: Sequence[Cell], kind: str, task: str) -> list[Picture]:
    panels = panels_of(cells)
    if not any(panels.values()):
        return []
    heading = f"{material.heading} ({label('task', task)})" if task else material.heading
    caption = (
        f"{heading}. Score against the {WORDS[kind]}; lines are "
        f"the top, middle and bottom of the spectrum. {WHISKERS} {material.how}"
    )
    name = "-".join(filter(None, [material.name, kind, task]))
    return [Picture(name, kind, material.name, caption, _draw(material, cells, panels, kind, heading))]


def _draw(
    material: Material, cells: Sequence[Cell], panels: dict[tuple[str, str], list[Line]], kind: str, heading: str
) -> Figure:
    tasks = list(dict.fromkeys(task for task, _ in panels))
    modules = list(dict.fromkeys(module for _, module in panels))
    series = [value for (value,) in distinct(cells, SUBSET)]
    columns = min(3, len(modules)) if len(tasks) == 1 else len(modules)
    rows = -(-len(modules) // columns) if len(tasks) == 1 else len(tasks)
    with styled():
        figure, axes = new_figure(
            rows, columns, 0.95 + 1.85 * rows, sharex=True, sharey="row" if len(tasks) > 1 else True
        )
        for place, ((one_task, module), lines) in enumerate(panels.items()):
            at_task = (tasks.index(one_task), modules.index(module)) if len(tasks) > 1 else divmod(place, columns)
            one: Axes = axes[at_task[0]][at_task[1]]
            one.set_title(titled(("task", MODULE), (one_task if len(tasks) > 1 else "", module)))
            draw_lines(one, lines, series)
            _fractions(one, lines, kind)
        if len(tasks) == 1:
            spare(list(axes.flat)[len(panels) :])
        label_edges(axes, AXES[kind], score_label(cells))
        sources = {line.ours for lines in panels.values() for line in lines}
        handles = [*series_handles(SUBSET, series), *source_handles(sources)]
        finish(figure, heading, coverage(cells), material.synthetic, handles)
    return figure


def _fractions(axes: Axes, lines: Sequence[Line], kind: str) -> None:
    if kind == PROJECTION:
        axes.set_xscale("log")
        ticks = sorted({x for line in lines for x in line.x})
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()
