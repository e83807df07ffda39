"""Find out about finished runs what takes no training: LoRA-XS's App. E, F and C, LoRA-SB's Tables 5 and 6.

python scripts/analyse.py spectrum results/runs/…/s0-1b2c…         # App. E: a part of the singular values kept
python scripts/analyse.py projection results/runs/…/s0-1b2c…       # App. F: ΔW projected on W's singular vectors
python scripts/analyse.py spectrum … --fractions 0.1,0.5 --modules query,value --rows 200
python scripts/analyse.py cost                                     # parameters, operations and times beside the papers'

The first two take a run with method=full_ft (a folder or a signature). They write a line a point to
`<run>/analysis/<name>.jsonl` and in the end `<run>/analysis/<name>.json`; the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lora_xs.errors import UserError
from lora_xs.exit_status import FAILED, FINISHED, INTERRUPTED, told_in_a_line
from lora_xs.imports import quiet_command

if TYPE_CHECKING:
    from lora_xs.analysis.record import AnalysisRecord
    from lora_xs.analysis.study import Point

TIMED = ("table05_svd_overhead", "table06_runtime", "sb_table05_init_overhead")
"""Experiments whose cells are seconds."""


@told_in_a_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Do as the arguments say; exit status 0, 1 where another process is at it, 2 for a mistake, 130 when stopped."""
    options = _parser().parse_args(arguments)
    quiet_command()
    try:
        return _cost(options) if options.analysis == "cost" else _study(options)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last point", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Find out about finished runs what takes no training.")
    analyses = parser.add_subparsers(dest="analysis", required=True)
    for name, words in (
        ("spectrum", "App. E: keep a part of the fine-tuned weights' singular values"),
        ("projection", "App. F: project the change on a part of the base's singular vectors"),
    ):
        study = analyses.add_parser(name, help=words)
        study.add_argument("run", help="a finished run with method=full_ft: its folder, or its signature")
        study.add_argument("--fractions", metavar="F,…", help="of the singular values, 0 to 1 (default: the paper's)")
        study.add_argument("--modules", metavar="KIND,…", help="e.g. query,output.dense (default: the paper's)")
        study.add_argument("--rows", type=int, metavar="N", help="score N of the validation rows (default: all)")
        study.add_argument("--which", choices=("best", "last"), default="best", help="the weights of which evaluation")
        study.add_argument("--data", metavar="FOLDER", help="where the rows lie now (default: where they lay)")
        study.add_argument("--results", type=Path, default=Path("results"), help="where a signature is looked for")
        study.add_argument("--threads", type=int, help="of the CPU (default: one a physical core)")
        study.add_argument("--json", action="store_true", help="print the record as JSON")
    cost = analyses.add_parser("cost", help="parameters, operations of a forward pass, and measured times")
    cost.add_argument("--results", type=Path, default=Path("results/runs"), help="runs whose times are shown")
    cost.add_argument("--json", action="store_true", help="print the record as JSON")
    return parser


def _study(options: argparse.Namespace) -> int:
    from lora_xs.environment import set_threads

    set_threads(options.threads, "passive")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from lora_xs.analysis.projection import Projection
    from lora_xs.analysis.spectrum import Spectrum
    from lora_xs.analysis.study import Settings
    from lora_xs.lease import RunBusy
    from lora_xs.sweeps.compare import find_run

    if options.rows is not None and options.rows < 1:
        raise UserError(f"--rows {options.rows}: at least 1 row is scored")
    study = Spectrum() if options.analysis == "spectrum" else Projection()
    folder = find_run(options.run, options.results)
    settings = Settings(options.which, options.rows, _words(options.modules), _numbers(options.fractions))
    asked = [f"--{key} {getattr(options, key)}" for key in ("fractions", "modules", "rows") if getattr(options, key)]
    asked += ["--which last"] if options.which == "last" else []
    command = " ".join([f"python scripts/analyse.py {options.analysis} {folder.name}", *asked])
    try:
        record, already = study.run(folder, settings, data=options.data, command=command, tell=_tell)
    except RunBusy as busy:
        print(f"busy: {busy}", file=sys.stderr)
        return FAILED
    if options.json:
        print(json.dumps(asdict(record), indent=2, sort_keys=True, ensure_ascii=False))
        return FINISHED
    if already:
        print(f"already done ({record.started})")
    _show(record)
    return FINISHED


def _cost(options: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from lora_xs.analysis.record import write_analysis
    from lora_xs.environment import describe_environment
    from lora_xs.reporting.building import build_cells
    from lora_xs.reporting.cost_tables import print_costs
    from lora_xs.reporting.counted import cost_record
    from lora_xs.reporting.evidence import read_evidence
    from lora_xs.reporting.planned import planned_runs
    from lora_xs.reporting.times import start_times
    from lora_xs.sweeps.experiment_file import load_experiment
    from lora_xs.sweeps.show import console_of_output

    if not options.results.is_dir():
        raise UserError(f"--results {options.results}: no such folder; name one that holds records")
    records = read_evidence([options.results]).records
    record = cost_record(start_times(records.values()))
    record.command, record.started = "python scripts/analyse.py cost", datetime.now(UTC).isoformat(timespec="seconds")
    record.environment = describe_environment()
    path = write_analysis(options.results, record)
    if options.json:
        print(json.dumps(asdict(record), indent=2, sort_keys=True, ensure_ascii=False))
        return FINISHED
    printed = [cell for name in TIMED for cell in build_cells(load_experiment(name), planned_runs(name), records)]
    print_costs(record, printed, console_of_output())
    print(path)
    return FINISHED


def _words(text: str | None) -> tuple[str, ...] | None:
    return tuple(text.split(",")) if text else None


def _numbers(text: str | None) -> tuple[float, ...] | None:
    try:
        return tuple(float(word) for word in text.split(",")) if text else None
    except ValueError:
        raise UserError(f"--fractions {text}: not numbers; write them as 0,0.1,0.25") from None


def _tell(point: Point) -> None:
    scores = ", ".join(f"{k} {v:.2f}" for k, v in point["scores"].items() if isinstance(v, float) and k != "loss")
    where = f"{point['module']} {point['subset']} {point['retained_fraction']:g} ({point['triplets']} kept)"
    print(f"{where}: {scores} in {point['seconds']:.1f} s", file=sys.stderr, flush=True)


def _show(record: AnalysisRecord) -> None:
    """A line a module and part of the spectrum, a column a fraction."""
    from rich.table import Table

    from lora_xs.sweeps.show import console_of_output

    main = record.run["spec"]["task"]["main_metric"]
    fractions = record.settings["fractions"]
    table = Table("module", "kept", *(f"{fraction:g}" for fraction in fractions))
    found = {(p["module"], p["subset"], p["retained_fraction"]): p["scores"][main] for p in record.points}
    for module, subset in dict.fromkeys((p["module"], p["subset"]) for p in record.points):
        values = [found.get((module, subset, fraction)) for fraction in fractions]
        table.add_row(module, subset, *("-" if value is None else f"{value:.2f}" for value in values))
    console = console_of_output()
    console.print(table)
    console.print(f"{main} of the weights as they are: {record.unchanged[main]:.2f}; {record.seconds:.0f} s in all")


if __name__ == "__main__":
    sys.exit(main())
