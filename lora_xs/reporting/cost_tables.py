"""The record of costs as tables on a terminal: operations, parameters, times."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from lora_xs.analysis.record import AnalysisRecord
from lora_xs.reporting.cells import Cell
from lora_xs.reporting.counted import lengths_of


def print_costs(record: AnalysisRecord, printed_times: Sequence[Cell], console: Console) -> None:
    """Print `record` (of `lora_xs.reporting.counted.cost_record`). printed_times: the cells of the papers' tables of
    seconds."""
    kinds = {kind: [point for point in record.points if point["kind"] == kind] for kind in ("operations", "parameters")}
    operations = Table(
        *("model", "method", "rank", "tokens", "quantity", "a token", "a row", "printed", "difference", "with all"),
        title="Operations of a forward pass (LoRA-SB Table 6)", title_justify="left",
    )  # fmt: skip
    for point in kinds["operations"]:
        place = point["place"]
        operations.add_row(
            *(place[key] for key in ("model", "method", "rank", "sequence_length", "quantity")),
            f"{point['token'] / 1e9:.4g}G", f"{point['row'] / 1e9:,.2f}G", point["printed"],
            f"{point['difference']:+.2%}", f"{point['everything'] / 1e9:,.2f}G",
        )  # fmt: skip
    console.print(operations)
    for model in dict.fromkeys(point["place"]["model"] for point in kinds["operations"] if not point["close"]):
        shortest, longest = lengths_of(model)
        console.print(f"{model}: what is printed follows from rows of {shortest:.1f} to {longest:.1f} tokens, not 256")
    parameters = Table(
        *("model", "modules", "rank", "LoRA", "VeRA", "LoRA-XS", "LoRA / LoRA-XS", "R in fp32, bytes"),
        title="Trainable parameters on the same modules (LoRA-XS §3.3)", title_justify="left",
    )  # fmt: skip
    for p in kinds["parameters"]:
        counts = (f"{p[key]:,}" for key in ("lora", "vera", "lora_xs"))
        parameters.add_row(
            p["model"], str(p["modules"]), str(p["rank"]), *counts, f"{p['ratio']:,.0f}", f"{p['bytes']:,}"
        )
    console.print(parameters)
    _print_times(record, printed_times, console)


def _print_times(record: AnalysisRecord, printed: Sequence[Cell], console: Console) -> None:
    seconds = Table(
        "where", "printed", "ours", "runs", title="Seconds (LoRA-XS Tables 5 and 6, LoRA-SB Table 5)",
        title_justify="left",
    )  # fmt: skip
    for cell in printed:
        where = ", ".join(f"{key} {value}" for key, value in cell.place.items())
        value = "-" if cell.ours is None else f"{cell.ours:,.2f}"
        seconds.add_row(where, cell.published.printed if cell.published else "-", value, f"{cell.n}/{cell.planned}")
    console.print(seconds)
    times = [point for point in record.points if point["kind"] == "time"]
    if not times:
        console.print("no finished run of LoRA-XS, LoRA-SB or PiSSA below this folder: no time of our own")
        return
    own = Table(
        *("model", "task", "method", "rank", "start, s", "training, s", "start, %", "modules from the store"),
        title="Start against training, every run here", title_justify="left",
    )  # fmt: skip
    for t in times:
        stored = "-" if t["from_store"] is None else f"{t['from_store']}/{t['modules']}"
        own.add_row(
            t["model"], t["task"], t["method"], str(t["rank"]), f"{t['start_seconds']:.2f}",
            f"{t['training_seconds']:,.1f}", f"{t['percent']:.2f}", stored,
        )  # fmt: skip
    console.print(own)
