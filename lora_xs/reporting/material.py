"""What figures and claims are made of: the cells of a table and the records behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lora_xs.records import Record
from lora_xs.reporting.cells import START, Behind, Cell
from lora_xs.reporting.labels import label
from lora_xs.reporting.published import AVERAGE

if TYPE_CHECKING:
    from lora_xs.reporting.evidence import Evidence
    from lora_xs.reporting.table import Table


@dataclass(frozen=True)
class Material:
    """name, title, source: the experiment's. how: in what way ours became numbers. folders: where records lie."""

    name: str
    title: str
    source: str
    cells: tuple[Cell, ...]
    runs: tuple[Behind, ...] = ()
    records: Mapping[str, Record] = field(default_factory=dict)
    folders: Mapping[str, Path] = field(default_factory=dict)
    how: str = ""
    overrides: tuple[str, ...] = ()
    synthetic: bool = False

    @property
    def heading(self) -> str:
        """What it is, with its overrides."""
        source = "" if self.source == "ours" else f"{self.source}: "
        overrides = f" [{' '.join(self.overrides)}]" if self.overrides else ""
        return f"{source}{self.title}{overrides}"

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a published number nor one of ours."""
        return not any(cell.published is not None or cell.ours is not None for cell in self.cells)

    @property
    def trained(self) -> list[Behind]:
        """The planned runs but for those that others start from, each signature once."""
        return list({run.signature: run for run in self.runs if run.cell.get("role") != START}.values())

    @property
    def hardware(self) -> str:
        """On what the runs ran, for figures of seconds."""
        behind = [self.records[run.signature] for run in self.trained if run.signature in self.records]
        found = Counter(_machine(record) for record in behind)
        return "; ".join(name for name, _ in found.most_common())


def material_of(table: Table, evidence: Evidence) -> Material:
    """A table's material; `evidence` is what the table was made from."""
    return Material(
        name=table.name,
        title=table.experiment.title,
        source=table.experiment.source,
        cells=table.cells,
        runs=table.runs,
        records=evidence.records,
        folders=evidence.folders,
        how=table.how,
        overrides=table.overrides,
        synthetic=evidence.synthetic,
    )


def coverage(cells: Sequence[Cell]) -> list[str]:
    """Which of the cells that a figure draws have runs, in words; nothing where all do. Averages follow from others."""
    own = [cell for cell in cells if cell.place.get("task") != AVERAGE]
    planned = [cell for cell in own if cell.reason is None]
    counts = Counter(_state(cell) for cell in planned)
    lines = []
    if counts["run"] < len(planned):
        words = [f"{counts[state]} {state}" for state in ("in part", "not run", "diverged") if counts[state]]
        if counts["not run"] == len(planned):
            lines.append(f"Ours: not run ({len(planned)} cells planned).")
        else:
            shown = ", ".join([f"{counts['run']} complete", *words])
            lines.append(f"Ours, of {len(planned)} cells: {shown}.")
    averages = [cell for cell in cells if cell.place.get("task") == AVERAGE and cell.reason is None]
    if counts["in part"] and any(cell.ours is None for cell in averages):
        lines.append("An average of ours stands only where every task of its row is complete.")
    left = [cell for cell in own if cell.reason is not None]
    by_reason = {reason: [c for c in left if c.reason == reason] for reason in dict.fromkeys(c.reason for c in left)}
    lines += [f"Not built ({_named(some)}): {reason}." for reason, some in by_reason.items()]
    return lines


def _state(cell: Cell) -> str:
    if cell.ours is None:
        return "diverged" if cell.status == "diverged" else "not run"
    return "in part" if cell.status == "partial" else "run"


def _named(cells: Sequence[Cell]) -> str:
    methods = dict.fromkeys(label("method", cell.place["method"]) for cell in cells if "method" in cell.place)
    return ", ".join(methods) or f"{len(cells)} cells"


def _machine(record: Record) -> str:
    hardware = record.environment.get("hardware") or {}
    return str(hardware.get("gpu") or hardware.get("cpu") or "unnamed hardware")
