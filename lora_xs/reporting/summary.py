"""A small table of finished runs: what trained, how much of it, how well, beside what costs nothing.

That is the constant answer's score for labelled texts, and the loss before training for responses.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from lora_xs.evaluation.direction import LOWER_IS_BETTER
from lora_xs.records import Record

COLUMNS = (
    "task",
    "method",
    "seed",
    "trained (adapter + head)",
    "adapter bytes",
    "metric",
    "best",
    "last",
    "untrained",
    "tests",
    "seconds",
    "status",
)


def summary_row(record: Record) -> tuple[str, ...]:
    """One run as text, in the order of COLUMNS; scores in points, losses in nats, seconds of training and scoring."""
    spec, train = record.run["spec"], record.train
    main = spec["task"]["main_metric"]
    counts = train["parameters"]
    method = spec["method"]["name"] + (f" r={spec['rank']}" if spec["rank"] is not None else "")
    digits = 4 if main in LOWER_IS_BETTER else 2
    compared = [train.get("best"), train.get("last"), train.get("majority") or train.get("start")]
    scores = [f"{line[main]:.{digits}f}" if line else "-" for line in compared]
    tests = [
        f"{name} {test['points']:.1f} ± {test['standard_error']:.1f}" for name, test in train.get("tests", {}).items()
    ]
    return (
        spec["task"]["name"],
        method,
        str(spec["seed"]),
        f"{counts['adapter']:,} + {counts['head']:,}",
        f"{train['adapter_bytes']:,}",
        main,
        *scores,
        ", ".join(tests) or "-",
        f"{train['train_seconds']:.0f}",
        record.status,
    )


def print_summary(records: Iterable[Record], console: Console | None = None) -> None:
    """Print the table, one line a run, sorted by task, method and seed."""
    table = Table(*COLUMNS)
    for row in sorted(map(summary_row, records)):
        table.add_row(*row)
    console = console or Console()
    needed = Console(width=1000).measure(table).maximum
    if console.width < needed:  # a pipe, or a narrow terminal: wrapped lines are better than cut words
        console = Console(width=needed, file=console.file)
    console.print(table)
