"""The papers' figures from records alone: ours beside what is published, as PNG and PDF. Trains nothing.

python scripts/figures.py                                               # every experiment → results/figures
python scripts/figures.py experiment=figure01_parameter_efficiency --results results/runs
python scripts/figures.py experiment=mini_glue seed=0 --format png --to /tmp/figures
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lora_xs.exit_status import FINISHED, told_in_a_line

REPOSITORY = Path(__file__).resolve().parents[1]


@told_in_a_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Do as the arguments say; exit status 0, or 2 for a mistake of the user's."""
    options = _parser().parse_intermixed_args(arguments)
    return _figures(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Figures of finished runs beside the published numbers.")
    parser.add_argument("words", nargs="*", metavar="experiment=NAME | override", help="as scripts/sweep.py takes them")
    parser.add_argument("--results", type=Path, action="append", help="where records lie (default results; repeatable)")
    parser.add_argument("--to", type=Path, default=REPOSITORY / "results" / "figures", help="default results/figures")
    parser.add_argument("--statistic", choices=("median", "mean"), help="instead of the paper's")
    parser.add_argument("--of", choices=("best", "last"), help="a run's evaluation, instead of the paper's choice")
    parser.add_argument("--format", default="png,pdf", metavar="png,pdf", help="default: both")
    return parser


def _figures(options: argparse.Namespace) -> int:
    from lora_xs.reporting.asked import tables_asked
    from lora_xs.reporting.figures.files import FORMATS, save, write_index
    from lora_xs.reporting.figures.index import draw_figures
    from lora_xs.reporting.figures.picture import Picture
    from lora_xs.reporting.material import material_of
    from lora_xs.reporting.targets import checked_folder, checked_formats

    formats = checked_formats(options.format, FORMATS)
    checked_folder(options.to, "--to ")
    evidence, tables = tables_asked(options.words, options.results, statistic=options.statistic, of=options.of)
    drawn: dict[str, list[Picture]] = {}
    for table in tables:
        pictures = drawn[table.name] = draw_figures(material_of(table, evidence))
        for picture in pictures:
            save(picture, options.to, formats)
        found = ", ".join(picture.name for picture in pictures) or "nothing to draw"
        print(f"{'SYNTHETIC ' if pictures and evidence.synthetic else ''}{table.name}: {found}")
    for file in write_index(options.to, drawn):
        print(f"removed {file}: no longer drawn")
    print(options.to)
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())
