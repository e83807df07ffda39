"""All figures of a page as PNG, drawn by as many processes as this one may use: drawing takes longer than all else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import TYPE_CHECKING, TypeVar

from lora_xs.reporting.html.drawn import Drawn
from lora_xs.reporting.html.kept import keep, place_of, read_kept
from lora_xs.reporting.material import Material

if TYPE_CHECKING:
    from lora_xs.reporting.figures.picture import Picture

T = TypeVar("T")
MOST = 8
"""Processes; each takes about 150 MB."""


def draw_all(materials: Sequence[Material], processes: int | None = None) -> dict[str, list[Drawn]]:
    """The figures of each material, by its name. processes: how many draw; None: as many as there are cores here."""
    slim = {one.name: one for one in map(_slim, materials)}
    places = {name: place_of(one) for name, one in slim.items()}
    found = {name: kept for name in slim if (kept := read_kept(places[name])) is not None}
    missing = sorted((one for name, one in slim.items() if name not in found), key=lambda one: -len(one.cells))
    for one, drawn in zip(missing, _draw_many(missing, processes or _cores()), strict=True):
        keep(places[one.name], drawn)
        found[one.name] = drawn
    return {name: found[name] for name in slim}


def _draw_many(materials: Sequence[Material], processes: int) -> Iterator[list[Drawn]]:
    count = min(processes, MOST, len(materials))
    if count < 2:
        yield from map(draw, materials)
        return
    # spawned, not forked: numpy's threads do not survive a fork
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        yield from pool.map(draw, materials)


def draw(material: Material) -> list[Drawn]:
    """The figures of one experiment, in their order."""
    from lora_xs.reporting.figures.index import draw_figures
    from lora_xs.reporting.figures.raster import png_of

    return [
        Drawn(one.name, one.kind, one.experiment, one.caption, _alt(one), png_of(one)) for one in draw_figures(material)
    ]


def _cores() -> int:
    """Those this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _alt(picture: Picture) -> str:
    """Title and notes of the figure itself: what of ours is there, and what is not."""
    texts = {text.get_gid(): " ".join(text.get_text().split()) for text in picture.figure.texts}
    parts = [f"Figure of kind {picture.kind}", texts.get("title", ""), texts.get("notes", "")]
    return ". ".join(part.rstrip(".") for part in parts if part) + "."


def _slim(material: Material) -> Material:
    """The material without records of other experiments: it travels to another process. Plain dicts travel."""
    behind = {run.signature for run in material.runs}
    behind |= {signature for cell in material.cells for signature in cell.signatures}
    return replace(material, records=_only(material.records, behind), folders=_only(material.folders, behind))


def _only(found: Mapping[str, T], wanted: set[str]) -> dict[str, T]:
    return {key: value for key, value in found.items() if key in wanted}
