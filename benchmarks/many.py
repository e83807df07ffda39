"""How do tables and plans grow with the number of runs? Synthetic records of whole experiments; nothing is trained.

    python benchmarks/many.py [--quick] [--rounds N] [--json FILE]

Tables: `scripts/tables.py` over a folder of that many records. Plans: `scripts/sweep.py` on whole experiments. What a
worker spends on a run besides its training is asked by warm.py.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import side_by_side  # isort: skip (before torch)
from side_by_side import REPOSITORY, Curve, Row, Sheet, compared, grown

sys.path.insert(0, str(REPOSITORY / "tests" / "reporting"))
from synthetic import write_synthetic

RECORDS = (125, 1000, 1750)
AIMED, LIMIT = 1000, 5.0  # records, seconds
PLANNED = ("mini_spectrum", "table12_init_grid_sst2", "table01_glue")


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = side_by_side.parsed(side_by_side.arguments(__doc__, rounds=2), words)
    sheet = Sheet("Many runs")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_synthetic(folder / "all")
        sheet.add(*tables(folder, RECORDS[:2] if options.quick else RECORDS, options.rounds))
        sheet.add(plans(folder, PLANNED[:2] if options.quick else PLANNED, options.rounds))
    sheet.finish(options.json)
    return 0


def tables(folder: Path, counts: Sequence[int], rounds: int) -> list[Row | Curve]:
    """Seconds of all tables from so many records: every file of records at one stride."""
    every = sorted((folder / "all").iterdir())
    for count in counts:
        for number in range(count):
            one = every[number * len(every) // count]
            shutil.copytree(one, folder / str(count) / one.name)
    command = ["scripts/tables.py", "--to", str(folder / "tables"), "--results"]
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for number in range(-1, rounds):  # the first makes the plans that are kept
        for count in counts if number % 2 == 0 else reversed(counts):
            took = timed([*command, str(folder / str(count))])
            if number >= 0:
                seconds[count].append(took)
    points = {count: median(taken) for count, taken in seconds.items()}
    rows: list[Row | Curve] = [grown("tables' time against the records", "records", "s", points.items())]
    if AIMED in seconds:
        question = f"all tables of {AIMED:,} records: seconds of {LIMIT:g}"
        rows.append(compared(question, seconds[AIMED], [LIMIT] * rounds, 1.0, ("took", "allowed")))
    return rows


def plans(folder: Path, names: Sequence[str], rounds: int) -> Curve:
    """Seconds of `scripts/sweep.py` without --submit: composing every run, its cost, its state (all are finished)."""
    from lora_xs.reporting.planned import planned_runs

    runs = {name: len(planned_runs(name)) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, rounds):
        for name in names if number % 2 == 0 else reversed(names):
            took = timed(["scripts/sweep.py", f"experiment={name}", f"results={folder / 'all'}", "--device", "h100"])
            if number >= 0:
                seconds[name].append(took)
    points = {runs[name]: median(taken) for name, taken in seconds.items()}
    return grown("planning a sweep against its runs", "runs", "s", points.items())


def timed(command: Sequence[str]) -> float:
    """Seconds that `python <command>` took. Raises SystemExit where it failed."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
