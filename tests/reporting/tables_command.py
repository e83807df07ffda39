"""`scripts/tables.py` as a module, and what it wrote, read back."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parents[2]
MARK = re.compile(r"<sup>[\d, ]+</sup>")


def tables_script() -> ModuleType:
    """scripts/tables.py, imported."""
    spec = importlib.util.spec_from_file_location("tables_script", REPOSITORY / "scripts" / "tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def markdown_rows(text: str) -> list[list[str]]:
    """The lines of a Markdown file's table, heads first, without the rule below them, footnote marks or escapes."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [[_plain(word) for word in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in rows if set("".join(row)) - {"-", " "}]


def _plain(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", MARK.sub("", word)).strip()
