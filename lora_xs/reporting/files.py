"""Tables as files: a folder of Markdown, LaTeX and CSV with an index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lora_xs.atomic import write_text
from lora_xs.reporting.evidence import Evidence
from lora_xs.reporting.index import README, summary, write_index
from lora_xs.reporting.render_csv import to_csv
from lora_xs.reporting.render_latex import document, to_latex
from lora_xs.reporting.render_markdown import to_markdown
from lora_xs.reporting.table import Table

FORMATS: Mapping[str, Callable[[Table], str]] = {"md": to_markdown, "tex": to_latex, "csv": to_csv}
"""Ending → renderer."""


def write_tables(
    tables: Sequence[Table], evidence: Evidence, folder: Path, formats: Sequence[str], order: Sequence[str]
) -> Path:
    """Write the tables in each of the formats and renew the folder's index, which it returns.

    order: of all experiments, in which the index and `all.tex` (where `tex` is asked for) name those that are there.
    """
    for table in tables:
        for ending in formats:
            write_text(folder / f"{table.name}.{ending}", FORMATS[ending](table))
    entries = write_index(folder, {table.name: summary(table, evidence, formats) for table in tables}, order)
    if "tex" in formats:
        write_text(folder / "all.tex", document([name for name in entries if (folder / f"{name}.tex").is_file()]))
    return folder / README
