"""Worlds in which a claim holds (way 1), fails (−1) or makes no difference (0): cells and records made to be so."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from lora_xs.records import Record
from lora_xs.reporting.building import build_cells
from lora_xs.reporting.cells import Behind, Cell, Reading
from lora_xs.reporting.material import Material
from lora_xs.sweeps.experiment import Experiment, Taken
from lora_xs.sweeps.experiment_file import load_experiment

SEEDS = 5
JITTER = (0.3, -0.3, 0.1, -0.1, 0.0)
"""Of a seed, in points: it sums to nothing."""
Effect = Callable[[Mapping[str, str], int], float]


def is_at(key: str, value: str, size: float = 2.0) -> Effect:
    """So many points more, in the world's direction, where a coordinate has a value."""
    return lambda place, way: way * size * (place.get(key) == value)


def of_sigma(place: Mapping[str, str], way: int) -> float:
    return is_at("a_init", "u_sigma")(place, way) * (-1 if place["task"] == "mrpc" else 1)


def of_rank(place: Mapping[str, str], way: int) -> float:
    return way * int(place["rank"]) / 4 if place["method"] == "lora_xs" else 0.0


def of_projection(place: Mapping[str, str], way: int) -> float:
    """Holds: the output dense alone falls. Fails: the query alone. Neither: both, by the margin."""
    if place["retained_fraction"] != "0.01" or place["module"] not in ("query", "output.dense"):
        return 0.0
    falls = {1: "output.dense", -1: "query", 0: place["module"]}[way]
    return (-8.0 if way else -1.0) * (place["module"] == falls)


def of_samples(place: Mapping[str, str], way: int) -> float:
    return {1: 0.0, -1: -3.0, 0: -0.5}[way] if place["init_samples"] == "50" else 0.0


EFFECTS: dict[str, Effect] = {
    "svd_beats_random": is_at("init", "svd_w"),
    "svd_of_w_beats_svd_of_noise": is_at("init", "svd_w"),
    "top_beats_bottom": is_at("singular_vectors", "top"),
    "sigma_helps_but_for_mrpc": of_sigma,
    "xs_beats_vera": is_at("method", "lora_xs"),
    "xs_beats_lora": is_at("method", "lora_xs"),
    "more_rank_is_better": of_rank,
    "svd_learns_faster": is_at("init", "svd_w"),
    "attention_needs_few_directions": of_projection,
    "top_directions_carry_the_model": is_at("subset", "top"),
    "sb_beats_xs": is_at("method", "lora_sb"),
    "few_rows_suffice": of_samples,
    "noise_hurts": is_at("decomposed_matrix", "update"),
    "orthonormal_is_better": is_at("variant", "orthonormal"),
}
"""Claims that cells decide: what a cell's place is worth."""


def world_of_cells(name: str, effect: Effect, way: int, seeds: int = SEEDS) -> Material:
    """The published cells of an experiment, ours as the world has it: an effect, and a jitter of seeds. Cells that are
    planned as one run are of one run."""
    experiment = load_experiment(name)
    cells = [_filled(cell, effect, way, seeds) for cell in build_cells(experiment, list(planned(experiment)), {})]
    return Material(name, experiment.title, experiment.source, tuple(cells))


def planned(experiment: Experiment) -> Iterator[Behind]:
    """A run for each cell of the grid, of one seed, its coordinates for a signature."""
    for arm in experiment.arms:
        if isinstance(arm, Taken):
            for run in planned(load_experiment(arm.experiment)):
                if all(run.cell.get(key) in values for key, values in arm.where.items()):
                    yield replace(run, cell={key: run.cell[key] for key in arm.keep or run.cell})
            continue
        for values in itertools.product(*arm.over.values()):
            cell = {**dict(zip(arm.over, values, strict=True)), **arm.cell}
            yield Behind(f"{experiment.name} {cell}", 0, cell)


def _filled(cell: Cell, effect: Effect, way: int, seeds: int) -> Cell:
    place = sorted(cell.place.items())
    sign = random.Random(f"{place}").choice((-1, 1))
    run = cell.signatures[0] if cell.signatures else f"{place}"
    values = [60 + effect(cell.place, way) + sign * JITTER[seed] for seed in range(seeds)]
    readings = tuple(Reading(f"{run}-{seed}", seed, value) for seed, value in enumerate(values))
    return replace(cell, readings=readings, planned=seeds, parameters=_parameters(cell.place), reason=None)


def _parameters(place: Mapping[str, str]) -> int:
    rank = int(place.get("rank") or 1)
    return 96 * rank * rank if place.get("method") in ("lora_xs", "lora_sb") else 61_440


def _method(name: str, alpha: float = 16.0) -> dict[str, Any]:
    return {"name": name, "alpha": alpha}


def record(signature: str, seed: int, method: dict[str, Any], metric: str, train: dict[str, Any]) -> Record:
    spec = {
        **{"task": {"name": "a task", "main_metric": metric}, "model": {"name": "a model"}},
        **{"method": method, "rank": 16, "seed": seed},
    }
    return Record("finished", {"signature": signature, "seed": seed, "spec": spec}, train)


def world_of_records(claim: str, way: int, seeds: int = SEEDS) -> Material:
    """Runs of LoRA-XS, LoRA and LoRA-SB, five seeds each, for the claims that only records decide."""
    runs, records = [], {}
    for name in ("lora_xs", "lora", "lora_sb"):
        for seed in range(seeds):
            signature = f"{name}-{seed}"
            runs.append(Behind(signature, seed, {"method": name, "rank": "16"}))
            metric, train = _train(claim, name, way, JITTER[seed])
            records[signature] = record(signature, seed, _method(name), metric, train)
            if claim == "sb_needs_no_alpha" and name == "lora_sb":  # a run of the same but for alpha, in no plan
                apart = {1: 0.1, -1: 3.0, 0: 1.0}[way]
                other = {"best": {"accuracy": train["best"]["accuracy"] + apart + JITTER[seed]}}
                records[f"other-{seed}"] = record(f"other-{seed}", seed, _method(name, 32.0), metric, other)
    return Material("a_world", "a title", "ours", (), tuple(runs), records)


def _train(claim: str, method: str, way: int, jitter: float) -> tuple[str, dict[str, Any]]:
    if claim == "svd_takes_no_time":
        return "accuracy", {"seconds": {"adapter": {1: 0.2, -1: 3.0, 0: 1.0}[way] + jitter / 4, "training": 100.0}}
    if claim == "xs_trains_as_fast_as_lora":
        slower = {1: 0.0, -1: 20.0, 0: 5.0}[way] + jitter
        return "accuracy", {"seconds": {"adapter": 1.0, "training": 100.0 + slower * (method == "lora_xs")}}
    if claim == "sb_starts_lower":
        lower = way * 0.5 + jitter / 10
        return "response_loss", {"start": {"response_loss": 2.0 - lower * (method == "lora_sb")}}
    return "accuracy", {"best": {"accuracy": 70.0 + jitter}}


OF_RECORDS = ("svd_takes_no_time", "xs_trains_as_fast_as_lora", "sb_starts_lower", "sb_needs_no_alpha")
