"""A small table of finished runs: what trained, how much of it, how well, beside the majority answer."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from lora_xs.records import Record

WIDTH = 132  # characters that a table's lines need
COLUMNS = (
    "task",
    "method",
    "seed",
    "trained (adapter + head)",
    "adapter bytes",
    "metric",
    "best",
    "last",
    "majority",
    "seconds",
    "status",
)


def summary_row(record: Record) -> tuple[str, ...]:
    """One run as text, in the order of COLUMNS; scores in points, seconds of training and evaluation."""
    spec, train = record.run["spec"], record.train
    main = spec["task"]["main_metric"]
    counts = train["parameters"]
    method = spec["method"]["name"] + (f" r={spec['rank']}" if spec["rank"] is not None else "")
    scores = [f"{train[which][main]:.2f}" if train.get(which) else "-" for which in ("best", "last")]
    return (
        spec["task"]["name"],
        method,
        str(spec["seed"]),
        f"{counts['adapter']:,} + {counts['head']:,}",
        f"{train['adapter_bytes']:,}",
        main,
        *scores,
        f"{train['majority'][main]:.2f}",
        f"{train['train_seconds']:.0f}",
        record.status,
    )


def print_summary(records: Iterable[Record], console: Console | None = None) -> None:
    """Print the table, one line a run, sorted by task, method and seed."""
    table = Table(*COLUMNS)
    for row in sorted(map(summary_row, records)):
        table.add_row(*row)
    console = console or Console()
    if console.width < WIDTH:  # a pipe, or a narrow terminal: wrapped lines are better than cut words
        console = Console(width=WIDTH, file=console.file)
    console.print(table)
