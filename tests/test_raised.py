"""What one process of a run raises, another raises with the same type and text."""

from __future__ import annotations

import json

import pytest

from lora_xs import raised
from lora_xs.errors import UserError
from lora_xs.lease import RunBusy
from lora_xs.training.divergence import Diverged
from lora_xs.training.preemption import Preempted


class Narrower(UserError):
    pass


@pytest.mark.parametrize(
    "error",
    [UserError("a: b; do c"), RunBusy("held by 7"), Preempted(15), Diverged(3, float("inf")), KeyboardInterrupt()],
)
def test_known_exceptions_keep_their_type(error: BaseException) -> None:
    again = raised.from_json(json.loads(json.dumps(raised.to_json(error))))
    assert type(again) is type(error) and str(again) == str(error)
    for name in ("signum", "step"):
        assert getattr(again, name, None) == getattr(error, name, None)


def test_others_are_what_is_known_of_them() -> None:
    narrower = raised.from_json(raised.to_json(Narrower("x")))
    assert type(narrower) is UserError and str(narrower) == "x"
    other = raised.from_json(raised.to_json(KeyError("x")))
    assert type(other) is RuntimeError and str(other) == "KeyError: 'x'"
    assert type(raised.from_json({"kind": "SystemExit", "arguments": ["x"]})) is RuntimeError
