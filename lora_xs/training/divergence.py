"""A run that diverges is a result: where its loss or score stopped being finite."""

from __future__ import annotations

from lora_xs.raised import portable


@portable
class Diverged(Exception):
    """A loss or score stopped being finite; `step` is the first optimiser step at which that was seen."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"the loss is {loss} at optimiser step {step}")
        self.step, self.loss = step, loss

    @property
    def arguments(self) -> tuple[int, float]:
        """What it is made from anew in another process."""
        return self.step, self.loss
