"""Records that fill the cells of every table: published values with seeded deviations, marked synthetic, no results.

Deviations are seeded by what a cell is and by the seed of its run, not by signatures: golden files outlive a new one.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_xs.analysis.record import AnalysisRecord, write_analysis
from lora_xs.records import RECORD, Record
from lora_xs.reporting.cells import START, Behind
from lora_xs.reporting.noise import ROWS
from lora_xs.reporting.planned import planned_runs
from lora_xs.reporting.published import AVERAGE, PublishedCell, agrees, read_published
from lora_xs.reporting.readings import TESTS
from lora_xs.sweeps.experiment import Experiment
from lora_xs.sweeps.experiment_file import experiment_names, load_experiment

METRICS = {"glue/cola": "matthews", "glue/stsb": "pearson"}
STARTED = "2000-01-01T00:00:00+00:00"
BEST_EPOCH = 3
SPREAD = 0.3
TRAINABLE = 61_440
OWN_TESTS = {"mini_math": ("word_problems",), "mini_commonsense": ("boolq", "piqa", "obqa")}
Numbers = dict[str, float]  # of one run: "score", "training", …, "epoch1", "test boolq"


def write_synthetic(results: Path, names: Sequence[str] = ()) -> dict[str, Record]:
    """A record for every run of the experiments (all without names), and of every analysis of runs; by signature.

    Where two tables print a number of one run, the first decides it.
    """
    numbers: dict[str, Numbers] = defaultdict(dict)
    runs: dict[str, Behind] = {}
    for name in names or experiment_names():
        experiment = load_experiment(name)
        printed = [cell for file in experiment.published for cell in read_published(file)]
        for run in planned_runs(name):
            runs.setdefault(run.signature, run)
            for key, value in _numbers(experiment, run, printed).items():
                numbers[run.signature].setdefault(key, value)
            for analysis in _analyses(experiment, run, printed) if experiment.analyses else ():
                write_analysis(_folder(results, run), analysis)
    records = {one: record_of(run, numbers[one]) for one, run in runs.items()}
    for signature, record in records.items():
        place(_folder(results, runs[signature]), record)
    return records


def _folder(results: Path, run: Behind) -> Path:
    return results / f"s{run.seed}-{run.signature}"


def place(folder: Path, record: Record) -> None:
    """`write_record` without a wait for the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).write_text(json.dumps(asdict(record)), encoding="utf-8")


def record_of(run: Behind, numbers: Numbers, status: str = "finished") -> Record:
    """The record of a run that has these numbers; what is not among them is made up."""
    task = [word for word in run.overrides if word.startswith("task=")][-1].removeprefix("task=")
    instruction = not task.startswith("glue/") and not task.startswith("reviews")
    metric = "response_loss" if instruction else METRICS.get(task, "accuracy")
    score = 1.5 if instruction else numbers.get("score", 60 + 20 * random.Random(run.signature).random())
    if instruction:
        score += random.Random(run.signature).random()
    epochs = run.settings["epochs"]
    lines = [{"epoch": float(n), metric: numbers[f"epoch{n}"]} for n in (1, 2) if f"epoch{n}" in numbers]
    best, last = {"epoch": float(BEST_EPOCH), metric: score}, {"epoch": epochs, metric: numbers.get("last", score)}
    training = numbers.get("training", numbers.get("epoch", 50.0) * epochs)
    tests = {
        key.removeprefix("test "): {"points": points, "n": ROWS.get(key.removeprefix("test "), 64), "scorer": "strict"}
        for key, points in numbers.items()
        if key.startswith("test ")
    }
    rows = ROWS.get(task.removeprefix("glue/"), 200)
    return Record(
        status=status,  # type: ignore[arg-type]
        run={
            "signature": run.signature,
            "seed": run.seed,
            "synthetic": True,
            "spec": {"task": {"name": task, "main_metric": metric}},
            "started": STARTED,
            "error": None,
        },
        train={
            "evaluations": [*lines, best, last],
            "best": best,
            "last": last,
            "tests": tests,
            "seconds": {"training": training, "adapter": numbers.get("adapter", 1.0)},
            "parameters": {"adapter": TRAINABLE, "head": 1024},
        },
        environment={"data": {"rows": {"validation": rows}}},
    )


def _numbers(experiment: Experiment, run: Behind, printed: Sequence[PublishedCell]) -> Numbers:
    """What the published cells that `run` stands behind say of it."""
    if run.cell.get("role") == START:
        return {}
    found: Numbers = {}
    for cell in printed:
        if experiment.analyses or not agrees(run.cell, cell.place):
            continue
        key = _key(experiment, run, cell.place)
        if key is not None:
            found[key] = _deviated(experiment, cell, run.seed)
    if "score" in found and "last" not in found:
        found["last"] = found["score"] - random.Random(f"last {run.cell} {run.seed}").random()
    for test in OWN_TESTS.get(experiment.name, ()):
        found[f"test {test}"] = 40 + 20 * random.Random(f"{test} {run.cell} {run.seed}").random()
    return found


def _analyses(experiment: Experiment, run: Behind, printed: Sequence[PublishedCell]) -> list[AnalysisRecord]:
    """Records of the experiment's analyses, their points deviating from the published cells; of our own, two points."""
    header = {"signature": run.signature, "seed": run.seed, "started": STARTED}
    coordinates = ("module", "retained_fraction", "subset")
    found = [
        ([cell.place[key] for key in coordinates], _deviated(experiment, cell, run.seed))
        for cell in printed
        if agrees(run.cell, cell.place)
    ]
    found = found or [(["query", "0.5", subset], 70.0) for subset in ("top", "bottom")]
    return [
        AnalysisRecord(name, header, {"which": "best", "rows": None}, [_point(*one) for one in found])
        for name in experiment.analyses
    ]


def _point(place: Sequence[str], points: float) -> dict[str, Any]:
    module, fraction, subset = place
    scores = {"accuracy": points, "matthews": points}
    return {"module": module, "retained_fraction": float(fraction), "subset": subset, "scores": scores}


def _key(experiment: Experiment, run: Behind, place: Mapping[str, str]) -> str | None:
    quantities = {
        **{"finetune_seconds": "training", "svd_init_seconds": "adapter"},
        **{"init_seconds": "adapter", "epoch_seconds": "epoch"},
    }
    if "quantity" in place:
        return quantities.get(place["quantity"])
    if experiment.aggregate is not None and experiment.aggregate.of == "seconds":
        return "training"
    if place.get("task") == AVERAGE:
        return None
    if "task" in place and "task" not in run.cell:
        return f"test {TESTS.get(place['task'], place['task'])}"
    when = place.get("when", "best")
    return "score" if when == "best" else when


def _deviated(experiment: Experiment, cell: PublishedCell, seed: int) -> float:
    """The published value, a little off for the cell and a little more for the seed."""
    place = sorted(cell.place.items())
    shift = random.Random(f"{experiment.name} {place}").gauss(0, 1.0)
    noise = random.Random(f"{experiment.name} {place} {seed}").gauss(0, SPREAD)
    value = cell.value + shift + noise
    timed = "quantity" in cell.place or (experiment.aggregate is not None and experiment.aggregate.of == "seconds")
    return abs(value) if timed else min(100.0, max(0.0, value))
