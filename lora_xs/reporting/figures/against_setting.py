"""Score against a setting that is a number: init samples (LoRA-SB v4), learning rates (our sensitivity search)."""

from __future__ import annotations

from dataclasses import dataclass

from lora_xs.reporting.cells import Cell
from lora_xs.reporting.figures.keys import series_handles, source_handles
from lora_xs.reporting.figures.lines import Line, draw_lines, lines_of
from lora_xs.reporting.figures.panels import at, distinct, score_label, spare, titled
from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.figures.style import finish, label_edges, new_figure, plain_log, styled
from lora_xs.reporting.labels import head
from lora_xs.reporting.material import Material, coverage


@dataclass(frozen=True)
class Setting:
    """kind: of the figure. x: the coordinate; series: what tells lines apart; panels: what tells panels apart."""

    kind: str
    x: str
    series: str
    panels: tuple[str, ...]


SAMPLES = Setting("samples", "init_samples", "method", ("model", "task"))
RATES = Setting("rates", "lr", "method", ("task",))


def samples(material: Material) -> list[Picture]:
    """Score against the rows that LoRA-SB's estimate sees."""
    return _pictures(material, SAMPLES)


def rates(material: Material) -> list[Picture]:
    """Score against the learning rate, a line a method."""
    return _pictures(material, RATES)


def panels_of(cells: list[Cell], setting: Setting) -> dict[str, list[Line]]:
    """The lines of each panel, by its title."""
    inside = [cell for cell in cells if setting.x in cell.place]
    return {
        titled(setting.panels, values): lines_of(at(inside, setting.panels, values), setting.series, setting.x)
        for values in distinct(inside, *setting.panels)
    }


def _pictures(material: Material, setting: Setting) -> list[Picture]:
    cells = [cell for cell in material.cells if setting.x in cell.place]
    panels = panels_of(cells, setting)
    if not any(panels.values()):
        return []
    with styled():
        columns = min(2, len(panels))
        rows = -(-len(panels) // columns)
        figure, axes = new_figure(rows, columns, 0.9 + 2.3 * rows if rows > 1 else 3.4)
        series = [value for (value,) in distinct(cells, setting.series)]
        for one, (title, lines) in zip(axes.flat, panels.items(), strict=False):
            plain_log(one, [x for line in lines for x in line.x])
            one.set_title(title)
            draw_lines(one, lines, series)
        spare(list(axes.flat)[len(panels) :])
        label_edges(axes, head(setting.x), score_label(cells))
        drawn = {line.series for lines in panels.values() for line in lines}
        sources = {line.ours for lines in panels.values() for line in lines}
        shown = [one for one in series if one in drawn]
        handles = [*series_handles(setting.series, shown, series), *source_handles(sources)]
        finish(figure, material.heading, coverage(cells), material.synthetic, handles)
    caption = f"{material.heading}. Score against {head(setting.x).lower()} (log scale), a panel a test. {material.how}"
    return [Picture(f"{material.name}-{setting.kind}", setting.kind, material.name, caption, figure)]
