"""Runs that die in the middle, as by kill -9: nothing of theirs is tidied up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lora_xs.training import milestones


class Killed(BaseException):
    """What no `except Exception` of a run catches."""


@contextmanager
def killed_at(step: int, moment: str = "on_step_end") -> Iterator[None]:
    """The run within is killed at `moment` of optimiser step `step`, before a checkpoint; fails where it is not."""
    usual = getattr(milestones.Milestones, moment)

    def kill(callback, args, state, control, **rest):
        control = usual(callback, args, state, control, **rest)
        if state.global_step == step:
            raise Killed
        return control

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(milestones.Milestones, moment, kill)
        yield
