"""Time and memory of finished runs, a bar a method and rank: seconds of training, and the device's peak memory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lora_xs.records import Record
from lora_xs.reporting.figures.bars import Bar, draw_bars
from lora_xs.reporting.figures.keys import bar_handles
from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.figures.style import finish, new_figure, styled
from lora_xs.reporting.labels import named
from lora_xs.reporting.material import Material
from lora_xs.reporting.noise import whiskers_of

KIND = "costs"
QUANTITIES = ("training, seconds", "peak memory, MiB")
SHARED = ("method", "rank", "init")
"""Coordinates that make a bar; tasks and seeds are averaged over inside it."""


@dataclass(frozen=True)
class Cost:
    """One bar. seconds, mebibytes: the median of its runs; whiskers: of both, to the lowest
    and the highest run; runs: how many."""

    name: str
    method: str
    seconds: float | None
    mebibytes: float | None
    whiskers: tuple[tuple[float, float] | None, ...]
    runs: int
    planned: int


def costs(material: Material) -> list[Picture]:
    """A figure a model and task; none without runs. Only runs of one machine are comparable: the figure names it."""
    pictures = []
    groups = list(dict.fromkeys((run.cell.get("model", ""), run.cell.get("task", "")) for run in material.trained))
    for model, task in groups:
        found = costs_of(material, model, task)
        if any(cost.runs for cost in found):
            pictures.append(_picture(material, found, model, task, len(groups) > 1))
    return pictures


def costs_of(material: Material, model: str, task: str) -> list[Cost]:
    """The costs of one model's runs on one task."""
    inside = [r for r in material.trained if (r.cell.get("model", ""), r.cell.get("task", "")) == (model, task)]
    found = []
    for place in dict.fromkeys(tuple((k, r.cell[k]) for k in SHARED if r.cell.get(k)) for r in inside):
        runs = [r for r in inside if tuple((k, r.cell[k]) for k in SHARED if r.cell.get(k)) == place]
        records = [material.records[r.signature] for r in runs if r.signature in material.records]
        records = [record for record in records if record.scored]
        seconds, memory = [_seconds(r) for r in records], [r.train.get("peak_memory_mib") for r in records]
        times, sizes = [s for s in seconds if s is not None], [float(m) for m in memory if m is not None]
        found.append(
            Cost(
                ", ".join(named(key, value) for key, value in place),
                dict(place).get("method", ""),
                statistics.median(times) if times else None,
                statistics.median(sizes) if sizes else None,
                tuple(whiskers_of(some, statistics.median(some)) if some else None for some in (times, sizes)),
                len(records),
                len(runs),
            )
        )
    return found


def _seconds(record: Record) -> float | None:
    value = record.train.get("seconds", {}).get("training")
    return None if value is None else float(value)


def _picture(material: Material, found: Sequence[Cost], model: str, task: str, several: bool) -> Picture:
    where = ", ".join(filter(None, (named("model", model), named("task", task)))) if several else ""
    title = f"{material.heading}: time and memory{f' ({where})' if where else ''}"
    methods = list(dict.fromkeys(cost.method for cost in found if cost.method))
    with styled():
        figure, axes = new_figure(1, 2, 1.25 + 0.24 * len(found), sharey=True)
        for one, quantity, place in zip(axes.flat, QUANTITIES, (0, 1), strict=True):
            values = [cost.mebibytes if place else cost.seconds for cost in found]
            one.set_title(quantity)
            inside = [
                Bar(_counted(c), c.method, value, c.whiskers[place], None, "", "not measured" if c.runs else "not run")
                for c, value in zip(found, values, strict=True)
            ]
            draw_bars(one, inside, methods)
        runs, planned = sum(cost.runs for cost in found), sum(cost.planned for cost in found)
        notes = [f"Ours, {runs} of {planned} runs; ran on: {material.hardware}. Nothing of this is published."]
        finish(figure, title, notes, material.synthetic, bar_handles("method", methods))
    name = "-".join(filter(None, [material.name, KIND, *((model, task.replace("/", "_")) if several else ())]))
    caption = f"{title}. Medians over runs, whiskers to the lowest and the highest; runs of one machine compare."
    return Picture(name, KIND, material.name, caption, figure)


def _counted(cost: Cost) -> str:
    return cost.name if cost.runs == cost.planned else f"{cost.name} ({cost.runs}/{cost.planned})"
