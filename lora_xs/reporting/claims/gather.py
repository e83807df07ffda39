"""The material of experiments, each gathered once however many claims ask for it."""

from __future__ import annotations

from collections.abc import Callable

from lora_xs.reporting.evidence import Evidence
from lora_xs.reporting.material import Material, material_of
from lora_xs.reporting.table import make_table
from lora_xs.sweeps.experiment_file import load_experiment


class Gatherer:
    """Experiment and overrides → material. composing: hears of a plan that takes seconds."""

    def __init__(self, evidence: Evidence, composing: Callable[[str], object] = lambda name: None) -> None:
        self._evidence, self._composing = evidence, composing
        self._known: dict[tuple[str, tuple[str, ...]], Material] = {}

    def __call__(self, name: str, overrides: tuple[str, ...] = ()) -> Material:
        """Raises UserError for an experiment there is not and overrides that a run refuses."""
        key = name, overrides
        if key not in self._known:
            table = make_table(load_experiment(name), self._evidence, overrides, composing=self._composing)
            self._known[key] = material_of(table, self._evidence)
        return self._known[key]
