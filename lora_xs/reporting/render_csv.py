"""A table as long CSV, for other programs: a line a cell, with everything that is known of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from lora_xs.reporting.bootstrap import interval
from lora_xs.reporting.cells import Cell
from lora_xs.reporting.table import Table

COLUMNS = (
    *("ours", "n", "planned", "spread", "interval_low", "interval_high", "published", "published_std"),
    *("difference", "tolerance", "tolerance_words", "status", "statistic", "of", "metric", "rows", "parameters"),
    *("published_parameters", "source", "misprint", "reason", "diverged", "constant", "collapsed", "unanswered"),
    *("overrides", "synthetic", "signatures"),
)
"""After the coordinates. Scores are points, `tolerance` is one standard error of the difference, lists are spaced.
`constant`: signatures of runs that gave every row the same answer, `collapsed`: of those that did so in the end alone;
`unanswered`: completions without an answer."""


def to_csv(table: Table) -> str:
    """The whole file, with a header line."""
    keys = list(dict.fromkeys(key for cell in table.cells for key in cell.place))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*keys, *COLUMNS], lineterminator="\n")
    writer.writeheader()
    for cell in table.cells:
        writer.writerow({**cell.place, **_values(table, cell)})
    return text.getvalue()


def _values(table: Table, cell: Cell) -> Mapping[str, Any]:
    bounds = interval([reading.value for reading in cell.readings], cell.statistic)
    printed, allowed = cell.published, cell.allowed
    return {
        "ours": _number(cell.ours),
        "n": cell.n,
        "planned": cell.planned,
        "spread": _number(cell.spread),
        "interval_low": _number(bounds[0] if bounds else None),
        "interval_high": _number(bounds[1] if bounds else None),
        "published": _number(printed.value if printed else None),
        "published_std": _number(printed.std if printed else None),
        "difference": _number(cell.difference),
        "tolerance": _number(allowed.standard_error if allowed else None),
        "tolerance_words": allowed.words if allowed else "",
        "status": cell.status,
        "statistic": cell.statistic if cell.readings else "",
        "of": table.of or "",
        "metric": cell.metric,
        "rows": cell.rows if cell.rows is not None else "",
        "parameters": cell.parameters if cell.parameters is not None else "",
        "published_parameters": printed.facts.get("trainable_params", "") if printed else "",
        "source": printed.source if printed else "",
        "misprint": (printed.misprint or "") if printed else "",
        "reason": cell.reason or "",
        "diverged": " ".join(cell.diverged),
        "constant": " ".join(cell.constant),
        "collapsed": " ".join(cell.collapsed),
        "unanswered": cell.unanswered or "",
        "overrides": " ".join(table.overrides),
        "synthetic": "true" if table.synthetic else "",
        "signatures": " ".join(cell.signatures),
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"
