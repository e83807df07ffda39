"""How figures look: one palette for the colour-blind, a marker and a hatch to each colour, ours filled and solid,
published hollow and dashed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_xs.reporting.labels import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.0  # inches: a page's text width, so that print shows the sizes below
SMALL, TEXT = 6.5, 8.0  # points
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
"""Okabe and Ito's palette."""
GREY, PALE = "#6F6F6F", "#DDDDDD"
RC: dict[str, Any] = {
    **{"font.family": "DejaVu Sans", "font.size": TEXT, "axes.titlesize": TEXT, "axes.labelsize": TEXT},
    **{"xtick.labelsize": SMALL, "ytick.labelsize": SMALL, "legend.fontsize": SMALL, "figure.titlesize": TEXT + 1},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": PALE},
    **{"grid.linewidth": 0.4, "axes.axisbelow": True, "lines.linewidth": 1.2, "lines.markersize": 4.5},
    **{"axes.linewidth": 0.6, "hatch.linewidth": 0.5, "legend.frameon": False, "axes.titlelocation": "left"},
    **{"pdf.fonttype": 42, "savefig.dpi": 200, "figure.dpi": 100, "text.usetex": False, "axes.unicode_minus": True},
}


@dataclass(frozen=True)
class Look:
    """What tells a series apart, twice over: without colour, marker and hatch still do."""

    colour: str
    marker: str
    hatch: str


LOOKS: dict[str, Look] = {
    "lora_xs": Look(VERMILLION, "o", "////"),
    "lora_sb": Look(GREEN, "s", r"\\\\"),
    "lora": Look(BLUE, "^", ""),
    "vera": Look(PURPLE, "D", "xxxx"),
    "rslora": Look(SKY, "v", "...."),
    "pissa": Look(ORANGE, "P", "----"),
    "full_ft": Look(BLACK, "*", "++++"),
    "head_only": Look(GREY, "X", "||||"),
    "dora": Look(GREY, "<", "oooo"),
    "lora_pro": Look(GREY, ">", "OOOO"),
    "svd_w": Look(VERMILLION, "o", "////"),
    "random": Look(BLUE, "^", ""),
    "svd_random": Look(ORANGE, "s", r"\\\\"),
    "top": Look(VERMILLION, "o", "////"),
    "middle": Look(GREEN, "s", r"\\\\"),
    "bottom": Look(BLUE, "^", ""),
}
SPARE = (
    *(Look(VERMILLION, "o", "////"), Look(BLUE, "^", ""), Look(GREEN, "s", r"\\\\"), Look(ORANGE, "D", "xxxx")),
    *(Look(PURPLE, "v", "...."), Look(BLACK, "P", "----"), Look(SKY, "X", "++++")),
)


def look_of(series: str, among: Sequence[str]) -> Look:
    """The look of a series; one without a look of its own has that of its place among its neighbours."""
    return LOOKS.get(series) or SPARE[list(among).index(series) % len(SPARE)]


@contextmanager
def styled() -> Iterator[None]:
    """Everything drawn or saved inside has this style, whatever the user's matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)  # type: ignore[arg-type]
        yield


def new_figure(rows: int, columns: int, height: float, **keywords: Any) -> tuple[Figure, Any]:
    """A figure of the page's width and an array of its axes `[rows, columns]`; belongs to no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **keywords)


def finish(
    figure: Figure, title: str, notes: Sequence[str], synthetic: bool, handles: Sequence[Any] = (), columns: int = 6
) -> None:
    """Title and legend above the panels, notes (what is missing) below, SYNTHETIC across where a test made the records.

    handles: of the in `columns` columns.
    """
    height = figure.get_figheight()
    rows = -(-len(handles) // columns)
    heads, lines = textwrap.wrap(title, 100), [line for note in notes for line in textwrap.wrap(note, 128)]
    titled = (0.08 + 0.15 * len(heads)) / height
    keys = (0.05 + 0.155 * rows) / height if handles else 0.0
    bottom = (0.06 + 0.115 * len(lines)) / height if lines else 0.0
    engine = figure.get_layout_engine()
    engine.set(rect=(0.005, bottom, 0.99, 1 - bottom - titled - keys))  # type: ignore[union-attr, call-arg]
    figure.text(0.01, 1 - 0.06 / height, "\n".join(heads), fontsize=TEXT, fontweight="bold", va="top", gid="title")
    if handles:
        figure.legend(
            handles=list(handles), loc="upper left", bbox_to_anchor=(0.005, 1 - titled),
            ncols=-(-len(handles) // rows),
            handlelength=2.4, columnspacing=1.4, borderaxespad=0.0, borderpad=0.1,
        )  # fmt: skip
    if lines:
        figure.text(0.01, 0.03 / height, "\n".join(lines), fontsize=SMALL, color="#333333", va="bottom", gid="notes")
    if synthetic:
        figure.text(
            0.5, 0.5, "SYNTHETIC", fontsize=52, color=VERMILLION, alpha=0.22, rotation=24, ha="center", va="center",
            fontweight="bold", gid="synthetic", zorder=100,
        )  # fmt: skip
    engine.execute(figure)  # type: ignore[union-attr]
    figure.set_layout_engine("none")


def label_edges(axes: Any, x: str = "", y: str = "") -> None:
    """Labels for axes that panels share: below the lowest panel of each column, left of the first of each row.

    axes: `[rows, columns]`, some of which may have been removed.
    """
    rows, columns = axes.shape
    for column in range(columns):
        there = [axes[row][column] for row in range(rows) if axes[row][column].figure is not None]
        if there and x:
            there[-1].set_xlabel(x)
            there[-1].tick_params(labelbottom=True)
    for row in range(rows):
        if y and axes[row][0].figure is not None:
            axes[row][0].set_ylabel(y)


def plain_log(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis over `values`, with ticks as 1k, 1M, of rates as 0.001; at 1, 2 and 5 of few decades."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    few = bool(values) and max(values) < 300 * min(values)
    if values and max(values) == min(values):
        axes.set_xlim(values[0] / 2, values[0] * 2)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=12))
    rates = bool(values) and max(values) < 1
    axes.xaxis.set_major_formatter(FuncFormatter(_spelt) if rates else EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _spelt(value: float, place: float) -> str:
    """A rate as configs write it: 0.0005, 1e-05."""
    return f"{value:g}"


def hatch_off(axes: Axes, words: str) -> None:
    """An empty panel that says why it is empty."""
    axes.text(
        *(0.5, 0.5, words), transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=TEXT, gid="gap"
    )


def series_label(key: str, value: str) -> str:
    """A series as the legend names it."""
    return label(key, value) or value


def marks(look: Look, ours: bool) -> dict[str, Any]:
    """Keywords of a line with markers: ours filled and solid, published hollow and dashed."""
    return {
        **{"color": look.colour, "marker": look.marker, "linestyle": "-" if ours else (0, (4, 2))},
        **{"markerfacecolor": look.colour if ours else "white", "markeredgecolor": look.colour},
        **{"markeredgewidth": 0.9, "gid": "ours" if ours else "published"},
    }
