"""Two sides measured alternately, a ratio with its spread, a table on the screen, rows in JSON.

Imported before torch: it sets the policy of all benchmarks, one thread and OpenMP's threads asleep while they wait,
where the environment says nothing else, and puts the repository on the path.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))
for _name, _value in (("OMP_NUM_THREADS", "1"), ("OMP_WAIT_POLICY", "passive"), ("HF_HUB_OFFLINE", "1")):
    os.environ.setdefault(_name, _value)

Point = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """The answer to one question: a ratio (median, least, most) of ours to the other side, of seconds or of sizes."""

    question: str
    ratio: float | None
    """None where the other side is not there; the note says so."""
    least: float | None
    most: float | None
    rounds: int
    target: float | None = None
    """The ratio must not be above it."""
    what: str = ""
    """Both sides' medians, with their names and units."""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is none, or nothing was measured."""
        return None if self.target is None or self.ratio is None else self.ratio <= self.target


@dataclass(frozen=True)
class Curve:
    """How a cost grows: points (x, y) by rising x; the slope is fitted to `slope_of`, which names both axes' scales."""

    curve: str
    x: str
    y: str
    points: Sequence[Point]
    slope: float | None = None
    slope_of: str = "log y over log x"


@dataclass
class Sheet:
    """What a script found, shown as it comes in, written at the end."""

    title: str
    found: list[Row | Curve] = field(default_factory=list)

    def add(self, *items: Row | Curve) -> None:
        """Take in rows and curves and say each on the screen, so that a long script shows that it lives."""
        for item in items:
            self.found.append(item)
            name = item.question if isinstance(item, Row) else item.curve
            print(f"  {name}: {_figure(item)}", file=sys.stderr, flush=True)

    def finish(self, file: Path | None) -> None:
        """Print the tables; write the rows to `file`, if there is one, as a JSON list."""
        self._print()
        if file is not None:
            from lora_xs.atomic import write_text

            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps([as_json(item) for item in self.found], indent=1, ensure_ascii=False) + "\n")

    def _print(self) -> None:
        from rich.console import Console
        from rich.table import Table

        console = Console(width=None if sys.stdout.isatty() else 180)
        rows = [item for item in self.found if isinstance(item, Row)]
        console.print(f"{self.title}; {threads()}", highlight=False)
        if rows:
            table = Table("question", "ratio (least–most)", "target", "met", "measured", "note")
            for row in rows:
                met = {None: "", True: "yes", False: "no"}[row.met]
                target = "" if row.target is None else f"≤ {row.target:g}"
                table.add_row(row.question, _figure(row), target, met, row.what, row.note)
            console.print(table)
        for curve in (item for item in self.found if isinstance(item, Curve)):
            console.print(f"{curve.curve}: {_figure(curve)}", highlight=False)
            table = Table(curve.x, curve.y)
            for x, y in curve.points:
                table.add_row(f"{x:g}", f"{y:.4g}")
            console.print(table)


def arguments(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options every benchmark has: --quick, --rounds (2 where quick), --threads, --json."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller and fewer, to see that it runs")
    parser.add_argument("--rounds", type=int, help=f"pairs of runs (default: {rounds})")
    parser.set_defaults(full_rounds=rounds)
    parser.add_argument("--threads", type=int, default=int(os.environ["OMP_NUM_THREADS"]))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    return parser


def parsed(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> argparse.Namespace:
    """The options, checked, and torch set to their threads."""
    options = parser.parse_args(words)
    if options.rounds is None:
        options.rounds = 2 if options.quick else options.full_rounds
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # for processes that the script starts
    import torch

    torch.set_num_threads(options.threads)
    return options


def threads() -> str:
    """The policy under which the numbers were taken."""
    return f"threads: {os.environ['OMP_NUM_THREADS']}, OMP_WAIT_POLICY={os.environ['OMP_WAIT_POLICY']}"


def race(
    arms: Mapping[str, Callable[[], Any]],
    rounds: int,
    unmeasured: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each arm in each round, after some unmeasured ones; every second round goes the other way round.

    `clock=time.process_time` for products on one thread: others on the machine then weigh by the caches alone.
    """
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(-unmeasured, rounds):
        for name in list(arms) if number % 2 == 0 else reversed(arms):
            began = clock()
            arms[name]()
            took = clock() - began
            if number >= 0:
                seconds[name].append(took)
    return seconds


def compared(
    question: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    target: float | None = None,
    names: tuple[str, str] = ("ours", "theirs"),
    note: str = "",
) -> Row:
    """The row of seconds taken in pairs: the median of the pairs' ratios, the least and the most."""
    ratios = sorted(one / other for one, other in zip(ours, theirs, strict=True))
    what = " / ".join(f"{name} {duration(statistics.median(s))}" for name, s in zip(names, (ours, theirs), strict=True))
    return Row(question, statistics.median(ratios), ratios[0], ratios[-1], len(ratios), target, what, note)


def counted(
    question: str, ours: float, theirs: float, target: float | None = None, what: str = "", note: str = ""
) -> Row:
    """The row of two sizes that do not vary."""
    return Row(question, ours / theirs, ours / theirs, ours / theirs, 1, target, what, note)


def absent(question: str, why: str, target: float | None = None) -> Row:
    """The row of a question whose other side is not there."""
    return Row(question, None, None, None, 0, target, note=why)


def grown(curve: str, x: str, y: str, points: Iterable[Point], fitted_from: float = 0.0) -> Curve:
    """A curve with the least-squares slope of log y over log x, of the points from x = `fitted_from` on."""
    points = sorted(points)
    logs = [(math.log(a), math.log(b)) for a, b in points if a >= fitted_from]
    slope = statistics.linear_regression(*zip(*logs, strict=True)).slope if len(logs) > 1 else None
    of = "log y over log x" + (f", x ≥ {fitted_from:g}" if fitted_from else "")
    return Curve(curve, x, y, points, slope, of)


def as_json(item: Row | Curve) -> dict[str, Any]:
    """The item's fields, a row's `met` among them."""
    return dataclasses.asdict(item) | ({"met": item.met} if isinstance(item, Row) else {})


def duration(seconds: float) -> str:
    """Seconds for a reader."""
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _figure(item: Row | Curve) -> str:
    if isinstance(item, Curve):
        return f"{len(item.points)} points" if item.slope is None else f"slope {item.slope:.2f} of {item.slope_of}"
    if item.ratio is None:
        return "not measured"
    return f"{item.ratio:.3f} ({item.least:.3f}–{item.most:.3f})"
