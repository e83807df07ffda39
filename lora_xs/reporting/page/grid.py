"""A table as the page shows it: header, blocks and rows of boxes, sortable, each with its origin."""

from __future__ import annotations

from dataclasses import dataclass

from lora_xs.reporting.cell_text import text_of
from lora_xs.reporting.cells import Cell
from lora_xs.reporting.layout import Row
from lora_xs.reporting.table import Table, own_notes, printed_notes

PARTS = ("ours", "published", "difference")


@dataclass(frozen=True)
class Box:
    """One `<td>`. value: what it is sorted by (None: last). kind: label, count, or one of PARTS. status: of its cell.
    anchor: where its provenance is told. notes: numbers of footnotes."""

    text: str
    kind: str
    value: float | str | None = None
    status: str = ""
    anchor: str = ""
    notes: str = ""


@dataclass(frozen=True)
class Group:
    """A column of the table, made of several of the page: `ours`, `published`, `difference`."""

    title: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Rows:
    """The rows below one title; None: there is but one block."""

    title: str | None
    rows: tuple[tuple[Box, ...], ...]


@dataclass(frozen=True)
class Grid:
    """labels: heads of the row labels. groups: of the numbers. width: columns of the page in all."""

    labels: tuple[str, ...]
    groups: tuple[Group, ...]
    blocks: tuple[Rows, ...]

    @property
    def width(self) -> int:
        """Columns in all."""
        return len(self.labels) + sum(len(group.parts) for group in self.groups)


def grid_of(table: Table, anchors: dict[int, str]) -> Grid:
    """The table's grid. anchors: the anchor of each cell's provenance, by the cell's `id`."""
    laid = table.laid
    groups = []
    if laid.has_parameters:
        groups.append(Group("Parameters", PARTS[:2] if laid.has_published else PARTS[:1]))
    groups += [Group(name, PARTS if laid.has_published else PARTS[:1]) for name in laid.columns]
    blocks = [Rows(block.title, tuple(_row(table, row, anchors) for row in block.rows)) for block in laid.blocks]
    return Grid(laid.heads, tuple(groups), tuple(blocks))


def _row(table: Table, row: Row, anchors: dict[int, str]) -> tuple[Box, ...]:
    boxes = [Box(label, "label", _number(label)) for label in row.labels]
    if table.laid.has_parameters:
        ours = f"{row.parameters:,}" if row.parameters is not None else "–"
        boxes.append(Box(ours, "count", row.parameters))
        if table.laid.has_published:
            boxes.append(Box(row.printed_parameters or "–", "published", _count(row.printed_parameters)))
    for cell in row.cells:
        boxes += _boxes(table, cell, anchors)
    return tuple(boxes)


def _boxes(table: Table, cell: Cell | None, anchors: dict[int, str]) -> list[Box]:
    two = table.laid.has_published
    if cell is None:
        return [Box("", part) for part in (PARTS if two else PARTS[:1])]
    text, status, anchor = text_of(cell), cell.status, anchors.get(id(cell), "")
    ours = Box(text.ours, "ours", cell.ours, status, anchor, table.marks(own_notes(cell)))
    if not two:
        return [ours]
    printed = cell.published.value if cell.published is not None else None
    return [
        ours,
        Box(text.published, "published", printed, status, "", table.marks(printed_notes(cell))),
        Box(text.comparison, "difference", cell.difference, status),
    ]


def _number(text: str) -> float | str:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return text


def _count(text: str | None) -> float | None:
    """`1.2M` as 1,200,000."""
    if not text:
        return None
    scale = {"K": 1e3, "M": 1e6, "B": 1e9}.get(text[-1].upper(), 1.0)
    found = _number(text if scale == 1.0 else text[:-1])
    return found * scale if isinstance(found, float) else None
