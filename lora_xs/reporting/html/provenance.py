"""Where each number comes from: the readings behind a cell, their runs, and what the numbers beside them come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lora_xs.reporting.analysed import COUNTED
from lora_xs.reporting.bootstrap import LEVEL, interval
from lora_xs.reporting.cell_text import number_text, text_of
from lora_xs.reporting.cells import AVERAGED, SETTING, Cell
from lora_xs.reporting.evidence import Evidence
from lora_xs.reporting.html.grid import Anchor
from lora_xs.reporting.labels import named
from lora_xs.reporting.table import Table


@dataclass(frozen=True)
class Behind:
    """A run behind a cell. words: its number, or why there is none. known: whether the page lists its record."""

    signature: str
    seed: str
    words: str
    known: bool


@dataclass(frozen=True)
class Why:
    """Everything about one cell. anchor: of this entry; cell: of the number in its table. facts: name → words."""

    anchor: str
    cell: str
    place: str
    facts: Mapping[str, str]
    runs: tuple[Behind, ...]


def why_of(table: Table, cell: Cell, anchor: Anchor, evidence: Evidence) -> Why:
    """What is known of a cell of `table`. An average of a row names no runs: its cells do."""
    words, printed, allowed = text_of(cell), cell.published, cell.allowed
    facts = {"ours": words.ours}
    if cell.metric == AVERAGED:
        of = f": {cell.statistic} of {cell.n} seeds' means" if cell.planned > 1 and cell.n else ""
        facts["made of"] = f"the {len(cell.signatures)} runs behind the other cells of its row{of}"
    elif cell.signatures == (COUNTED,):
        facts["made of"] = "the architecture alone: python scripts/analyse.py cost"
    elif cell.n > 1 and cell.metric != SETTING:
        facts["made of"] = f"{cell.statistic} of {cell.n} runs"
    bounds = interval([reading.value for reading in cell.readings], cell.statistic)
    if bounds is not None and cell.metric != SETTING:
        facts[f"{LEVEL:g} % of resamples"] = "…".join(number_text(bound, cell) for bound in bounds)
    if cell.rows is not None and cell.metric not in (AVERAGED, SETTING):
        facts["scored on"] = f"{cell.rows:,} rows, {cell.metric.replace('_', ' ')}"
    if printed is not None:
        facts["published"] = f"{words.published} (results/published/{printed.source})"
    if printed is not None and printed.misprint:
        facts["misprint"] = printed.misprint
    facts["status"] = words.comparison or cell.status
    if allowed is not None and cell.metric != SETTING:
        facts["tolerance"] = allowed.words
    if cell.reason is not None:
        facts["not built"] = cell.reason
    runs = () if cell.metric == AVERAGED or cell.signatures == (COUNTED,) else _runs(table, cell, evidence)
    return Why(anchor.why, anchor.cell, place_words(cell), facts, runs)


def place_words(cell: Cell) -> str:
    """A cell's coordinates as the papers call them."""
    return ", ".join(filter(None, (named(key, value) for key, value in cell.place.items())))


def _runs(table: Table, cell: Cell, evidence: Evidence) -> tuple[Behind, ...]:
    seeds = {run.signature: str(run.seed) for run in table.runs}
    values = {reading.signature: reading for reading in cell.readings}
    found = []
    for signature in cell.signatures:
        record, reading = evidence.records.get(signature), values.get(signature)
        if cell.metric == SETTING:
            words = f"planned with {number_text(values[signature].value, cell)}"
        elif record is None:
            words = "no record"
        elif not record.scored:
            words = "diverged"
        else:
            words = number_text(reading.value, cell) if reading is not None else "no such number"
            words += " (collapsed)" if record.collapsed else ""
        seed = str(reading.seed) if reading is not None else seeds.get(signature, "")
        found.append(Behind(signature, seed, words, record is not None))
    return tuple(found)
