"""Many tiny runs, and kill -9 at random: of workers, and of the launcher, which is then started again.

    python benchmarks/stress.py                        # 200 runs, at least 40 kills: half an hour on two cores
    python benchmarks/stress.py --runs 20 --kills 6

Checks in the end that every run has a record, that each was trained to its end once and recorded once, and that all it
left equals, to the bit, what the same runs leave in one warm process that nobody disturbs. Prints the figures, and a
line for each mismatch; exit status 1 where there is any. `--seed` fixes what is killed and after how many records.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "sweeps"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sweep_runs import leavings, times_trained
from tiny_world import build

from lora_xs.records import RECORD, read_record
from lora_xs.spec import RunSpec
from lora_xs.spec.compose import compose_spec
from lora_xs.sweeps.manifest import Line, read_manifest, write_manifest

KINDS = (["method=lora_xs"], ["method=pissa"], ["method=lora_sb"], ["method=lora_xs", "task=glue/stsb"])
LAUNCHERS = 0.25  # of the kills
RETRIES = 3
PATIENCE = 1800.0  # seconds without a new record, then something hangs
UNWANTED = 200  # restarts beyond those after a kill: a launcher that ends by itself and leaves runs


def launch(manifest: Path, workers: int) -> int:
    """What the launcher's process does."""
    from lora_xs.sweeps.local import launch_local

    outcome = launch_local(read_manifest(manifest), workers=workers, threads=1, retries=RETRIES)
    print(*outcome.lines(), sep="\n", flush=True)
    return 0 if outcome.complete else 1


def start(manifest: Path, workers: int, log: Path) -> subprocess.Popen[bytes]:
    """A launcher as a process of its own; what it says goes to `log`."""
    words = [sys.executable, __file__, "--launch", str(manifest), "--workers", str(workers)]
    with open(log, "ab") as said:
        return subprocess.Popen(words, stdout=said, stderr=said, start_new_session=True)


def children(pid: int) -> list[int]:
    """Process ids of a process's children, in the order of their start; none where it has gone."""
    try:
        return sorted(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    except OSError:
        return []


class Storm:
    """The kills, and what was seen meanwhile. due: numbers of records after which the next victim falls."""

    def __init__(self, specs: Sequence[RunSpec], kills: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self.due = sorted(self.chance.uniform(0, 0.9 * len(specs)) for _ in range(kills))
        self.victims = ["launcher" if n < round(LAUNCHERS * kills) else "worker" for n in range(kills)]
        self.chance.shuffle(self.victims)
        self.kills = {"worker": 0, "launcher": 0}
        self.launches = 0
        self.folders = [spec.folder for spec in specs]
        self.marks: dict[Path, tuple[int, int]] = {}
        self.rewritten: list[Path] = []

    def rage(self, manifest: Path, workers: int, log: Path) -> None:
        """Launch and kill until every run has its record. Raises SystemExit where no end is in sight."""
        launcher: subprocess.Popen[bytes] | None = None
        changed, done = time.monotonic(), -1
        try:
            while True:
                if launcher is None or launcher.poll() is not None:
                    if self.look() == len(self.folders):
                        return
                    if self.launches > self.kills["launcher"] + UNWANTED:
                        raise SystemExit(f"the launcher keeps ending with runs left: see {log}")
                    launcher = start(manifest, workers, log)
                    self.launches += 1
                time.sleep(self.chance.uniform(0.05, 0.25))
                if (now := self.look()) != done:
                    changed, done = time.monotonic(), now
                if time.monotonic() - changed > PATIENCE:
                    raise SystemExit(f"no new record in {PATIENCE:.0f} s: see {log}")
                if self.due and now >= self.due[0] and self.strike(launcher):
                    self.due.pop(0)
        finally:
            if launcher is not None and launcher.poll() is None:
                launcher.terminate()  # its workers write checkpoints and go
                launcher.wait()

    def strike(self, launcher: subprocess.Popen[bytes]) -> bool:
        """Kill the next victim, if it is there and at work."""
        workers = [pid for pid in children(launcher.pid) if self.at_work(pid)]
        if not workers:
            return False
        kind = self.victims[sum(self.kills.values())]
        victim = launcher.pid if kind == "launcher" else self.chance.choice(workers)
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            return False
        if kind == "launcher":
            launcher.wait()
        self.kills[kind] += 1
        return True

    def at_work(self, pid: int) -> bool:
        """Whether a worker holds a run."""
        for folder in self.folders:
            if folder not in self.marks:
                try:
                    if f'"pid": {pid},' in (folder / "lease.json").read_text():
                        return True
                except OSError:
                    continue
        return False

    def look(self) -> int:
        """How many runs have a record; one that was written a second time is noted."""
        for folder in self.folders:
            try:
                facts = (folder / RECORD).stat()
            except OSError:
                continue
            mark = facts.st_ino, facts.st_mtime_ns
            if self.marks.setdefault(folder, mark) != mark:
                self.rewritten.append(folder)
        return len(self.marks)


def check(specs: Sequence[RunSpec], undisturbed: Sequence[RunSpec], storm: Storm) -> list[str]:
    """What is not as it should be, a line each."""
    wrong = [f"{folder}: its record was written twice" for folder in storm.rewritten]
    if storm.due:
        wrong.append(f"{len(storm.due)} kills found no victim: the runs are too short for so many")
    for spec, alone in zip(specs, undisturbed, strict=True):
        record, calm = read_record(spec.folder), read_record(alone.folder)
        if record is None or calm is None or record.signature != calm.signature:
            wrong.append(f"{spec.folder}: no record of this run, or none of the undisturbed one")
            continue
        if times_trained(spec.folder) > 1:
            wrong.append(f"{spec.folder}: trained to its end {times_trained(spec.folder)} times")
        parts = zip(("record", "files", "tensors"), leavings(spec.folder), leavings(alone.folder), strict=True)
        wrong += [f"{spec.folder}: its {what} differ from the undisturbed run's" for what, a, b in parts if a != b]
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Raise the storm, compare, print the figures; exit status 1 at any mismatch."""
    parser = argparse.ArgumentParser(description="Random kills of workers and launchers change nothing.")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--steps", type=int, default=18, help="optimiser steps of a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the runs, to look at afterwards; must be new or empty")
    parser.add_argument("--launch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.launch is not None:
        return launch(options.launch, options.workers)
    if options.runs < 1 or options.kills < 0 or options.workers < 1:
        parser.error("--runs and --workers must be at least 1, --kills at least 0")
    if options.keep is not None and options.keep.is_dir() and any(options.keep.iterdir()):
        parser.error(f"--keep {options.keep} is not empty; old records would pass for new ones")
    os.environ.update(HF_HUB_OFFLINE="1")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["LORA_XS_CACHE"] = str(folder / "cache")
        short = [f"trainer.max_steps={options.steps}", "trainer.checkpoint_seconds=0.1", f"results={folder / 'stormy'}"]
        world = [*build(folder), *short]
        kinds = [compose_spec([*world, *kind]) for kind in KINDS]
        specs = [kinds[n % len(kinds)].replace(seed=n) for n in range(options.runs)]
        undisturbed = [spec.replace(results=str(folder / "calm")) for spec in specs]
        write_manifest(folder / "stormy.jsonl", [Line(spec) for spec in specs])
        write_manifest(folder / "calm.jsonl", [Line(spec) for spec in undisturbed])

        storm, began = Storm(specs, options.kills, options.seed), time.perf_counter()
        storm.rage(folder / "stormy.jsonl", options.workers, folder / "stormy.log")
        seconds, began = time.perf_counter() - began, time.perf_counter()
        calm = start(folder / "calm.jsonl", 1, folder / "calm.log").wait()
        alone = time.perf_counter() - began
        if calm:
            raise SystemExit(f"the undisturbed runs did not finish:\n{(folder / 'calm.log').read_text()}")
        wrong = check(specs, undisturbed, storm)
        logs = [(spec.folder / "log.txt").read_text() for spec in specs if (spec.folder / "log.txt").is_file()]
        figures = {
            "runs": options.runs,
            "records": len(storm.marks),
            "kills of workers": storm.kills["worker"],
            "kills of the launcher": storm.kills["launcher"],
            "restarts of the launcher": storm.launches - 1,
            "runs resumed from a checkpoint": sum("going on from step-" in log for log in logs),
            "killed between their record and saying so": sum(times_trained(spec.folder) == 0 for spec in specs),
            "seconds": f"{seconds:.0f} with {options.workers} workers; undisturbed, one warm process: {alone:.0f}",
            "mismatches": len(wrong),
        }
    print("| | |\n| --- | --- |", *(f"| {name} | {value} |" for name, value in figures.items()), sep="\n")
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
