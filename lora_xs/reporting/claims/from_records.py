"""Pairs of what cells do not hold: seconds, losses before the first step, scores after an epoch, another alpha."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence

from lora_xs.evaluation.direction import LOWER_IS_BETTER
from lora_xs.records import Record
from lora_xs.reporting.cells import Behind
from lora_xs.reporting.claims.matching import POINTS, RATES, Key, best, key_of, matched, named, side
from lora_xs.reporting.claims.pair import Found, Lost, Pair
from lora_xs.reporting.figures.trajectories import training_losses
from lora_xs.reporting.labels import label
from lora_xs.reporting.material import Material
from lora_xs.reporting.published import agrees

PERCENT = "percent"
FIRST = 5
"""How many of the first logged training losses stand for the start, where the start itself was not scored."""
EPOCHS = ("epoch1", "epoch2")
Score = tuple[float, str]
Measure = Callable[[Behind, Record], float | None]


def run_pairs(
    material: Material, better: Mapping[str, str], worse: Mapping[str, str], measure: Measure, unit: str,
    difference: Callable[[float, float], float], *, equal_machines: bool = False,
) -> Found:  # fmt: skip
    """A pair for each place and seed where a finished run of both has the measure; runs of both that diverged.

    equal_machines: whether only runs of equal hardware and threads are paired.
    """
    aside = {*better, *worse}
    both = [{key_of(r.cell, aside) for r in material.trained if agrees(c, r.cell)} for c in (better, worse)]
    lost: list[Pair | Lost] = []
    sides = []
    for chosen in (better, worse):
        found = {}
        for run in material.trained:
            record, place = material.records.get(run.signature), key_of(run.cell, aside)
            if record is None or not agrees(chosen, run.cell) or place not in both[0] & both[1]:
                continue
            if not record.scored:
                lost.append(Lost(run.signature, side(chosen)))
                continue
            value = measure(run, record)
            if value is not None:
                found[place, run.seed, _machine(record) if equal_machines else ""] = (value, run)
        sides.append(found)
    left, right = sides
    return [
        Pair(
            named(at[0]), at[1], difference(value, right[at][0]), unit, (run.signature, right[at][1].signature),
            label("task", run.cell.get("task", "")),
        )
        for at, (value, run) in left.items()
        if at in right
    ] + lost  # fmt: skip


def _machine(record: Record) -> str:
    return json.dumps([record.environment.get(key) for key in ("hardware", "threads")], sort_keys=True)


def training_seconds(run: Behind, record: Record) -> float | None:
    """Seconds of training."""
    value = record.train.get("seconds", {}).get("training")
    return None if value is None else float(value)


def start_loss(material: Material) -> Measure:
    """Nats before the first step: of the held-out responses where they were scored, else the mean of the first logged
    training losses."""

    def measure(run: Behind, record: Record) -> float | None:
        start = record.train.get("start") or {}
        metric = record.run["spec"]["task"]["main_metric"]
        if metric in LOWER_IS_BETTER and start.get(metric) is not None:
            return float(start[metric])
        folder = material.folders.get(run.signature)
        losses = training_losses(folder) if folder is not None else {}
        first = [losses[step] for step in sorted(losses)[:FIRST]]
        return statistics.fmean(first) if len(first) == FIRST else None

    return measure


def start_overhead(material: Material, ours: bool) -> list[Pair]:
    """Minus the seconds of the factors in percent of those of training, a pair a run of LoRA-XS.

    A run whose factors all came from the store took no decomposition and is left out.
    """
    cells = [cell for cell in material.cells if cell.place.get("quantity") == "overhead_percent"]
    if cells and not ours:
        return [
            Pair(named(key_of(cell.place, {"quantity"})), None, -cell.published.value, PERCENT)
            for cell in cells
            if cell.published is not None
        ]
    if not ours:
        return []
    pairs = []
    for run in material.trained:
        record = material.records.get(run.signature)
        if record is None or not record.scored or run.cell.get("method", "lora_xs") != "lora_xs":
            continue
        factors, seconds = record.train.get("factors") or {}, record.train.get("seconds", {})
        stored = factors.get("modules") and factors.get("cached") == factors.get("modules")
        if not stored and seconds.get("adapter") is not None and seconds.get("training"):
            share = 100 * float(seconds["adapter"]) / float(seconds["training"])
            pairs.append(Pair(named(key_of(run.cell, {"method"})), run.seed, -share, PERCENT, (run.signature,)))
    return pairs


def first_epochs(material: Material, ours: bool) -> Found:
    """The SVD of W minus random factors after the first and after the second epoch."""
    better, worse = {"init": "svd_w"}, {"init": "random"}
    if any("when" in cell.place for cell in material.cells):
        early = [cell for cell in material.cells if cell.place.get("when") in EPOCHS]
        return matched(early, ours, better, worse)
    return _epochs_at_the_best_rates(material, better, worse) if ours else []


def _epochs_at_the_best_rates(material: Material, better: Mapping[str, str], worse: Mapping[str, str]) -> Found:
    """Of a grid of rates: each initialisation at the rates where its best epoch is best, a pair a seed: the mean of
    both epochs."""
    aside = {"init", *RATES}
    left, right = (_early_scores(material, chosen, aside) for chosen in (better, worse))
    at_best = matched(material.cells, True, better, worse, best_over=RATES)
    lost = [one for one in at_best if isinstance(one, Lost)]
    return [
        Pair(
            f"{named(place)}, epochs 1 and 2", seed, value - right[place, seed][0], POINTS,
            (one, right[place, seed][1]), label("task", dict(place).get("task", "")),
        )
        for (place, seed), (value, one) in left.items()
        if (place, seed) in right
    ] + lost  # fmt: skip


def _early_scores(material: Material, chosen: Mapping[str, str], aside: set[str]) -> dict[tuple[Key, int], Score]:
    """Place and seed → the mean score after epochs 1 and 2, and the run."""
    found: dict[tuple[Key, int], Score] = {}
    for place in dict.fromkeys(key_of(cell.place, aside) for cell in material.cells):
        inside = [c for c in material.cells if agrees(chosen, c.place) and key_of(c.place, aside) == place]
        cell = best(inside, True)
        for reading in cell.readings if cell is not None else ():
            record = material.records.get(reading.signature)
            if record is None:
                continue
            metric = record.run["spec"]["task"]["main_metric"]
            lines = {line["epoch"]: line.get(metric) for line in record.train.get("evaluations", ())}
            early = [float(lines[epoch]) for epoch in (1.0, 2.0) if lines.get(epoch) is not None]
            if len(early) == 2:
                found[place, reading.seed] = (statistics.fmean(early), reading.signature)
    return found


def other_alphas(material: Material, ours: bool) -> Found:
    """Of LoRA-SB runs that differ in alpha alone: minus how far the highest score lies above the lowest; those of them
    that diverged.

    One of them is a run of the experiment; the others may have been started in any way and lie in any results folder.
    """
    if not ours:
        return []
    groups: dict[str, list[Record]] = {}
    for record in material.records.values():
        ended = not record.scored or _points(record) is not None
        if ended and record.run["spec"].get("method", {}).get("name") == "lora_sb":
            groups.setdefault(_but_for_alpha(record), []).append(record)
    planned = {run.signature for run in material.trained}
    found: list[Pair | Lost] = []
    for records in groups.values():
        if len(records) > 1 and any(record.signature in planned for record in records):
            scored = sorted((record for record in records if record.scored), key=_alpha)
            found += [_apart(scored)] if len(scored) > 1 else []
            diverged = [record for record in records if not record.scored]
            found += [Lost(record.signature, f"LoRA-SB, alpha {_alpha(record):g}") for record in diverged]
    return found


def _but_for_alpha(record: Record) -> str:
    spec = record.run["spec"]
    method = {key: value for key, value in spec["method"].items() if key != "alpha"}
    return json.dumps({**spec, "method": method}, sort_keys=True)


def _alpha(record: Record) -> float:
    return float(record.run["spec"]["method"]["alpha"])


def _points(record: Record) -> float | None:
    """The mean of its tests, else its best score; a loss is no score."""
    tests = record.train.get("tests") or {}
    if tests:
        return statistics.fmean(test["points"] for test in tests.values())
    metric = record.run["spec"]["task"]["main_metric"]
    value = (record.train.get("best") or {}).get(metric)
    return None if value is None or metric in LOWER_IS_BETTER else float(value)


def _apart(records: Sequence[Record]) -> Pair:
    spec = records[0].run["spec"]
    scores = [_points(record) or 0.0 for record in records]
    alphas = " and ".join(f"{_alpha(record):g}" for record in records)
    place = f"{spec['task']['name']}, rank {spec.get('rank')}, alpha {alphas}"
    task = label("task", spec["task"]["name"])
    signatures = tuple(record.signature for record in records)
    return Pair(place, spec["seed"], min(scores) - max(scores), POINTS, signatures, task)
