"""The papers' tables of settings (LoRA-XS Tables 7 and 17): what they print beside what our runs are planned with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lora_xs.reporting.cells import SETTING, START, Behind, Cell, Reading
from lora_xs.reporting.published import PublishedCell, agrees, read_published
from lora_xs.reporting.readings import QUANTITY

RUN_BY: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "table07_glue_hparams": ("table01_glue", {"method": "lora_xs"}),
    "table17_init_hparams": ("table16_init_learning_curve", {}),
}
"""Table of settings → the experiment whose runs have them, and which of its runs."""
SETTINGS = ("lr", "classifier_lr", "epochs")


def setting_cells(name: str, files: Sequence[str], planned: Callable[[str], Sequence[Behind]]) -> list[Cell]:
    """A cell for each printed setting; its readings are the plan's, one a planned run, and no record is behind them."""
    experiment, where = RUN_BY[name]
    runs = [run for run in planned(experiment) if run.cell.get("role") != START and agrees(where, run.cell)]
    return [_cell(printed, runs, where) for file in files for printed in read_settings(file)]


def read_settings(name: str) -> tuple[PublishedCell, ...]:
    """Every printed setting of a file below `results/published`; which one is the coordinate `quantity`."""
    return read_published(name, values=SETTINGS)


def _cell(printed: PublishedCell, runs: Sequence[Behind], where: Mapping[str, str]) -> Cell:
    setting = printed.place[QUANTITY]
    at = {**printed.place, **where}
    behind = {run.signature: run for run in runs if agrees(run.cell, at)}
    found = [Reading(run.signature, run.seed, run.settings[setting]) for run in behind.values()]
    return Cell(
        place=printed.place, published=printed, readings=tuple(found), planned=len(found), statistic="median",
        metric=SETTING, signatures=tuple(behind), reason=None if found else "no run is planned with it",
    )  # fmt: skip
