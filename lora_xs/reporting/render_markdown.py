"""A table as Markdown, as code hosts show it: ours, published and the difference in columns of their own."""

from __future__ import annotations

from collections.abc import Sequence

from lora_xs.reporting.cell_text import LEGEND, PARTS, text_of
from lora_xs.reporting.cells import Cell
from lora_xs.reporting.layout import Row
from lora_xs.reporting.table import Table, own_notes, printed_notes


def to_markdown(table: Table) -> str:
    """The whole file: title, caption, table, footnotes, what the statuses mean."""
    heads = header(table)
    lines = [f"# {escape(table.name)}", "", escape(table.caption), "", _line(heads), "|" + " --- |" * len(heads)]
    for block in table.laid.blocks:
        if block.title is not None:
            lines.append(_line([f"**{escape(block.title)}**", *[""] * (len(heads) - 1)]))
        lines += [_line(_cells(table, row)) for row in block.rows]
    if table.notes:
        lines += ["", *(f"<sup>{number}</sup> {escape(note)}  " for number, note in enumerate(table.notes, start=1))]
    lines += [
        "",
        *_legend(table),
        f"Every number: `{table.name}.csv`; the runs behind one: `{trace_command(table)}`",
        "",
    ]
    return "\n".join(lines)


def header(table: Table) -> list[str]:
    """The names of all columns, left to right."""
    laid = table.laid
    names = list(laid.heads)
    if laid.has_parameters:
        names += ["Parameters, ours", *(["Parameters, published"] if laid.has_published else [])]
    for column in laid.columns:
        names += [f"{column}: {part}" for part in PARTS] if laid.has_published else [column]
    return [escape(name) for name in names]


def trace_command(table: Table) -> str:
    """What lists the runs behind every cell."""
    return " ".join(["python scripts/tables.py", f"experiment={table.name}", *table.overrides, "--trace"])


def escape(text: str) -> str:
    """Text that Markdown would read as markup, as itself."""
    for special in ("\\", "|", "*", "_", "<", "`", "["):
        text = text.replace(special, "\\" + special if special != "<" else "&lt;")
    return text


def _cells(table: Table, row: Row) -> list[str]:
    laid = table.laid
    words = [escape(label) for label in row.labels]
    if laid.has_parameters:
        words.append(f"{row.parameters:,}" if row.parameters is not None else "–")
        words += [row.printed_parameters or "–"] if laid.has_published else []
    for cell in row.cells:
        words += _parts(table, cell)
    return words


def _parts(table: Table, cell: Cell | None) -> list[str]:
    text = text_of(cell)
    ours, published = escape(text.ours), escape(text.published)
    if cell is not None:
        ours += _mark(table, own_notes(cell))
        published += _mark(table, printed_notes(cell))
    return [ours, published, escape(text.comparison)] if table.laid.has_published else [ours]


def _mark(table: Table, notes: Sequence[str]) -> str:
    return f"<sup>{table.marks(notes)}</sup>" if notes else ""


def _line(words: Sequence[str]) -> str:
    return "| " + " | ".join(words) + " |"


def _legend(table: Table) -> list[str]:
    return [*(f"- {count} {status}: {LEGEND[status]}" for status, count in table.counts.items()), ""]
