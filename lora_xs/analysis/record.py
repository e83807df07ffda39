"""What an analysis leaves behind: a record of its own, beside the run it looked at. Importing this imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lora_xs.atomic import write_json

FOLDER = "analysis"
SCHEMA = 1
SPECTRUM, PROJECTION, COST = "spectrum", "projection", "cost"


@dataclass
class AnalysisRecord:
    """One analysis's evidence.

    name: spectrum, projection or cost. run: the run's signature, spec, seed and when it started (so that an analysis of
    weights that were since trained again can be told); empty for cost. settings: which adapter, how many rows, modules,
    fractions. unchanged: scores of the fine-tuned weights as they are. points: a dict each, sorted. seconds: spent on
    all points, over all attempts. environment: as a run's record has it.
    """

    name: str
    run: dict[str, Any]
    settings: dict[str, Any]
    points: list[dict[str, Any]]
    unchanged: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    command: str = ""
    started: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA


def file_name(name: str, which: str = "best", rows: int | None = None) -> str:
    """An analysis's file without its ending: another adapter or fewer rows is another file."""
    return "-".join([name, *([which] if which != "best" else []), *([f"{rows}rows"] if rows is not None else [])])


def write_analysis(folder: Path, record: AnalysisRecord) -> Path:
    """Write `record` below the run's folder, whole or not at all; return the file."""
    settings = record.settings
    path = folder / FOLDER / f"{file_name(record.name, settings.get('which', 'best'), settings.get('rows'))}.json"
    write_json(path, asdict(record))
    return path


def read_analysis(path: Path) -> AnalysisRecord | None:
    """The record in the file `path`, or None where there is none that is whole and of this schema."""
    try:
        record = AnalysisRecord(**json.loads(path.read_text(encoding="utf-8")))
        sound = record.schema == SCHEMA and record.name in (SPECTRUM, PROJECTION, COST)
    except (OSError, ValueError, TypeError):
        return None
    return record if sound else None


def find_analyses(results: Path) -> Iterator[AnalysisRecord]:
    """Every record of an analysis below `results`, in path order."""
    for file in sorted(results.rglob(f"{FOLDER}/*.json")):
        record = read_analysis(file)
        if record is not None:
            yield record
