"""What number of a finished run stands in a cell: its score at an epoch, on a test, or its seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lora_xs.records import Record
from lora_xs.reporting.published import AVERAGE

TESTS = {"openbookqa": "obqa"}
"""What the papers call a test, where this suite has another name."""
EPOCHS = "when"
QUANTITY = "quantity"


READING = "reading"
LIKELIHOOD, GENERATION = "likelihood", "generation"
"""Values of the coordinate READING, of tests that were read both ways."""


def reading(record: Record, place: Mapping[str, str], of: str, columns: Sequence[str] = ()) -> float | None:
    """The run's number at `place`; None where the record has none.

    of: `best` or `last` evaluation, or `seconds` of training. Scores are points (0–100) of the task's main metric;
    losses are nats. Of a run that answered tests, `place["task"]` is one of these and nothing else, whatever `of`:
    they are of the adapter that the run selected. `avg` is the mean over `columns`, the tests of the table's row,
    where the run has them all. A coordinate `quantity` asks for a measured time (seconds, or percent), `when` for an
    epoch, `reading` for how a test's answers were read.
    """
    train = record.train
    if QUANTITY in place:
        return _quantity(train, place[QUANTITY])
    if of == "seconds":
        return _number(train.get("seconds", {}).get("training"))
    if is_of_test(record, place):
        names = columns if place["task"] == AVERAGE else [place["task"]]
        points = [_points(train["tests"].get(TESTS.get(name, name), {}), place.get(READING)) for name in names]
        known = [one for one in points if one is not None]
        return sum(known) / len(known) if known and len(known) == len(points) else None
    line = _line(train, place.get(EPOCHS, of))
    return _number(line.get(record.run["spec"]["task"]["main_metric"])) if line else None


def is_of_test(record: Record, place: Mapping[str, str]) -> bool:
    """Whether what stands at `place` is of a test that the run answered, not of an evaluation while it trained."""
    return bool(record.train.get("tests")) and "task" in place and QUANTITY not in place


def without_answer(record: Record, place: Mapping[str, str]) -> int:
    """How many completions of the test at `place` held no answer; 0 of other numbers."""
    if not is_of_test(record, place) or place.get(READING) == LIKELIHOOD:
        return 0
    return int(_test(record, place).get("no_answer") or 0)


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
    if is_of_test(record, place):
        return "accuracy"
    return str(record.run["spec"]["task"]["main_metric"])


def scored_rows(record: Record, place: Mapping[str, str]) -> int | None:
    """How many rows the score is over; None where the record does not say."""
    if is_of_test(record, place):
        rows = _test(record, place).get("n")
    else:
        rows = record.environment.get("data", {}).get("rows", {}).get("validation")
    return int(rows) if rows else None


def answers_of(record: Record) -> list[dict[str, str]]:
    """Coordinates of what a run answered: `task` of each test in the record's order, and `reading` where one was read
    both ways."""
    return [
        {"task": name, **way}
        for name, test in (record.train.get("tests") or {}).items()
        for way in (
            [{READING: LIKELIHOOD}, {READING: GENERATION}] if "likelihood" in test and "scores" in test else [{}]
        )
    ]


def _test(record: Record, place: Mapping[str, str]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = record.train["tests"].get(TESTS.get(place["task"], place["task"]), {})
    return found


def _points(test: Mapping[str, Any], way: str | None) -> float | None:
    """A test's headline, or its choices of the highest likelihood."""
    return _number(test.get("likelihood", {}).get("sum") if way == LIKELIHOOD else test.get("points"))


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
