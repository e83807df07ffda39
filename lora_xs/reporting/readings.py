"""What number of a finished run stands in a cell: its score at an epoch, on a test, or its seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_xs.records import Record
from lora_xs.reporting.published import AVERAGE

TESTS = {"openbookqa": "obqa"}
"""What the papers call a test, where this suite has another name."""
EPOCHS = "when"
QUANTITY = "quantity"


def reading(record: Record, place: Mapping[str, str], of: str) -> float | None:
    """The run's number at `place`; None where the record has none.

    of: `best` or `last` evaluation, or `seconds` of training. Scores are points (0–100) of the task's main metric, for
    a run that answered tests those of the test `place["task"]` (of all of them: `avg`); losses are nats. A coordinate
    `quantity` asks for a measured time (seconds, or percent), `when` for an epoch.
    """
    train = record.train
    if QUANTITY in place:
        return _quantity(train, place[QUANTITY])
    if of == "seconds":
        return _number(train.get("seconds", {}).get("training"))
    tests = train.get("tests") or {}
    name = TESTS.get(place.get("task", ""), place.get("task", ""))
    if tests and name == AVERAGE:
        return sum(test["points"] for test in tests.values()) / len(tests)
    if name in tests:
        return _number(tests[name]["points"])
    line = _line(train, place.get(EPOCHS, of))
    return _number(line.get(record.run["spec"]["task"]["main_metric"])) if line else None


def answers_are_constant(record: Record, place: Mapping[str, str], of: str) -> bool:
    """Whether the score that stands at `place` is that of one answer for every row."""
    if QUANTITY in place or of == "seconds" or record.train.get("tests"):
        return False
    line = _line(record.train, place.get(EPOCHS, of)) or {}
    return bool(line.get("constant_prediction"))


def metric_of(record: Record, place: Mapping[str, str]) -> str:
    """The name of what `reading` reads."""
    if QUANTITY in place:
        return place[QUANTITY]
    tests = record.train.get("tests") or {}
    task = place.get("task", "")
    if tests and (task == AVERAGE or TESTS.get(task, task) in tests):
        return "accuracy"
    return str(record.run["spec"]["task"]["main_metric"])


def scored_rows(record: Record, place: Mapping[str, str]) -> int | None:
    """How many rows the score is over; None where the record does not say."""
    tests = record.train.get("tests") or {}
    name = TESTS.get(place.get("task", ""), place.get("task", ""))
    if name in tests:
        return int(tests[name]["n"])
    rows = record.environment.get("data", {}).get("rows", {}).get("validation")
    return int(rows) if rows and not tests else None


def tests_of(record: Record) -> list[str]:
    """The tests a run answered, in the record's order."""
    return list(record.train.get("tests") or {})


def _line(train: Mapping[str, Any], when: str) -> Mapping[str, Any] | None:
    """The evaluation at `when`: best, last, or epochN."""
    if when.startswith("epoch"):
        epoch = float(when.removeprefix("epoch"))
        return next((line for line in train.get("evaluations", ()) if line.get("epoch") == epoch), None)
    return train.get(when)


def _quantity(train: Mapping[str, Any], name: str) -> float | None:
    """A time of LoRA-XS's Table 5 or LoRA-SB's Table 5."""
    seconds = train.get("seconds", {})
    training, setup = seconds.get("training"), seconds.get("adapter")
    if training is None or setup is None:
        return None
    if name == "finetune_seconds":
        return float(training)
    if name in ("svd_init_seconds", "init_seconds"):
        return float(setup)
    if name == "overhead_percent":
        return 100 * float(setup) / float(training)
    if name == "epoch_seconds":
        last = train.get("last") or {}
        return float(training) / float(last["epoch"]) if last.get("epoch") else None
    return None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
