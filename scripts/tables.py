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
from lora_xs.exit_status import FINISHED, told_in_a_line

if TYPE_CHECKING:
    from lora_xs.reporting.evidence import Evidence
    from lora_xs.reporting.table import Table

REPOSITORY = Path(__file__).resolve().parents[1]


@told_in_a_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Do as the arguments say; exit status 0, or 2 for a mistake of the user's."""
    options = _parser().parse_intermixed_args(arguments)
    return _tables(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Tables of finished runs beside the published numbers.")
    parser.add_argument("words", nargs="*", metavar="experiment=NAME | override", help="as scripts/sweep.py takes them")
    parser.add_argument("--results", type=Path, action="append", help="where records lie (default results; repeatable)")
    parser.add_argument("--to", type=Path, default=REPOSITORY / "results" / "tables", help="default results/tables")
    parser.add_argument("--statistic", choices=("median", "mean"), help="instead of the paper's")
    parser.add_argument("--of", choices=("best", "last"), help="a run's evaluation, instead of the paper's choice")
    parser.add_argument("--format", default="md,tex,csv", metavar="md,tex,csv", help="default: all three")
    parser.add_argument("--trace", action="store_true", help="write nothing; print the runs behind each cell")
    parser.add_argument("--only", default="", metavar="KEY=VALUE,…", help="with --trace: cells at these coordinates")
    return parser


def _tables(options: argparse.Namespace) -> int:
    from lora_xs.reporting.asked import tables_asked
    from lora_xs.reporting.targets import checked_folder, checked_formats
    from lora_xs.reporting.written import FORMATS

    if options.only and not options.trace:
        raise UserError("--only goes with --trace; a table is always whole")
    formats = checked_formats(options.format, FORMATS)
    checked_folder(options.to, "--to ")
    evidence, tables = tables_asked(options.words, options.results, statistic=options.statistic, of=options.of)
    if not options.trace:
        return _write(list(tables), evidence, options.to, formats)
    from lora_xs.reporting.trace import trace

    for table in tables:
        for line in trace(table, evidence, options.only):
            print(line)
    return FINISHED


def _write(tables: Sequence[Table], evidence: Evidence, folder: Path, formats: Sequence[str]) -> int:
    from lora_xs.reporting.written import write_tables
    from lora_xs.sweeps.experiment_file import experiment_names

    index = write_tables(tables, evidence, folder, formats, experiment_names(), folder.parent / "figures")
    for table in tables:
        counts = ", ".join(f"{count} {status}" for status, count in table.counts.items())
        print(f"{'SYNTHETIC ' if table.synthetic else ''}{table.name}: {counts}")
    print(index)
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())
