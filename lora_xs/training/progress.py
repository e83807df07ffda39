"""A progress bar on a terminal, a line an evaluation elsewhere; on standard error: standard output is the result."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm


class Progress:
    """Shows optimiser steps and the last score of one run."""

    def __init__(self, title: str, main_metric: str, shown: bool = True) -> None:
        """shown: False for a process that is not the one to speak."""
        self.title, self.main_metric, self.shown = title, main_metric, shown
        self._bar: tqdm[Any] | None = None

    def start(self, step: int, steps: int) -> None:
        """Open the bar at `step` of `steps`."""
        if self.shown and sys.stderr.isatty():
            self._bar = tqdm(total=steps, initial=step, desc=self.title, unit="step", dynamic_ncols=True, leave=True)

    def step(self) -> None:
        """One optimiser step further."""
        if self._bar is not None:
            self._bar.update()

    def evaluated(self, line: dict[str, Any]) -> None:
        """Show an evaluation's main score: points, or a loss in nats a token."""
        score, loss = line[self.main_metric], line.get("train_loss")
        text = f"{self.main_metric} {score:.2f}" + (f", train loss {loss:.4f}" if loss is not None else "")
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif self.shown:
            print(f"{self.title}: epoch {line['epoch']:g}, step {line['step']}: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal tidy."""
        if self._bar is not None:
            self._bar.close()
