"""Where a number comes from: the runs behind a cell, each with its record, commit and command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_xs.records import RECORD, Record
from lora_xs.reporting.analysed import COUNTED
from lora_xs.reporting.bootstrap import LEVEL, interval
from lora_xs.reporting.cell_text import number_text, text_of
from lora_xs.reporting.cells import SETTING, Behind, Cell
from lora_xs.reporting.evidence import Evidence
from lora_xs.reporting.table import Table


@dataclass(frozen=True)
class Source:
    """A run behind a cell. value: as the cell counts it; run: the anchor of the run's own line, where it is there."""

    signature: str
    seed: str
    value: str
    run: str


@dataclass(frozen=True)
class Origin:
    """A cell's provenance. place: its coordinates in words; published: what is printed and where."""

    anchor: str
    place: str
    ours: str
    status: str
    interval: str
    published: str
    tolerance: str
    reason: str
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class RunLine:
    """A finished or diverged run. record: its file, relative to the folder that was read."""

    anchor: str
    signature: str
    status: str
    where: str
    seed: int
    best: str
    last: str
    seconds: float | None
    memory: float | None
    tokens: int | None
    commit: str
    dirty: bool
    started: str
    record: str
    command: str


def origins(table: Table, evidence: Evidence) -> dict[int, Origin]:
    """The provenance of every cell that has a number of ours, by the cell's `id`, in the table's order."""
    seeds = {run.signature: run.seed for run in table.runs}
    told = [cell for cell in table.cells if cell.ours is not None or cell.diverged]
    return {id(cell): _origin(table, place, cell, seeds, evidence) for place, cell in enumerate(told)}


def _origin(table: Table, place: int, cell: Cell, seeds: Mapping[str, int], evidence: Evidence) -> Origin:
    text = text_of(cell)
    bounds = interval([reading.value for reading in cell.readings], cell.statistic)
    between = f"{LEVEL:g} % of resamples in " + "…".join(number_text(b, cell) for b in bounds) if bounds else ""
    printed = f"{text.published} ({cell.published.source})" if cell.published is not None else ""
    return Origin(
        anchor=f"{table.name}--{place + 1}",
        place=", ".join(f"{key} {value}" for key, value in cell.place.items() if value),
        ours=text.ours,
        status=cell.status,
        interval=between,
        published=printed,
        tolerance=cell.allowed.words if cell.allowed is not None and cell.metric != SETTING else "",
        reason=cell.reason or "",
        sources=tuple(_source(table, signature, cell, seeds, evidence) for signature in cell.signatures),
    )


def _source(table: Table, signature: str, cell: Cell, seeds: Mapping[str, int], evidence: Evidence) -> Source:
    seed = str(seeds[signature]) if signature in seeds else "–"
    values = {reading.signature: number_text(reading.value, cell) for reading in cell.readings}
    if signature == COUNTED:
        return Source("counted from the architecture", "–", text_of(cell).ours, "")
    record = evidence.records.get(signature)
    if record is None:
        return Source(signature, seed, f"planned with {values[signature]}" if cell.metric == SETTING else "missing", "")
    value = "diverged" if record.status == "diverged" else values.get(signature, "in the average")
    return Source(signature, seed, value, run_anchor(table.name, signature))


def run_anchor(name: str, signature: str) -> str:
    """The anchor of a run's line in the section of experiment `name`."""
    return f"{name}-run-{signature}"


def run_lines(table: Table, evidence: Evidence, roots: Sequence[Path]) -> list[RunLine]:
    """The finished and diverged runs of a table's plan, in its order. roots: the folders that were read."""
    runs = {run.signature: run for run in table.runs if run.signature in evidence.records}
    return [_line(table.name, run, evidence, roots) for run in runs.values()]


def _line(name: str, run: Behind, evidence: Evidence, roots: Sequence[Path]) -> RunLine:
    record = evidence.records[run.signature]
    train, environment = record.train, record.environment
    return RunLine(
        anchor=run_anchor(name, run.signature),
        signature=run.signature,
        status=record.status,
        where=", ".join(f"{key} {value}" for key, value in run.cell.items() if value),
        seed=run.seed,
        best=_score(record, "best"),
        last=_score(record, "last"),
        seconds=train.get("train_seconds"),
        memory=train.get("peak_memory_mib"),
        tokens=train.get("tokens"),
        commit=str(environment.get("commit") or "unknown"),
        dirty=bool(environment.get("dirty")),
        started=str(record.run.get("started") or ""),
        record=relative(evidence.folders[run.signature] / RECORD, roots),
        command=shlex.join(["python", "train.py", *run.overrides]),
    )


def _score(record: Record, which: str) -> str:
    line = record.train.get(which) or {}
    value = line.get(((record.run.get("spec") or {}).get("task") or {}).get("main_metric"))
    return "–" if value is None else f"{value:.4g}"


def relative(path: Path, roots: Sequence[Path]) -> str:
    """A file's path below one of the roots, the root's own name kept: `results/runs/…`; no folder of this machine."""
    for root in roots:
        if path.is_relative_to(root):
            return str(Path(root.resolve().name) / path.relative_to(root))
    return path.name
