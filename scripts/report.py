"""Everything from records on one page: tables, figures, claims, costs, and where numbers come from. Trains nothing.

python scripts/report.py                              # results/report/index.html, results/tables, results/figures
python scripts/report.py --results <folder> --to /tmp/report.html --page-only
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lora_xs.errors import UserError

FINISHED, MISTAKE = 0, 2
REPOSITORY = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do as the arguments say; exit status 0, or 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(description="The report page, and the tables for reading on a code host.")
    parser.add_argument(
        "words", nargs="*", metavar="experiment=NAME", help="these and their claims alone (default: all)"
    )
    parser.add_argument("--results", type=Path, action="append", help="where records lie (default results; repeatable)")
    parser.add_argument("--to", type=Path, default=REPOSITORY / "results" / "report" / "index.html", help="the page")
    parser.add_argument("--page-only", action="store_true", help="leave results/tables and results/figures as they are")
    options = parser.parse_intermixed_args(arguments)
    try:
        return _report(options)
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return MISTAKE


def _report(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from lora_xs.atomic import write_text
    from lora_xs.reporting.asked import experiments_asked
    from lora_xs.reporting.evidence import read_evidence
    from lora_xs.reporting.figures.files import save, write_index
    from lora_xs.reporting.files import FORMATS as TABLES
    from lora_xs.reporting.files import write_tables
    from lora_xs.reporting.page.make import make_page
    from lora_xs.reporting.page.render import render
    from lora_xs.sweeps.experiment_file import experiment_names

    names, overrides = experiments_asked(options.words, experiment_names())
    if overrides:
        raise UserError(f"{overrides[0]}: the page takes experiments as they stand; overrides go to scripts/tables.py")
    roots = options.results or [REPOSITORY / "results"]
    evidence = read_evidence(roots)
    for file in evidence.unreadable:
        print(f"warning: {file} is no whole record, passed over", file=sys.stderr)
    made = make_page(
        tqdm(names, desc="experiments", leave=False, disable=None), evidence, roots, names if options.words else ()
    )
    write_text(options.to, render(made.page))
    if not options.page_only:
        results = REPOSITORY / "results"
        write_tables(made.tables, evidence, results / "tables", list(TABLES), experiment_names())
        for pictures in made.figures.values():
            for picture in pictures:
                save(picture, results / "figures", ["png"])
        write_index(results / "figures", made.figures)
    sections, page = made.page.sections, made.page
    ours = sum(section.has_ours for section in sections)
    mark = "SYNTHETIC " if page.synthetic else ""
    print(f"{mark}{len(sections)} experiments, {ours} with runs of ours; {page.runs} runs; {len(page.claims)} claims")
    print(options.to)
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())
