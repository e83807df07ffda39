"""The records that tables are made of, with the folders they lie in; synthetic ones never stand beside real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lora_xs.errors import UserError
from lora_xs.records import RECORD, SCHEMA, Record, read_record
from lora_xs.reporting.analysed import Analysed, analyses_below

SYNTHETIC = "synthetic"
"""The key of `record.run` that marks a record made by a test."""


@dataclass(frozen=True)
class Evidence:
    """records: finished and diverged ones by signature. folders: where each lies. analysed: what analyses found in
    them. synthetic: whether a test made them.
    unreadable: files passed over."""

    records: dict[str, Record] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    analysed: Analysed = field(default_factory=Analysed)
    synthetic: bool = False
    unreadable: tuple[Path, ...] = ()


def read_evidence(results: Sequence[Path]) -> Evidence:
    """All records below the folders; of two with one signature, the later in path order.

    Raises UserError for a folder that is missing, a record of another schema, and synthetic records beside real ones.
    """
    records: dict[str, Record] = {}
    folders: dict[str, Path] = {}
    unreadable: list[Path] = []
    kinds: dict[bool, Path] = {}
    for root in results:
        if not root.is_dir():
            raise UserError(f"--results {root}: no such folder; name the one that `results=` named when the runs ran")
        for file in sorted(root.rglob(RECORD)):
            record = read_record(file.parent)
            if record is None:
                _check_schema(file)
                unreadable.append(file)
                continue
            kinds.setdefault(bool(record.run.get(SYNTHETIC)), file)
            records[record.signature], folders[record.signature] = record, file.parent
    if len(kinds) == 2:
        raise UserError(f"{kinds[True]} is synthetic and {kinds[False]} is real; keep them in folders of their own")
    return Evidence(records, folders, analyses_below(*results), True in kinds, tuple(unreadable))


def _check_schema(file: Path) -> None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema is not None and schema != SCHEMA:
        raise UserError(
            f"{file}: schema {schema!r} of records, this version reads {SCHEMA}; use the version that wrote it, or "
            "move the record elsewhere"
        )
