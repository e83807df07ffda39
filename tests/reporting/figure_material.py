"""Material of figures without a plan or a record: an experiment's published cells, filled as far as a test asks."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lora_xs.records import Record
from lora_xs.reporting.building import build_cells
from lora_xs.reporting.cells import Behind, Cell, Reading
from lora_xs.reporting.material import Material
from lora_xs.sweeps.experiment_file import load_experiment

Fill = Literal["none", "part", "full"]
SEEDS = 3


def published_material(name: str, fill: Fill, synthetic: bool = False) -> Material:
    """The cells that a paper prints for `name`; ours are a little beside them. part: a third of the cells has all
    seeds, a third some, a third none."""
    experiment = load_experiment(name)
    cells = tuple(_filled(cell, fill, place) for place, cell in enumerate(build_cells(experiment, [], {})))
    return Material(name, experiment.title, experiment.source, cells, synthetic=synthetic)


def _filled(cell: Cell, fill: Fill, place: int) -> Cell:
    assert cell.published is not None
    drawn = random.Random(f"{sorted(cell.place.items())}")
    values = [cell.published.value * (1 + 0.02 * drawn.gauss(0, 1)) for _ in range(SEEDS)]
    keep = {"none": 0, "full": SEEDS, "part": (SEEDS, 1, 0)[place % 3]}[fill]
    readings = tuple(Reading(f"{place:06x}{seed:06x}", seed, value) for seed, value in enumerate(values[:keep]))
    return replace(cell, readings=readings, planned=SEEDS, parameters=1000 * (place + 1), reason=None)


def run_material(
    tmp_path: Path, cells: Mapping[str, list[dict[str, Any]]], name: str = "mini_math", metric: str = "response_loss"
) -> Material:
    """A method → its runs, each the parts of a record (`train`, `status`) and `lines` of its metrics.jsonl."""
    runs, records, folders, made = [], {}, {}, []
    for method, of_method in cells.items():
        place = {"method": method, "rank": "8"}
        readings = []
        for seed, content in enumerate(of_method):
            signature = f"{method}{seed}"
            runs.append(Behind(signature, seed, place))
            if not content:
                continue
            folder = tmp_path / signature
            folder.mkdir()
            (folder / "metrics.jsonl").write_text(content.get("lines", ""))
            spec = {"task": {"name": name, "main_metric": metric}}
            run = {"signature": signature, "seed": seed, "spec": spec}
            environment = {"hardware": {"cpu": "a processor", "gpu": None}}
            train = content.get("train", {})
            records[signature] = Record(content.get("status", "finished"), run, train, environment)
            folders[signature] = folder
            if "best" in train:
                readings.append(Reading(signature, seed, train["best"][metric]))
        signatures = tuple(run.signature for run in runs if run.cell == place)
        made.append(Cell(place, None, tuple(readings), len(of_method), metric=metric, signatures=signatures))
    return Material(name, "a title", "ours", tuple(made), tuple(runs), records, folders)
