"""How an experiment's cells stand on paper: blocks, rows, columns, in the order of print. One rule, few exceptions.

The rule: a coordinate with one value goes into the caption. Columns are quantities, epochs or, in a grid of rates, the
classifier's rates; otherwise tasks. Grids have a block for each thing compared, curves one a task, others one a model.
What is left are rows, in the order of the published file's columns; a method's row says what it trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lora_xs.reporting.cells import Cell
from lora_xs.reporting.labels import head, label, metric_label, named
from lora_xs.reporting.published import same

Key = tuple[str, ...]


@dataclass(frozen=True)
class Shape:
    """Which coordinates make blocks, rows and columns, outermost first."""

    blocks: Key
    rows: Key
    columns: Key


RETENTION = Shape(("retained_fraction",), ("module",), ("subset",))
EXCEPTIONS = {
    "table06_runtime": Shape((), ("rank",), ("method",)),
    "table08_singular_value_retention_mrpc": RETENTION,
    "table09_singular_value_retention_sst2": RETENTION,
    "table10_singular_value_retention_mnli": RETENTION,
    "table11_delta_projection": Shape(("module",), ("retained_fraction", "subset"), ("task",)),
    "mini_spectrum": Shape(("task", "analysis", "module"), ("retained_fraction",), ("subset",)),
    "sb_table_v4_init_samples": Shape((), ("init_samples",), ("model", "task")),
}
COMPARED = ("task", "init", "singular_vectors", "a_init")
"""What the blocks of a grid of rates differ in."""
RATES = ("lr", "classifier_lr")
"""The rates of such a grid, down and across."""


@dataclass(frozen=True)
class Row:
    """labels: one a head. printed_parameters: trainable parameters as published; parameters: as our records have
    them, without the head. cells: one a column, None where there is neither a published number nor a run."""

    labels: tuple[str, ...]
    cells: tuple[Cell | None, ...]
    printed_parameters: str | None = None
    parameters: int | None = None


@dataclass(frozen=True)
class Block:
    """Rows below a title; None: the table has but one block."""

    title: str | None
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Laid:
    """A table's layout. heads: of the row labels. constants: coordinates that are the same everywhere, as printed."""

    heads: tuple[str, ...]
    columns: tuple[str, ...]
    blocks: tuple[Block, ...]
    constants: tuple[str, ...]

    @property
    def rows(self) -> list[Row]:
        """All rows, of all blocks."""
        return [row for block in self.blocks for row in block.rows]

    @property
    def has_parameters(self) -> bool:
        """Whether any row says how much it trains."""
        return any(row.printed_parameters is not None or row.parameters is not None for row in self.rows)

    @property
    def has_published(self) -> bool:
        """Whether any cell is printed in a paper."""
        return any(cell is not None and cell.published is not None for row in self.rows for cell in row.cells)


def lay_out(name: str, cells: Sequence[Cell]) -> Laid:
    """The cells of experiment `name`, arranged; raises ValueError where two of them fall on one place."""
    values = _values([cell.place for cell in cells])
    shape = EXCEPTIONS.get(name) or shape_of(values)
    columns = _distinct(cells, shape.columns)
    blocks = _distinct(cells, shape.blocks)
    grid: dict[tuple[Key, Key, Key], Cell] = {}
    for cell in cells:
        where = (_at(cell, shape.blocks), _at(cell, shape.rows), _at(cell, shape.columns))
        if where in grid:
            raise ValueError(f"{name}: {dict(cell.place)} and {dict(grid[where].place)} fall on one place")
        grid[where] = cell
    laid = []
    for block in blocks:
        inside = [cell for cell in cells if _at(cell, shape.blocks) == block]
        rows = [_row(shape, grid, block, row, columns) for row in _distinct(inside, shape.rows)]
        laid.append(Block(_words(shape.blocks, block) or None, tuple(rows)))
    shown = {*shape.blocks, *shape.rows, *shape.columns}
    constants = tuple(named(key, found[0]) for key, found in values.items() if key not in shown)
    heads = tuple(head(key) for key in shape.rows)
    return Laid(heads, _column_labels(shape.columns, columns, cells), tuple(laid), constants)


def shape_of(values: Mapping[str, Sequence[str]]) -> Shape:
    """The rule. values: of each coordinate, in the published file's order."""
    varies = [key for key, found in values.items() if len(found) > 1]
    columns: Key = ("task",)
    blocks: list[str] = [key for key in varies if key == "model"]
    if "quantity" in values:
        columns = ("quantity",)
    elif "when" in values:
        columns, blocks = ("when",), [key for key in varies if key == "task"]
    elif all(rate in varies for rate in RATES):
        columns, blocks = RATES[1:], [key for key in varies if key in COMPARED]
    rows = [key for key in varies if key not in (*blocks, *columns)]
    if not rows:
        rows, blocks = blocks, []
    return Shape(tuple(blocks), tuple(rows), columns)


def _values(places: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Each coordinate's values in order; `""` where some cells have none of it."""
    keys = list(dict.fromkeys(key for place in places for key in place))
    found: dict[str, list[str]] = {}
    for key in keys:
        kept: list[str] = []
        for place in places:
            value = place.get(key, "")
            if not any(same(value, other) for other in kept):
                kept.append(value)
        found[key] = kept
    return found


def _at(cell: Cell, keys: Key) -> Key:
    return tuple(_plain(cell.place.get(key, "")) for key in keys)


def _plain(value: str) -> str:
    """One spelling for a number: 1e-3 and 0.001 are one row."""
    try:
        return repr(float(value))
    except ValueError:
        return value


def _distinct(cells: Sequence[Cell], keys: Key) -> list[Key]:
    return list(dict.fromkeys(_at(cell, keys) for cell in cells))


def _row(shape: Shape, grid: Mapping[tuple[Key, Key, Key], Cell], block: Key, row: Key, columns: Sequence[Key]) -> Row:
    cells = tuple(grid.get((block, row, column)) for column in columns)
    there = [cell for cell in cells if cell is not None]
    labels = tuple(label(key, there[0].place.get(key, "")) or "–" for key in shape.rows)
    if "method" not in shape.rows:
        return Row(labels, cells)
    printed = (cell.published.facts.get("trainable_params") for cell in there if cell.published is not None)
    counted = (cell.parameters for cell in there)
    return Row(labels, cells, next(filter(None, printed), None), next((n for n in counted if n is not None), None))


def _words(keys: Key, values: Key) -> str:
    found = (named(key, _spelt(value)) for key, value in zip(keys, values, strict=True))
    return ", ".join(found)


def _spelt(value: str) -> str:
    """`_plain` undone, for a label."""
    try:
        return f"{float(value):g}"
    except ValueError:
        return value


def _column_labels(keys: Key, columns: Sequence[Key], cells: Sequence[Cell]) -> tuple[str, ...]:
    labels = []
    for column in columns:
        inside = [cell for cell in cells if _at(cell, keys) == column]
        names = [label(key, inside[0].place.get(key, "")) for key in keys]
        metric = next((cell.metric for cell in inside if cell.metric), "")
        text = " ".join(name for name in names if name) or metric_label(metric)
        labels.append(f"{head(keys[0])} {text}" if keys[0].endswith("lr") else text)
    return tuple(labels)
