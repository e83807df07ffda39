"""What does a warm worker save? Short runs in one worker against a process of `train.py` each.

    python benchmarks/warm.py [--quick] [--rounds N] [--json FILE]    # a tiny model of the script's own
    python benchmarks/warm.py --model minilm                          # MiniLM from its package, on task=reviews

The two sides alternate, after one unmeasured process that fills the store of factors. Seconds are those of whole
processes, imports and all; "beyond its training" is what a run took less the seconds that its record says it trained.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import side_by_side  # isort: skip (before torch)
from side_by_side import REPOSITORY, Curve, Sheet, compared, grown
from tiny_world import build

from lora_xs.records import read_record
from lora_xs.spec import RunSpec
from lora_xs.spec.compose import compose_spec
from lora_xs.sweeps.manifest import Line, write_manifest

WORKED = (1, 4, 12)
MINILM = ["task=reviews", "task.train_rows=256", "task.validation_rows=128", "task.max_length=64"]


class Side:
    """One way to run them. total: seconds of all. beyond: of each further run, seconds that were not training."""

    def __init__(self) -> None:
        self.total: list[float] = []
        self.beyond: list[float] = []

    def count(self, specs: Sequence[RunSpec], ends: Sequence[float]) -> None:
        """Take in one round: when each run ended, seconds from its beginning."""
        self.total.append(ends[-1])
        for spec, before, end in zip(specs[1:], ends, ends[1:], strict=False):
            record = read_record(spec.folder)
            if record is None or record.status != "finished":
                raise SystemExit(f"{spec.folder}: did not finish; see log.txt there")
            self.beyond.append(end - before - record.train["train_seconds"])


def apart(specs: Sequence[RunSpec], overrides: Sequence[str], environment: dict[str, str]) -> list[float]:
    """Each run in a process of its own, one after another; the seconds at which each ended."""
    began, ends = time.perf_counter(), []
    for spec in specs:
        words = [sys.executable, "train.py", *overrides, f"seed={spec.seed}", f"results={spec.results}"]
        done = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")
        ends.append(time.perf_counter() - began)
    return ends


def packed(specs: Sequence[RunSpec], manifest: Path, environment: dict[str, str]) -> list[float]:
    """All runs in one warm worker; the seconds at which each ended, the last one's with the worker's own end."""
    write_manifest(manifest, [Line(spec) for spec in specs])
    words = [sys.executable, "-m", "lora_xs.sweeps.worker", "--manifest", str(manifest)]
    began = time.perf_counter()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, cwd=REPOSITORY, env=environment, text=True, **pipes) as worker:
        assert worker.stdout is not None
        ends = [time.perf_counter() - began for line in worker.stdout if line.startswith("finished ")]
    if worker.returncode:
        raise SystemExit(f"the worker ended with {worker.returncode}; its runs are below {specs[0].results}")
    return [*ends[:-1], time.perf_counter() - began]


def overhead(folder: Path, first: RunSpec, environment: dict[str, str]) -> Curve:
    """Seconds that a worker spends besides training, against its runs: one start, and so much for each."""
    specs = [first.replace(seed=seed, results=str(folder / "many")) for seed in range(WORKED[-1])]
    ends = packed(specs, folder / "many.jsonl", environment)
    records = [read_record(spec.folder) for spec in specs]
    trained = list(accumulate(record.train["train_seconds"] for record in records if record))
    points = [(count, ends[count - 1] - trained[count - 1]) for count in WORKED]
    return grown("a worker's seconds besides training against its runs", "runs", "s", points)


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    parser = side_by_side.arguments(__doc__, rounds=2)
    parser.add_argument("--model", choices=("tiny", "minilm"), default="tiny")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="optimiser steps of a run")
    options = side_by_side.parsed(parser, words)
    if options.runs < 2:
        parser.error("--runs must be at least 2")
    if options.quick:
        options.runs, options.rounds = 2, 1
    sheet = Sheet(f"Warm workers, {options.model}, {options.runs} runs of {options.steps} steps")
    environment = dict(os.environ)
    sides = {"apart": Side(), "packed": Side()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment["LORA_XS_CACHE"] = str(folder / "cache")
        world = MINILM if options.model == "minilm" else build(folder)
        overrides = [*world, f"trainer.max_steps={options.steps}", f"launcher.threads={options.threads}"]
        first = compose_spec([*overrides, "seed=0"])

        def runs(place: str) -> list[RunSpec]:
            return [first.replace(seed=seed, results=str(folder / place)) for seed in range(options.runs)]

        apart(runs("unmeasured")[:1], overrides, environment)
        if not options.quick:
            sheet.add(overhead(folder, first, environment))
        for number in range(options.rounds):
            specs = runs(f"apart{number}")
            sides["apart"].count(specs, apart(specs, overrides, environment))
            specs = runs(f"packed{number}")
            sides["packed"].count(specs, packed(specs, folder / f"{number}.jsonl", environment))
    names = ("warm worker", "a process each")
    one, other = sides["packed"], sides["apart"]
    question = "a further short run beyond its training, in a warm worker, against a process of its own"
    note = f"{options.model}, {options.runs} runs of {options.steps} steps, {options.rounds} rounds"
    sheet.add(
        compared(question, one.beyond, other.beyond, 0.1, names, note),
        compared(f"{options.runs} short runs in all, in a warm worker", one.total, other.total, None, names),
    )
    sheet.finish(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
