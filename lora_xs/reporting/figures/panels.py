"""Panels of a figure: cells told apart by coordinates, in the order in which they stand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lora_xs.evaluation.direction import LOWER_IS_BETTER
from lora_xs.reporting.cells import Cell
from lora_xs.reporting.labels import metric_label, named
from lora_xs.reporting.published import AVERAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WHISKERS = "Whiskers: of ours the lowest and the highest seed, of published numbers the ± that is printed."


def distinct(cells: Iterable[Cell], *keys: str) -> list[tuple[str, ...]]:
    """The values of these coordinates, each combination once, in order; empty text where a cell has none."""
    return list(dict.fromkeys(tuple(cell.place.get(key, "") for key in keys) for cell in cells))


def at(cells: Iterable[Cell], keys: Sequence[str], values: Sequence[str]) -> list[Cell]:
    """The cells that have these values."""
    return [cell for cell in cells if all(cell.place.get(k, "") == v for k, v in zip(keys, values, strict=True))]


def headline(cells: Sequence[Cell]) -> list[Cell]:
    """The averages where a paper prints them, otherwise every cell."""
    averages = [cell for cell in cells if cell.place.get("task") == AVERAGE]
    printed = [cell for cell in averages if cell.published is not None]
    return printed or [cell for cell in cells if cell not in averages]


def titled(keys: Sequence[str], values: Sequence[str]) -> str:
    """A panel's title."""
    return ", ".join(filter(None, (named(k, v) for k, v in zip(keys, values, strict=True))))


def score_label(cells: Iterable[Cell]) -> str:
    """What a score's axis says: its metric where runs tell it."""
    metrics = list(dict.fromkeys(cell.metric for cell in cells if cell.metric))
    if metrics and metrics[0] in LOWER_IS_BETTER:
        return f"{metric_label(metrics[0])} (nats), lower is better"
    return f"{metric_label(metrics[0])} (points)" if len(metrics) == 1 else "score (points)"


def is_loss(cells: Iterable[Cell]) -> bool:
    """Whether less is better."""
    return any(cell.metric in LOWER_IS_BETTER for cell in cells)


def spare(axes: Iterable[Axes]) -> None:
    """Take away axes that no panel needs."""
    for one in axes:
        one.remove()
