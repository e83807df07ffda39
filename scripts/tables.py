"""The papers' tables from records alone: ours beside what is published, as Markdown, LaTeX and CSV. Trains nothing.

python scripts/tables.py                                                # every experiment → results/tables
python scripts/tables.py experiment=table01_glue --results results/runs --format md
python scripts/tables.py experiment=mini_glue seed=0 --statistic mean --of last --to /tmp/tables
python scripts/tables.py experiment=table01_glue --trace --only task=mrpc,rank=16   # the runs behind these cells
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lora_xs.errors import UserError

if TYPE_CHECKING:
    from lora_xs.reporting.evidence import Evidence
    from lora_xs.reporting.table import Table

FINISHED, MISTAKE = 0, 2
FORMATS = ("md", "tex", "csv")
REPOSITORY = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do as the arguments say; exit status 0, or 2 for a mistake of the user's."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        return _tables(options)
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return MISTAKE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Tables of finished runs beside the published numbers.")
    parser.add_argument("words", nargs="*", metavar="experiment=NAME | override", help="as scripts/sweep.py takes them")
    parser.add_argument("--results", type=Path, action="append", help="where records lie (default results; repeatable)")
    parser.add_argument("--to", type=Path, default=REPOSITORY / "results" / "tables", help="default results/tables")
    parser.add_argument("--statistic", choices=("median", "mean"), help="instead of the paper's")
    parser.add_argument("--of", choices=("best", "last"), help="a run's evaluation, instead of the paper's choice")
    parser.add_argument("--format", default=",".join(FORMATS), metavar="md,tex,csv", help="default: all three")
    parser.add_argument("--trace", action="store_true", help="write nothing; print the runs behind each cell")
    parser.add_argument("--only", default="", metavar="KEY=VALUE,…", help="with --trace: cells at these coordinates")
    return parser


def _tables(options: argparse.Namespace) -> int:
    from lora_xs.reporting.asked import experiments_asked
    from lora_xs.reporting.evidence import read_evidence
    from lora_xs.reporting.planned import said_once
    from lora_xs.reporting.table import make_table
    from lora_xs.reporting.targets import checked_folder
    from lora_xs.sweeps.experiment_file import experiment_names, load_experiment

    if options.only and not options.trace:
        raise UserError("--only goes with --trace; a table is always whole")
    formats = _formats(options.format)
    checked_folder(options.to, "--to ")
    names, overrides = experiments_asked(options.words, experiment_names())
    experiments = [load_experiment(name) for name in names]
    evidence = read_evidence(options.results or [REPOSITORY / "results"])
    for file in evidence.unreadable:
        print(f"warning: {file} is no whole record, passed over", file=sys.stderr)
    say = said_once()
    tables = [
        make_table(one, evidence, overrides, statistic=options.statistic, of=options.of, composing=say)
        for one in experiments
    ]
    if not options.trace:
        return _write(tables, evidence, options.to, formats, experiment_names())
    from lora_xs.reporting.trace import trace

    for table in tables:
        for line in trace(table, evidence, options.only):
            print(line)
    return FINISHED


def _formats(text: str) -> list[str]:
    found = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for part in found:
        if part not in FORMATS:
            raise UserError(f"--format {part!r} is unknown; choose among {', '.join(FORMATS)}")
    return found


def _write(
    tables: Sequence[Table], evidence: Evidence, folder: Path, formats: Sequence[str], order: Sequence[str]
) -> int:
    from lora_xs.reporting.written import write_tables

    index = write_tables(tables, evidence, folder, formats, order, folder.parent / "figures")
    for table in tables:
        counts = ", ".join(f"{count} {status}" for status, count in table.counts.items())
        print(f"{'SYNTHETIC ' if table.synthetic else ''}{table.name}: {counts}")
    print(index)
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())
