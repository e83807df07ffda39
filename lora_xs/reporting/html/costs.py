"""What the runs of an experiment cost: seconds, memory, tokens, bytes; hours taken beside hours estimated."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lora_xs.errors import UserError
from lora_xs.records import Record
from lora_xs.reporting.html.grid import Body, Box, Grid
from lora_xs.reporting.labels import named
from lora_xs.reporting.material import Material

APART = ("model", "task", "method", "rank", "init", "singular_vectors", "a_init", "init_samples", "decomposed_matrix")
"""Coordinates that runs of different cost differ in; rates and seeds are not among them."""
HEADS = (
    *("Runs of", "Runs", "Training, s", "Start, s", "Hours taken", "Hours estimated", "Taken / estimated"),
    *("Peak memory, MiB", "Tokens a run", "Tokens/s", "Adapter bytes"),
)
HOUR = 3600.0


@dataclasses.dataclass(frozen=True)
class Costs:
    """grid: a row a kind of run. machines: where they ran. hours: taken by all of them."""

    grid: Grid
    machines: str
    hours: float


def costs_of(material: Material) -> Costs | None:
    """Of the finished runs of an experiment, start runs left out; None where none is finished."""
    groups: dict[str, list[Record]] = {}
    for run in material.trained:
        record = material.records.get(run.signature)
        if record is not None and record.scored:
            groups.setdefault(_words(run.cell), []).append(record)
    if not groups:
        return None
    rows = tuple(_row(words, records) for words, records in groups.items())
    hours = sum(_sum(records, _taken) or 0.0 for records in groups.values())
    return Costs(Grid(HEADS, (), (), (Body(None, rows),)), material.hardware, hours)


def estimated_hours(record: Record) -> float | None:
    """What a plan made for the record's device would have said, by its data sheet; None where none can be made."""
    from lora_xs.analysis.cost import model_spec
    from lora_xs.spec import RunSpec
    from lora_xs.sweeps.cost import estimate
    from lora_xs.sweeps.devices import device_of_record

    try:
        device = device_of_record(record.environment)
        values = {key: value for key, value in record.run["spec"].items() if key != "protocol_version"}
        spec = RunSpec.from_json(values)
        shape = model_spec(spec.model.name).architecture
        threads = int(record.environment["threads"]["torch"]) if record.environment.get("threads") else None
        spec = spec.replace(
            model=dataclasses.replace(spec.model, architecture=shape),
            launcher=dataclasses.replace(spec.launcher, threads=threads),
        )
        return estimate(spec, device).gpu_hours if device is not None else None
    except (UserError, KeyError, TypeError, ValueError, AttributeError):  # a record of another time, or of a test
        return None


def _row(words: str, records: Sequence[Record]) -> tuple[Box, ...]:
    estimates = [hours for record in records if (hours := estimated_hours(record)) is not None]
    estimated = sum(estimates) if len(estimates) == len(records) else None
    taken = _sum(records, _taken)
    ratio = taken / estimated if taken is not None and estimated else None
    return (
        Box(words, "label"),
        _count(float(len(records)), "{:.0f}"),
        _count(_middle(records, lambda r: _at(r.train, "seconds", "training")), "{:,.1f}"),
        _count(_middle(records, lambda r: _at(r.train, "seconds", "adapter")), "{:,.2f}"),
        _count(taken, "{:,.3f}"),
        _count(estimated, "{:,.3f}"),
        _count(ratio, "{:.2f}"),
        _count(_most(records, lambda r: _at(r.train, "peak_memory_mib")), "{:,.0f}"),
        _count(_middle(records, lambda r: _at(r.train, "tokens")), "{:,.0f}"),
        _count(_middle(records, lambda r: _at(r.train, "tokens_per_second")), "{:,.1f}"),
        _count(_middle(records, lambda r: _at(r.train, "adapter_bytes")), "{:,.0f}"),
    )


def _words(cell: Mapping[str, str]) -> str:
    found = [named(key, value) for key, value in cell.items() if key in APART and value not in ("", "None")]
    return ", ".join(found) or "all runs"


def _taken(record: Record) -> float | None:
    seconds = _at(record.run, "seconds")
    return None if seconds is None else seconds / HOUR


def _at(content: Mapping[str, Any], *keys: str) -> float | None:
    value: Any = content
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def _known(records: Sequence[Record], read: Callable[[Record], float | None]) -> list[float]:
    return [value for record in records if (value := read(record)) is not None]


def _middle(records: Sequence[Record], read: Callable[[Record], float | None]) -> float | None:
    values = _known(records, read)
    return statistics.median(values) if values else None


def _most(records: Sequence[Record], read: Callable[[Record], float | None]) -> float | None:
    return max(_known(records, read), default=None)


def _sum(records: Sequence[Record], read: Callable[[Record], float | None]) -> float | None:
    values = _known(records, read)
    return sum(values) if len(values) == len(records) else None


def _count(value: float | None, form: str) -> Box:
    return Box("–", "count") if value is None else Box(form.format(value), "count", f"{value:.10g}")
