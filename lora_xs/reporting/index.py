"""What tables a folder holds: one line each with its cells by status, for people and, as JSON, for the next call.

A call for one experiment leaves the other tables' lines as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

from lora_xs.atomic import write_json, write_text
from lora_xs.reporting.cell_text import LEGEND
from lora_xs.reporting.ended import Ended, ended_of
from lora_xs.reporting.evidence import Evidence
from lora_xs.reporting.noise import Status
from lora_xs.reporting.render_markdown import escape
from lora_xs.reporting.table import Table

README, STATE = "README.md", "index.json"
HEAD = """# Tables

Made by `python scripts/tables.py` from records alone; published numbers are those of `results/published/`. A cell's
status says how ours compares (`lora_xs/reporting/noise.py`): the standard error of the difference has a part from the
test set's size and one from the seeds of each side.
{warning}"""
SYNTHETIC = "\n**SYNTHETIC: tables marked so were made by a test, they are no results.**\n"


def summary(table: Table, evidence: Evidence, formats: Sequence[str]) -> dict[str, Any]:
    """A table's entry: where it comes from, its runs, its cells by status."""
    return {
        "title": table.experiment.title,
        "source": table.experiment.source,
        "formats": list(formats),
        "overrides": list(table.overrides),
        "synthetic": table.synthetic,
        "runs": asdict(ended_of((run.signature for run in table.runs), evidence.records)),
        "cells": table.counts,
    }


def write_index(folder: Path, fresh: Mapping[str, Mapping[str, Any]], order: Sequence[str]) -> dict[str, Any]:
    """Lay `fresh` entries over those of the folder, drop those whose files are gone, write both files; return them."""
    entries = {**_kept(folder), **fresh}
    here = {name: entries[name] for name in (*order, *entries) if name in entries and _is_there(folder, name, entries)}
    write_json(folder / STATE, here)
    write_text(folder / README, _page(here))
    return here


def _kept(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    known = {field.name for field in fields(Ended)}  # an entry of an earlier form is left out until it is made again
    return {name: entry for name, entry in content.items() if entry["runs"].keys() == known}


def _is_there(folder: Path, name: str, entries: Mapping[str, Mapping[str, Any]]) -> bool:
    return any((folder / f"{name}.{ending}").is_file() for ending in entries[name]["formats"])


def _page(entries: Mapping[str, Mapping[str, Any]]) -> str:
    statuses = [s for s in get_args(Status) if any(s in entry["cells"] for entry in entries.values())]
    heads = ["Table", "Source", "What", "Runs", *statuses]
    lines = [HEAD.format(warning=SYNTHETIC if any(e["synthetic"] for e in entries.values()) else "")]
    lines += [_line(heads), "|" + " --- |" * 3 + " ---: |" * (len(heads) - 3)]
    for name, entry in entries.items():
        links = ", ".join(f"[{ending}]({name}.{ending})" for ending in entry["formats"])
        what = escape(entry["title"]) + (f" (`{' '.join(entry['overrides'])}`)" if entry["overrides"] else "")
        runs = Ended(**entry["runs"]).words if entry["runs"]["planned"] else "–"
        mark = "SYNTHETIC " if entry["synthetic"] else ""
        counts = [str(entry["cells"].get(status, "")) for status in statuses]
        lines.append(_line([f"{mark}{escape(name)}: {links}", entry["source"], what, runs, *counts]))
    return "\n".join([*lines, "", *(f"- {status}: {LEGEND[status]}" for status in statuses), ""])


def _line(words: Sequence[str]) -> str:
    return "| " + " | ".join(words) + " |"
