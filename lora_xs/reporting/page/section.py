"""An experiment on the page: its table, its figures, what it cost, and the runs behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_xs.reporting.evidence import Evidence
from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.material import coverage, material_of
from lora_xs.reporting.page.grid import Grid, grid_of
from lora_xs.reporting.page.picture import Shown, shown
from lora_xs.reporting.page.provenance import Origin, RunLine, origins, run_lines
from lora_xs.reporting.render_markdown import trace_command
from lora_xs.reporting.table import Table

OURS = "ours"


@dataclass(frozen=True)
class Cost:
    """What an experiment's finished runs took. hours: of training; memory: the largest peak, in MiB; tokens: real
    ones; hardware: on what."""

    hours: float
    memory: float
    tokens: int
    hardware: str


@dataclass(frozen=True)
class Section:
    """One experiment. planned, finished, diverged: runs. gaps: what is missing, in words."""

    name: str
    source: str
    title: str
    caption: str
    grid: Grid
    counts: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]
    pictures: tuple[Shown, ...]
    origins: tuple[Origin, ...]
    runs: tuple[RunLine, ...]
    planned: int
    gaps: tuple[str, ...]
    trace: str
    cost: Cost | None

    @property
    def is_papers(self) -> bool:
        """Whether a paper prints it."""
        return self.source != OURS

    @property
    def heading(self) -> str:
        """Its title, with its place in a paper."""
        return f"{self.source}: {self.title}" if self.is_papers else self.title[0].upper() + self.title[1:]

    @property
    def has_ours(self) -> bool:
        """Whether it has a number of ours; sections without are folded."""
        return bool(self.origins)

    @property
    def diverged(self) -> int:
        """How many runs ended so."""
        return sum(run.status == "diverged" for run in self.runs)


def section_of(table: Table, evidence: Evidence, roots: Sequence[Path], pictures: Sequence[Picture]) -> Section:
    """The section of a table's experiment. roots: the folders that `evidence` was read from."""
    told = origins(table, evidence)
    runs = run_lines(table, evidence, roots)
    return Section(
        name=table.name,
        source=table.experiment.source,
        title=table.experiment.title,
        caption=table.caption,
        grid=grid_of(table, {place: origin.anchor for place, origin in told.items()}),
        counts=tuple(table.counts.items()),
        notes=table.notes,
        pictures=tuple(shown(picture) for picture in pictures),
        origins=tuple(told.values()),
        runs=tuple(runs),
        planned=len({run.signature for run in table.runs}),
        gaps=tuple(coverage(table.cells)),
        trace=trace_command(table),
        cost=_cost(runs, material_of(table, evidence).hardware),
    )


def _cost(runs: Sequence[RunLine], hardware: str) -> Cost | None:
    if not runs:
        return None
    return Cost(
        hours=sum(run.seconds or 0.0 for run in runs) / 3600,
        memory=max((run.memory or 0.0 for run in runs), default=0.0),
        tokens=sum(run.tokens or 0 for run in runs),
        hardware=hardware,
    )
