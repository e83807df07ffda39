"""Tables as files: Markdown, LaTeX and CSV, and the index of the folder they lie in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lora_xs.atomic import write_text
from lora_xs.reporting.evidence import Evidence
from lora_xs.reporting.figures.files import Listed, listed
from lora_xs.reporting.index import README, summary, write_index
from lora_xs.reporting.render_csv import to_csv
from lora_xs.reporting.render_latex import document, to_latex
from lora_xs.reporting.render_markdown import escape, to_markdown
from lora_xs.reporting.table import Table

RENDERERS = {"md": to_markdown, "tex": to_latex, "csv": to_csv}
FORMATS = tuple(RENDERERS)


def write_tables(
    tables: Sequence[Table],
    evidence: Evidence,
    folder: Path,
    formats: Sequence[str],
    order: Sequence[str],
    pictures: Path,
) -> Path:
    """Write the tables and the index, and return its file; other tables of the folder stay.

    order: of the index. pictures: the folder of figures; those it has of a table are shown in the table's Markdown.
    """
    there = listed(pictures)
    from_here = Path(os.path.relpath(pictures, folder)).as_posix()
    fresh = {}
    for table in tables:
        for ending in formats:
            text = RENDERERS[ending](table)
            if ending == "md":
                text += shown(there.get(table.name, ()), from_here)
            write_text(folder / f"{table.name}.{ending}", text)
        fresh[table.name] = summary(table, evidence, formats)
    entries = write_index(folder, fresh, order)
    if "tex" in formats:
        write_text(folder / "all.tex", document([name for name in entries if (folder / f"{name}.tex").is_file()]))
    return folder / README


def shown(figures: Sequence[Listed], folder: str) -> str:
    """Figures in Markdown, each with what it shows below. folder: where they lie, seen from the file."""
    return "".join(
        f"\n![{one.kind} of {one.experiment}, described below]({folder}/{one.name}.png)\n\n{escape(one.caption)}\n"
        for one in figures
    )
