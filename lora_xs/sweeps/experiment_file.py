"""Experiments' files, read and checked before a run of theirs is composed.

Every scalar is kept as it is written (`1e-3` stays `1e-3`): it is a coordinate of a table, and half of an override.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml

from lora_xs.errors import UserError
from lora_xs.sweeps.experiment import (
    Aggregate,
    Analysis,
    Arm,
    Axis,
    Experiment,
    Kind,
    NotBuilt,
    Of,
    Start,
    Statistic,
    Taken,
)

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
KEYS = {  # of an experiment; the second half are those it must have
    "grid": (("common", "axes", "not_built"), ("title", "source", "published", "aggregate", "arms")),
    "analysis": (("common", "axes", "analyses"), ("kind", "title", "source", "published", "aggregate", "arms")),
    "reference": (("analyses",), ("kind", "title", "source", "published", "reason")),
}
AXIS_MEND = "give it as a template, `task: task=glue/{}`, or as overrides for each value"


def experiment_names() -> list[str]:
    """The names of all files in `experiments/`, sorted."""
    return sorted(file.stem for file in EXPERIMENTS.glob("*.yaml"))


def load_experiment(name: str) -> Experiment:
    """Read `experiments/<name>.yaml`, or the file `name` where it ends in `.yaml`.

    Raises UserError, naming file, key and mend, for an unknown name and for anything malformed.
    """
    file = Path(name) if name.endswith(".yaml") else EXPERIMENTS / f"{name}.yaml"
    if not file.is_file():
        close = difflib.get_close_matches(name, experiment_names(), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"choose one of {', '.join(experiment_names())}"
        raise UserError(f"experiment={name} is unknown; {hint}")
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file.name} is no YAML: {' '.join(str(error).split())}") from error
    return _experiment(file.stem, _Place(file.name, content))


class _Text(yaml.BaseLoader):
    """Scalars as text; a key twice in one mapping is an error, not the second one's victory."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} stands there twice", node.start_mark
                )
        return super().construct_mapping(node, deep=deep)


class _Place:
    """A value of the file and where it stands, so that every check can name the key."""

    def __init__(self, where: str, value: Any) -> None:
        self.where, self.value = where, value

    def fail(self, what: str) -> UserError:
        return UserError(f"experiment {self.where}: {what}")

    def mapping(self, allowed: Sequence[str] | None = None, required: Sequence[str] = ()) -> dict[str, _Place]:
        if not isinstance(self.value, dict):
            raise self.fail(f"{self.value!r} must be a mapping of keys")
        for key in self.value:
            if allowed is not None and key not in allowed:
                close = difflib.get_close_matches(key, allowed, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(allowed)}"
                raise self.fail(f"unknown key {key}; {hint}")
        for key in required:
            if key not in self.value:
                raise self.fail(f"the key {key} is missing; add it")
        return {key: _Place(f"{self.where}: {key}", value) for key, value in self.value.items()}

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value:
            raise self.fail(f"{self.value!r} must be text")
        return self.value

    def one_of(self, kind: Any) -> Any:
        if self.value not in get_args(kind):
            raise self.fail(f"{self.value!r} is not allowed; choose one of {', '.join(get_args(kind))}")
        return self.value

    def items(self) -> list[_Place]:
        if not isinstance(self.value, list):
            raise self.fail(f"{self.value!r} must be a list, [a, b]")
        return [_Place(f"{self.where}[{number}]", value) for number, value in enumerate(self.value)]

    def texts(self) -> tuple[str, ...]:
        return tuple(item.text() for item in self.items())

    def choices(self) -> tuple[str, ...]:
        """One value or a list of them."""
        found = (self.text(),) if isinstance(self.value, str) else self.texts()
        if not found or len(set(found)) < len(found):
            raise self.fail(f"{self.value!r} must be values that differ, one at least")
        return found

    def overrides(self) -> tuple[str, ...]:
        for item in self.items():
            if "=" not in item.text():
                raise item.fail(f"{item.value!r} is no override; write key=value")
        return self.texts()

    def truth(self) -> bool:
        if self.value not in ("true", "false"):
            raise self.fail(f"{self.value!r} must be true or false")
        return bool(self.value == "true")

    def seeds(self) -> tuple[int, ...]:
        for item in self.items():
            if not item.text().isdigit():
                raise item.fail(f"{item.value!r} must be a whole number of at least 0")
        return tuple(int(seed) for seed in self.choices())


def _experiment(name: str, place: _Place) -> Experiment:
    content = place.mapping()
    kind: Kind = content["kind"].one_of(Kind) if "kind" in content else "grid"
    optional, required = KEYS[kind]
    content = place.mapping(("kind", *required, *optional), required)
    head: dict[str, Any] = {
        "name": name,
        "title": content["title"].text(),
        "source": content["source"].text(),
        "published": content["published"].texts(),
        "kind": kind,
        "analyses": _analyses(content.get("analyses")),
    }
    if kind == "reference":
        return Experiment(**head, reason=content["reason"].text())
    axes = {key: _axis(value) for key, value in content["axes"].mapping().items()} if "axes" in content else {}
    arms = tuple(_arm(item, axes) for item in content["arms"].items())
    used = {key for arm in arms if isinstance(arm, Arm) for key in arm.over}
    for key in axes:
        if key not in used:
            raise content["axes"].fail(f"no arm varies {key}; leave the axis out, or name it in an arm's `over`")
    aggregate = _aggregate(content["aggregate"])
    if aggregate.average and (head["published"] or "task" not in used):
        raise content["aggregate"].fail(
            "average goes with arms that vary task, and with nothing published: a printed average stands in its CSV; "
            "leave it out"
        )
    return Experiment(
        **head,
        aggregate=aggregate,
        common=content["common"].overrides() if "common" in content else (),
        axes=axes,
        arms=arms,
        not_built=tuple(_not_built(item) for item in content["not_built"].items()) if "not_built" in content else (),
    )


def _analyses(place: _Place | None) -> tuple[Analysis, ...]:
    return () if place is None else tuple(item.one_of(Analysis) for item in place.items())


def _aggregate(place: _Place) -> Aggregate:
    keys = ("statistic", "of", "seeds")
    content = place.mapping((*keys, "average"), keys)
    average = "average" in content and content["average"].truth()
    seeds = content["seeds"].seeds()
    return Aggregate(content["statistic"].one_of(Statistic), content["of"].one_of(Of), seeds, average)


def _axis(place: _Place) -> Axis:
    if isinstance(place.value, str):
        if "=" not in place.value or "{}" not in place.value:
            raise place.fail(f"{place.value!r} has no key={{}}; {AXIS_MEND}")
        return place.value
    return {value: overrides.overrides() for value, overrides in place.mapping().items()}


def _arm(place: _Place, axes: Mapping[str, Axis]) -> Arm | Taken:
    content = place.mapping()
    if "take" in content:
        content = place.mapping(("take", "where", "keep", "seeds"))
        return Taken(
            content["take"].text(),
            {key: value.choices() for key, value in content["where"].mapping().items()} if "where" in content else {},
            content["keep"].texts() if "keep" in content else None,
            content["seeds"].seeds() if "seeds" in content else None,
        )
    content = place.mapping(("over", "cell", "with", "start", "seeds"), ("over",))
    over = {key: value.choices() for key, value in content["over"].mapping().items()}
    for key, values in over.items():
        _check_coordinate(content["over"], key, values, axes)
    cell = {key: value.text() for key, value in content["cell"].mapping().items()} if "cell" in content else {}
    for key in cell.keys() & axes.keys():
        raise content["cell"].fail(f"{key} is an axis; name it in `over`")
    return Arm(
        over,
        cell,
        content["with"].overrides() if "with" in content else (),
        _start(content["start"], over, axes) if "start" in content else None,
        content["seeds"].seeds() if "seeds" in content else None,
    )


def _start(place: _Place, over: Mapping[str, tuple[str, ...]], axes: Mapping[str, Axis]) -> Start:
    content = place.mapping(("over", "with"), ("over",))
    changed = {key: value.text() for key, value in content["over"].mapping().items()}
    for key, value in changed.items():
        _check_coordinate(content["over"], key, (value,), axes)
        if key not in over:
            raise content["over"].fail(f"{key} is no coordinate of this arm; name it in the arm's `over`")
    return Start(changed, content["with"].overrides() if "with" in content else ())


def _check_coordinate(place: _Place, key: str, values: Sequence[str], axes: Mapping[str, Axis]) -> None:
    axis = axes.get(key)
    if axis is None:
        raise place.fail(f"{key} has no line in `axes`; {AXIS_MEND}")
    for value in values:
        if not isinstance(axis, str) and value not in axis:
            raise place.fail(f"{key}={value} is not among the axis's values {', '.join(axis)}; add it to `axes`")


def _not_built(place: _Place) -> NotBuilt:
    content = place.mapping(("cell", "reason"), ("cell", "reason"))
    return NotBuilt({key: value.text() for key, value in content["cell"].mapping().items()}, content["reason"].text())
