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

from lora_xs.errors import UserError
from lora_xs.exit_status import FINISHED, MISTAKE

REPOSITORY = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do as the arguments say; exit status 0, or 2 for a mistake of the user's."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        return _figures(options)
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return MISTAKE


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
    from lora_xs.reporting.asked import experiments_asked
    from lora_xs.reporting.evidence import read_evidence
    from lora_xs.reporting.figures.files import FORMATS, save, write_index
    from lora_xs.reporting.figures.index import draw_figures
    from lora_xs.reporting.figures.picture import Picture
    from lora_xs.reporting.material import material_of
    from lora_xs.reporting.planned import said_once
    from lora_xs.reporting.table import make_table
    from lora_xs.reporting.targets import checked_folder
    from lora_xs.sweeps.experiment_file import experiment_names, load_experiment

    formats = list(dict.fromkeys(part.strip() for part in options.format.split(",")))
    for part in formats:
        if part not in FORMATS:
            raise UserError(f"--format {part!r} is unknown; choose among {', '.join(FORMATS)}")
    checked_folder(options.to, "--to ")
    names, overrides = experiments_asked(options.words, experiment_names())
    experiments = [load_experiment(name) for name in names]
    evidence = read_evidence(options.results or [REPOSITORY / "results"])
    for file in evidence.unreadable:
        print(f"warning: {file} is no whole record, passed over", file=sys.stderr)
    drawn: dict[str, list[Picture]] = {}
    say = said_once()
    for experiment in experiments:
        table = make_table(experiment, evidence, overrides, statistic=options.statistic, of=options.of, composing=say)
        pictures = drawn[experiment.name] = draw_figures(material_of(table, evidence))
        for picture in pictures:
            save(picture, options.to, formats)
        found = ", ".join(picture.name for picture in pictures) or "nothing to draw"
        print(f"{'SYNTHETIC ' if pictures and evidence.synthetic else ''}{experiment.name}: {found}")
    for file in write_index(options.to, drawn):
        print(f"removed {file}: no longer drawn")
    print(options.to)
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())
