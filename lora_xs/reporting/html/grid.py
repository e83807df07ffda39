"""A table for a browser: heads, bodies, and boxes that know what they sort by and where their number comes from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from lora_xs.reporting.cell_text import PARTS, number_text, signed, text_of
from lora_xs.reporting.cells import SETTING, Cell
from lora_xs.reporting.layout import Row
from lora_xs.reporting.published import number
from lora_xs.reporting.table import Table, own_notes, printed_notes

LEADING = re.compile(r"[+−-]?\d[\d,]*(\.\d+)?(?=$|\s)")
"""The number that a text begins with, as the page's script reads it too."""


@dataclass(frozen=True)
class Anchor:
    """cell: of a number in its table, made of what it is, to be cited. why: of the entry on what is behind it."""

    cell: str
    why: str


@dataclass(frozen=True)
class Box:
    """One box of a row. sort: its number in text, empty where there is none and where words sort. kind: label, count,
    ours, published or difference. status: of the cell; allowed: one standard error of the difference. marks: of
    footnotes. anchor: its own; why: the anchor of what is behind its number. small: said below."""

    text: str
    kind: str
    sort: str = ""
    status: str = ""
    allowed: str = ""
    marks: str = ""
    anchor: str = ""
    why: str = ""
    small: str = ""

    @property
    def sorts_apart(self) -> bool:
        """Whether a reader of the text (the page's script) would take it for another number, or for none."""
        start = LEADING.match(self.text)
        return (
            bool(self.marks)
            or start is None
            or not math.isclose(
                float(start[0].replace(",", "").replace("−", "-")), float(self.sort), rel_tol=0.02, abs_tol=0.006
            )
        )


@dataclass(frozen=True)
class Body:
    """Rows that are sorted among themselves. title: None where there is but one."""

    title: str | None
    rows: tuple[tuple[Box, ...], ...]


@dataclass(frozen=True)
class Grid:
    """labels: heads that stand for one column; groups: heads that stand for as many as `parts` has. naming: how many of
    the first columns name the row."""

    labels: tuple[str, ...]
    groups: tuple[str, ...]
    parts: tuple[str, ...]
    bodies: tuple[Body, ...]
    naming: int = 1

    @property
    def width(self) -> int:
        """Columns in all."""
        return len(self.labels) + len(self.groups) * len(self.parts)


def grid_of(table: Table, anchors: Mapping[int, Anchor]) -> Grid:
    """The table as laid out for print, ours and published in columns of their own. anchors: by a cell's id()."""
    laid = table.laid
    labels = list(laid.heads)
    if laid.has_parameters:
        labels += ["Parameters, ours", *(["Parameters, published"] if laid.has_published else [])]
    parts = PARTS if laid.has_published else PARTS[:1]
    bodies = (Body(block.title, tuple(_row(table, row, anchors) for row in block.rows)) for block in laid.blocks)
    return Grid(tuple(labels), laid.columns, parts, tuple(bodies), len(laid.heads))


def _row(table: Table, row: Row, anchors: Mapping[int, Anchor]) -> tuple[Box, ...]:
    laid = table.laid
    boxes = [Box(label, "label", sort_key(label)) for label in row.labels]
    if laid.has_parameters:
        ours = row.parameters
        boxes.append(Box(f"{ours:,}", "count", str(ours)) if ours is not None else Box("–", "count"))
        if laid.has_published:
            printed = row.printed_parameters
            boxes.append(Box(printed, "count", f"{number(printed, '', ''):g}") if printed else Box("–", "count"))
    for cell in row.cells:
        boxes += _boxes(table, cell, anchors)
    return tuple(boxes)


def _boxes(table: Table, cell: Cell | None, anchors: Mapping[int, Anchor]) -> list[Box]:
    if cell is None:
        return [Box("", part) for part in (PARTS if table.laid.has_published else PARTS[:1])]
    words, at = text_of(cell), anchors[id(cell)]
    ours = Box(words.ours, "ours", _sort(cell.ours), cell.status, "", table.marks(own_notes(cell)), at.cell, at.why)
    if not table.laid.has_published:
        return [ours]
    printed = cell.published
    theirs = Box(
        words.published, "published", _sort(printed.value if printed else None), cell.status,
        marks=table.marks(printed_notes(cell)),
    )  # fmt: skip
    allowed = cell.allowed if cell.metric != SETTING else None
    compared = Box(
        signed(cell.difference, cell) if cell.difference is not None else "", "difference", _sort(cell.difference),
        cell.status, number_text(allowed.standard_error, cell) if allowed is not None else "",
    )  # fmt: skip
    return [ours, theirs, compared]


def sort_key(text: str) -> str:
    """A label that is a number, as that number; of others, nothing."""
    try:
        return f"{float(text.replace(',', '')):.10g}"
    except ValueError:
        return ""


def _sort(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"
