"""Which runs stand behind an experiment's cells: composed once, then kept until a config or an experiment changes."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_xs.atomic import write_json
from lora_xs.cache import cache_root
from lora_xs.reporting.cells import Behind

if TYPE_CHECKING:
    from lora_xs.sweeps.experiment import Experiment
    from lora_xs.sweeps.grid import PlannedRun

HOUSE = Path(__file__).resolve().parents[2]
SOURCES = ("configs/**/*.yaml", "experiments/*.yaml", "lora_xs/spec/*.py", "lora_xs/sweeps/*.py")
"""What signatures follow from."""
FORMAT = 3  # of a kept plan
COMPOSING = "composing the plans of runs, kept for the next call (all experiments: about 15 s) …"


def said_once() -> Callable[[str], None]:
    """A `composing` for `planned_runs` that tells a command's user, the first time, why it takes seconds."""
    said: list[str] = []

    def say(name: str) -> None:
        if not said:
            print(COMPOSING, file=sys.stderr, flush=True)
        said.append(name)

    return say


def planned_runs(
    experiment: Experiment | str,
    overrides: Sequence[str] = (),
    composing: Callable[[str], object] = lambda name: None,
) -> list[Behind]:
    """The runs of an experiment, given whole or by a name in `experiments/`, in its file's order; `composing` hears
    its name where that takes seconds. Those of a file elsewhere are composed anew each time.

    Raises UserError as `lora_xs.sweeps.grid.expand`.
    """
    from lora_xs.sweeps.experiment_file import experiment_names, load_experiment

    name = experiment if isinstance(experiment, str) else experiment.name
    # `_house` does not see a file elsewhere, nor what it takes from further ones
    own = isinstance(experiment, str) or (name in experiment_names() and load_experiment(name) == experiment)
    folder = cache_root("plans") if own else None
    key = hashlib.sha256(json.dumps([FORMAT, _house(), name, list(overrides)]).encode()).hexdigest()[:24]
    kept = folder / f"{name}-{key}.json" if folder is not None else None
    if kept is not None and kept.is_file():
        try:
            return [_behind(**line) for line in json.loads(kept.read_text(encoding="utf-8"))]
        except (ValueError, TypeError, KeyError):
            kept.unlink(missing_ok=True)
    from lora_xs.sweeps.grid import cells

    experiment = load_experiment(experiment) if isinstance(experiment, str) else experiment
    if experiment.arms:
        composing(name)
    runs = [_seen(run) for run in cells(experiment, overrides)]
    if kept is not None:
        # coordinates as pairs: a kept plan must give tables their order as a composed one does, and JSON is sorted
        write_json(kept, [{**asdict(run), "cell": list(run.cell.items())} for run in runs])
    return runs


def _seen(run: PlannedRun) -> Behind:
    """What the tables need of a composed run."""
    trainer = run.spec.trainer
    settings = {
        "lr": trainer.learning_rate,
        "classifier_lr": trainer.head_learning_rate,
        "epochs": trainer.epochs,
    }
    known = {key: float(value) for key, value in settings.items() if value is not None}
    return Behind(run.spec.signature, run.spec.seed, dict(run.cell), run.overrides, run.needs, known)


def _behind(**line: Any) -> Behind:
    line["overrides"], line["needs"] = tuple(line["overrides"]), tuple(line["needs"])
    line["cell"] = dict(line["cell"])
    return Behind(**line)


@cache
def _house() -> str:
    """A hash of all that signatures follow from."""
    digest = hashlib.sha256()
    for pattern in SOURCES:
        for file in sorted(HOUSE.glob(pattern)):
            digest.update(str(file.relative_to(HOUSE)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
