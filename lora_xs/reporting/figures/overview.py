"""mini_glue in one panel, for those who see nothing else: the mean score over tasks against trained parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_xs.reporting.averages import average_by_seed
from lora_xs.reporting.cells import Cell
from lora_xs.reporting.figures.panels import score_label
from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.figures.style import GREY, finish, look_of, new_figure, plain_log, styled
from lora_xs.reporting.labels import label
from lora_xs.reporting.material import Material
from lora_xs.reporting.published import AVERAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KIND = "overview"
MODEL = "MiniLM"
LEVELS = ("full_ft", "head_only")
"""Methods without a place on the axis of parameters that others share: all of the model, and none of it."""
COUNTS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
NEAR, STEP = 1.15, 1.18  # counts within this factor share a place; there, one stands so far from the next
LEAST = 4.0  # points between the lowest and the highest statistic, for what counts as far below them
LETTERS = 7.5  # points: larger than in other figures, this one is shown small
Series = tuple[str, str]


@dataclass(frozen=True)
class Mark:
    """A method at a rank. x: where it is drawn; parameters: what it trains. score: the statistic of `seeds`."""

    method: str
    rank: str
    parameters: int
    x: float
    score: float
    seeds: tuple[float, ...]


@dataclass(frozen=True)
class View:
    """What is drawn. tasks: those averaged over; others: those that lack runs. missing: series without a number.
    marks: in order of parameters; levels: cells of LEVELS that have numbers, by method. low, high: of the axis."""

    tasks: tuple[str, ...]
    others: tuple[str, ...]
    missing: tuple[Series, ...]
    marks: tuple[Mark, ...]
    levels: dict[str, Cell]
    low: float
    high: float


def overview(material: Material) -> list[Picture]:
    """One figure; none without runs."""
    view = view_of(material)
    if view is None:
        return []
    one = len(view.tasks) == 1
    where = label("task", view.tasks[0]) if one else f"{COUNTS.get(len(view.tasks), len(view.tasks))} GLUE tasks"
    overrides = f" [{' '.join(material.overrides)}]" if material.overrides else ""
    title = f"{MODEL} on {where}: {'score' if one else 'mean score'} against trained parameters{overrides}"
    mean = "" if one else f" A seed's score is its mean over {_listed(view.tasks)}."
    caption = (
        f"{title}. Trained parameters are those without the head (log scale); methods of the same count stand side by "
        f"side. Small dots are seeds, large markers their {material.cells[0].statistic}.{mean} The line across is full "
        f"fine-tuning, the band its seeds. {' '.join(_notes(view))} {material.how}"
    )
    return [Picture(f"{material.name}-{KIND}", KIND, material.name, caption, _draw(material, view, title))]


def view_of(material: Material) -> View | None:
    """The tasks that as many methods and ranks have runs of as of any task, and every method's number over these."""
    seeds = {run.signature: run.seed for run in material.runs}
    cells = [c for c in material.cells if "method" in c.place and c.place.get("task", AVERAGE) != AVERAGE]
    tasks = list(dict.fromkeys(cell.place["task"] for cell in cells))
    there = {task: {_series(c) for c in cells if c.place["task"] == task and c.ours is not None} for task in tasks}
    fullest = max(there.values(), key=len, default=set())
    chosen = [task for task in tasks if there[task] == fullest]
    rows: dict[Series, list[Cell]] = {}
    for cell in cells:
        if cell.place["task"] in chosen:
            rows.setdefault(_series(cell), []).append(cell)
    means = {series: average_by_seed(row, seeds) for series, row in rows.items()}
    found = {series: mean for series, mean in means.items() if mean.ours is not None}
    marks = _side_by_side([one for series, mean in found.items() if (one := _mark(series, mean)) is not None])
    if not marks:
        return None
    levels = {method: mean for (method, _), mean in found.items() if method in LEVELS}
    low, high = _bounds(marks, levels.get("full_ft"))
    return View(
        tuple(chosen), tuple(task for task in tasks if task not in chosen),
        tuple(series for series in means if series not in found), tuple(marks), levels, low, high,
    )  # fmt: skip


def _series(cell: Cell) -> Series:
    return cell.place["method"], cell.place.get("rank", "")


def _mark(series: Series, mean: Cell) -> Mark | None:
    if series[0] in LEVELS or mean.ours is None or not mean.parameters:
        return None
    seeds = tuple(reading.value for reading in mean.readings)
    return Mark(*series, mean.parameters, float(mean.parameters), mean.ours, seeds)


def _side_by_side(marks: Sequence[Mark]) -> list[Mark]:
    """Marks in order of parameters; those at one place moved apart around it."""
    groups: list[list[Mark]] = []
    for mark in sorted(marks, key=lambda one: one.parameters):
        if groups and mark.parameters < NEAR * groups[-1][0].parameters:
            groups[-1].append(mark)
        else:
            groups.append([mark])
    return [
        Mark(m.method, m.rank, m.parameters, m.parameters * STEP ** (place - (len(group) - 1) / 2), m.score, m.seeds)
        for group in groups
        for place, m in enumerate(group)
    ]


def _bounds(marks: Sequence[Mark], full: Cell | None) -> tuple[float, float]:
    """The axis: all statistics, and seeds as far as they leave these apart; a seed that collapsed lies below it."""
    middles = [mark.score for mark in marks] + ([full.ours] if full is not None and full.ours is not None else [])
    span = max(max(middles) - min(middles), LEAST)
    seeds = [one for mark in marks for one in mark.seeds] + [r.value for r in (full.readings if full else ())]
    low = min(value for value in (*middles, *seeds) if value >= min(middles) - 0.5 * span)
    high = max(*middles, *seeds)
    return low - 0.08 * (high - low), high + 0.06 * (high - low)


def _notes(view: View) -> list[str]:
    counts = {len(mark.seeds) for mark in view.marks}
    seeds = f"{min(counts)}" + (f" to {max(counts)}" if len(counts) > 1 else "")
    notes = [f"Our runs, {seeds} seed{'' if counts == {1} else 's'} each."]
    if view.others:
        notes[0] += f" {_listed(view.tasks)} alone; not run by every method: {_listed(view.others)}."
    if view.missing:
        notes.append(f"Not run: {', '.join(_named(series) for series in view.missing)}.")
    head = view.levels.get("head_only")
    if head is not None and head.ours is not None and head.ours < view.low:
        notes.append(f"The head alone, no adapter: {head.ours:.1f}, below the axis.")
    below = [(mark, seed) for mark in view.marks for seed in mark.seeds if seed < view.low]
    if below:
        told = ", ".join(f"{_named((mark.method, mark.rank))} at {seed:.1f}" for mark, seed in below)
        notes.append(f"Seeds below the axis (arrows): {told}.")
    return notes


def _named(series: Series) -> str:
    method, rank = series
    return label("method", method) + (f" r={rank}" if rank else "")


def _listed(tasks: Sequence[str]) -> str:
    return ", ".join(label("task", task) for task in tasks)


def _draw(material: Material, view: View, title: str) -> Figure:
    methods = list(dict.fromkeys(mark.method for mark in view.marks))
    with styled():
        figure, ((axes,),) = new_figure(1, 1, 4.3)
        plain_log(axes, [mark.x for mark in view.marks])
        axes.set_xlim(min(mark.x for mark in view.marks) / 1.6, max(mark.x for mark in view.marks) * 3.2)
        axes.set_ylim(view.low, view.high)
        axes.tick_params(labelsize=LETTERS)
        axes.set_xlabel("trained parameters, without the head", fontsize=LETTERS + 1)
        cells = [c for c in material.cells if c.place.get("task") in view.tasks]
        one = f"{label('task', view.tasks[0])}: " if len(view.tasks) == 1 else "mean "
        axes.set_ylabel(one + score_label(cells), fontsize=LETTERS + 1)
        _draw_levels(axes, view)
        for method in methods:
            _draw_method(axes, [mark for mark in view.marks if mark.method == method], methods, view.low)
        _name_ranks(axes, view)
        finish(figure, title, _notes(view), material.synthetic, _handles(material))
        _name_methods(axes, view)
    return figure


def _draw_levels(axes: Axes, view: View) -> None:
    for method, cell in view.levels.items():
        if cell.ours is None or not view.low <= cell.ours <= view.high:
            continue
        colour = look_of(method, ()).colour
        seeds = [reading.value for reading in cell.readings]
        axes.axhspan(min(seeds), max(seeds), color=GREY, alpha=0.1, linewidth=0, gid="level's seeds")
        axes.axhline(cell.ours, color=colour, linewidth=1.0, zorder=1, gid="level")
        count = f", {cell.parameters / 1e6:.1f}M parameters" if cell.parameters else ""
        name = {"full_ft": "full fine-tuning", "head_only": "the head alone"}[method]
        axes.annotate(
            f"{name}{count}", (0.008, cell.ours), xycoords=("axes fraction", "data"), xytext=(0, 2.5),
            textcoords="offset points", fontsize=LETTERS, va="bottom", color=colour,
        )  # fmt: skip


def _draw_method(axes: Axes, inside: Sequence[Mark], methods: Sequence[str], low: float) -> None:
    look = look_of(inside[0].method, methods)
    axes.plot(
        [mark.x for mark in inside], [mark.score for mark in inside], color=look.colour, marker=look.marker,
        markersize=8, markeredgecolor="white", markeredgewidth=0.8, linewidth=1.3, zorder=3, gid="ours",
    )  # fmt: skip
    for mark in inside:
        shown = [seed for seed in mark.seeds if seed >= low]
        axes.plot(
            [mark.x] * len(shown), shown, linestyle="", marker=".", markersize=5.5, markeredgewidth=0,
            color=look.colour, alpha=0.85, zorder=2, gid="seeds",
        )  # fmt: skip
        if len(shown) < len(mark.seeds):
            axes.annotate(
                "", (mark.x, 0.0), xytext=(mark.x, 0.055), xycoords=("data", "axes fraction"),
                textcoords=("data", "axes fraction"),
                arrowprops={"arrowstyle": "-|>", "color": look.colour, "linewidth": 1.1},
            )  # fmt: skip


def _name_ranks(axes: Axes, view: View) -> None:
    """The rank of each mark of a method with several: above it, or below where another of its place lies higher."""
    several = [mark for mark in view.marks if sum(one.method == mark.method for one in view.marks) > 1]
    for mark in several:
        below = any(one.parameters == mark.parameters and one.score > mark.score for one in several)
        axes.annotate(
            f"r={mark.rank}", (mark.x, mark.score), xytext=(0, -6.5 if below else 6.5), textcoords="offset points",
            ha="center", va="top" if below else "bottom", fontsize=LETTERS - 1, color="#333333", path_effects=_halo(),
        )  # fmt: skip


def _halo() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.0, foreground="white")]


def _name_methods(axes: Axes, view: View) -> None:
    """Each method's name right of its largest mark, those of one place above each other."""
    last = {mark.method: mark for mark in view.marks}  # in order of parameters
    places: dict[float, list[Mark]] = {}
    for mark in sorted(last.values(), key=lambda one: one.x):
        near = next((x for x in places if mark.x < x * NEAR * STEP**2), mark.x)
        places.setdefault(near, []).append(mark)
    height = axes.get_window_extent().height / axes.figure.dpi * 72
    gap = 1.25 * LETTERS / height * (view.high - view.low)
    for group in places.values():
        right = max(mark.x for mark in group)
        for mark, y in zip(sorted(group, key=lambda one: one.score), _apart(group, gap), strict=True):
            colour = look_of(mark.method, ()).colour
            axes.plot([mark.x, right * 1.22, right * 1.3], [mark.score, y, y], color=colour, linewidth=0.6, zorder=1.5)
            axes.text(
                right * 1.33, y, label("method", mark.method), fontsize=LETTERS + 0.5, va="center", gid="name",
                fontweight="bold", color="#222222", path_effects=_halo(),
            )  # fmt: skip


def _apart(group: Sequence[Mark], gap: float) -> list[float]:
    """Heights of names, lowest first: as near to their marks as `gap` between them allows."""
    heights = sorted(mark.score for mark in group)
    for _ in range(50):
        for place in range(len(heights) - 1):
            lacking = gap - (heights[place + 1] - heights[place])
            if lacking > 0:
                heights[place] -= lacking / 2
                heights[place + 1] += lacking / 2
    return heights


def _handles(material: Material) -> list[object]:
    from matplotlib.lines import Line2D

    plain: dict[str, Any] = {"linestyle": "", "color": GREY, "markeredgewidth": 0}
    return [
        Line2D([], [], marker="o", markersize=7, label=f"{material.cells[0].statistic} of seeds", **plain),
        Line2D([], [], marker=".", markersize=5, label="a seed", **plain),
    ]
