"""Score against a setting that is a number: init samples (LoRA-SB v4), learning rates (our sensitivity search)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_xs.reporting.cells import Cell
from lora_xs.reporting.figures.keys import series_handles, source_handles
from lora_xs.reporting.figures.lines import Line, draw_lines, lines_of
from lora_xs.reporting.figures.panels import WHISKERS, at, distinct, is_loss, score_label, spare, titled
from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.figures.style import BLACK, finish, label_edges, new_figure, plain_log, styled
from lora_xs.reporting.labels import head, label
from lora_xs.reporting.material import Material, coverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Setting:
    """kind: of the figure. x: the coordinate; series: what tells lines apart; panels: what tells panels apart. apart:
    by which a series may be several lines. best: whether each line's best point is marked."""

    kind: str
    x: str
    series: str
    panels: tuple[str, ...]
    apart: str = ""
    best: bool = False


SAMPLES = Setting("samples", "init_samples", "method", ("model", "task"))
RATES = Setting("rates", "lr", "method", ("task",), "rank", True)
ROWS = "task.train_rows="


def samples(material: Material) -> list[Picture]:
    """Score against the rows that LoRA-SB's estimate sees."""
    return _pictures(material, SAMPLES)


def rates(material: Material) -> list[Picture]:
    """Score against the learning rate, a line a method and, of a method with several, a rank."""
    return _pictures(material, RATES)


def panels_of(cells: list[Cell], setting: Setting) -> dict[str, list[Line]]:
    """The lines of each panel, by its title."""
    inside = [cell for cell in cells if setting.x in cell.place]
    return {
        titled(setting.panels, values): lines_of(
            at(inside, setting.panels, values), setting.series, setting.x, apart=setting.apart
        )
        for values in distinct(inside, *setting.panels)
    }


def _pictures(material: Material, setting: Setting) -> list[Picture]:
    cells = [cell for cell in material.cells if setting.x in cell.place]
    panels = panels_of(cells, setting)
    if not any(panels.values()):
        return []
    how = _how_little(material) if material.source == "ours" else ""
    with styled():
        columns = min(2, len(panels))
        rows = -(-len(panels) // columns)
        figure, axes = new_figure(rows, columns, 0.9 + 2.3 * rows if rows > 1 else 3.4)
        series = [value for (value,) in distinct(cells, setting.series)]
        for one, (title, lines) in zip(axes.flat, panels.items(), strict=False):
            plain_log(one, [x for line in lines for x in line.x])
            one.set_title(", ".join(filter(None, (title, how))))
            draw_lines(one, lines, series)
            if setting.best:
                _ring_best(one, lines, is_loss(cells))
        spare(list(axes.flat)[len(panels) :])
        label_edges(axes, head(setting.x), score_label(cells))
        drawn = {line.series for lines in panels.values() for line in lines}
        sources = {line.ours for lines in panels.values() for line in lines}
        shown = [one for one in series if one and one in drawn]  # a single line needs no name
        handles = [*series_handles(setting.series, shown, series), *source_handles(sources)]
        handles += [_ring_handle()] if setting.best else []
        notes = [*coverage(material.cells), *_without(material, setting)]
        finish(figure, material.heading, notes, material.synthetic, handles)
    ringed = " Rings are each line's best." if setting.best else ""
    caption = (
        f"{material.heading}. Score against {head(setting.x).lower()} (log scale), a panel a test"
        f"{f' ({how})' if how else ''}.{ringed} {' '.join(_without(material, setting))} {WHISKERS} {material.how}"
    )
    return [Picture(f"{material.name}-{setting.kind}", setting.kind, material.name, caption, figure)]


def _how_little(material: Material) -> str:
    """`1,000 training rows, one seed`: what a reader of the picture alone must know of small runs of ours."""
    found = {word.removeprefix(ROWS) for run in material.trained for word in run.overrides if word.startswith(ROWS)}
    rows = f"{int(found.pop()):,} training rows" if len(found) == 1 else ""
    seeds = max((cell.planned for cell in material.cells), default=0)
    return ", ".join(filter(None, (rows, "one seed" if seeds == 1 else f"{seeds} seeds" if seeds else "")))


def _without(material: Material, setting: Setting) -> list[str]:
    """Series that have a number and no place on the axis, at their best."""
    left: dict[str, list[Cell]] = {}
    for cell in material.cells:
        if setting.x not in cell.place and setting.series in cell.place and cell.ours is not None:
            left.setdefault(cell.place[setting.series], []).append(cell)
    words = []
    for series, cells in left.items():
        best = (min if is_loss(cells) else max)(cells, key=lambda cell: cell.ours or 0.0)
        at_best = ", ".join(
            f"{head(key)} {value}" for key, value in best.place.items() if key not in (setting.series, *setting.panels)
        )
        name, x = label(setting.series, series), head(setting.x)
        words.append(f"Not drawn, without {x}: {name}, {best.ours:.2f} at its best ({at_best}).")
    return words


def _ring_best(axes: Axes, lines: Sequence[Line], lower_is_better: bool) -> None:
    for line in lines:
        best = (min if lower_is_better else max)(range(len(line.y)), key=lambda place: line.y[place])
        axes.plot([line.x[best]], [line.y[best]], gid="best", zorder=3, **RING)


def _ring_handle() -> object:
    from matplotlib.lines import Line2D

    return Line2D([], [], label="best of a line", **RING)


RING: dict[str, Any] = {
    **{"linestyle": "", "marker": "o", "markersize": 9.5, "markerfacecolor": "none", "markeredgecolor": BLACK},
    "markeredgewidth": 0.8,
}
