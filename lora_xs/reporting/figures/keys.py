"""Legends: what each colour, marker and line stands for, and which of them are ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lora_xs.reporting.figures.style import BLACK, GREY, Look, look_of, marks, series_label


def series_handles(key: str, series: Sequence[str], among: Sequence[str] | None = None) -> list[Any]:
    """A marker a series."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], linestyle="", **_plain(look_of(one, among or series)), label=series_label(key, one))
        for one in series
    ]


def source_handles(sources: Iterable[bool]) -> list[Any]:
    """`ours` (True) and `published` (False), as far as there are any."""
    from matplotlib.lines import Line2D

    there = set(sources)
    kinds = [ours for ours in (True, False) if ours in there]
    handles = []
    for ours in kinds:
        look = marks(Look(GREY, "o", ""), ours)
        handles.append(Line2D([], [], **look, label="ours (filled, solid)" if ours else "published (hollow, dashed)"))
    return handles


def bar_handles(key: str, series: Sequence[str]) -> list[Any]:
    """A filled, hatched box a series."""
    from matplotlib.patches import Patch

    return [Patch(**bar_marks(look_of(one, series), True), label=series_label(key, one)) for one in series]


def bar_source_handles(sources: Iterable[bool]) -> list[Any]:
    """`ours` and `published` as boxes."""
    from matplotlib.patches import Patch

    there = set(sources)
    words = {True: "ours (filled)", False: "published (hollow, dashed)"}
    return [Patch(**bar_marks(Look(GREY, "o", ""), ours), label=words[ours]) for ours in (True, False) if ours in there]


def bar_marks(look: Look, ours: bool) -> dict[str, Any]:
    """Keywords of a bar: ours filled with the series' hatch, published hollow with a dashed edge."""
    if ours:
        return {"facecolor": look.colour, "edgecolor": "white", "hatch": look.hatch, "linewidth": 0.0, "gid": "ours"}
    edge = look.colour if look.colour != BLACK else GREY
    return {"facecolor": "white", "edgecolor": edge, "linestyle": (0, (4, 2)), "linewidth": 1.1, "gid": "published"}


def _plain(look: Look) -> dict[str, Any]:
    return {"color": look.colour, "marker": look.marker, "markeredgecolor": look.colour}
