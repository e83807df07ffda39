"""One table, whole: an experiment's cells laid out, with its caption and footnotes. Renderers only write it down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from lora_xs.reporting.building import build_cells
from lora_xs.reporting.cells import Behind, Cell
from lora_xs.reporting.evidence import Evidence
from lora_xs.reporting.layout import Laid, lay_out
from lora_xs.reporting.noise import Status
from lora_xs.reporting.planned import planned_runs
from lora_xs.reporting.readings import answers_of
from lora_xs.reporting.settings import RUN_BY, setting_cells
from lora_xs.spec.compose import portable
from lora_xs.sweeps.experiment import Experiment

SECONDS = "seconds"


@dataclass(frozen=True)
class Table:
    """statistic, of: how a cell's runs became its number; None: no runs. tested: whether runs answered tests, which are
    of the adapter that a run selected, whatever `of`. overrides: laid on every
    run, without where files lie on this machine."""

    experiment: Experiment
    cells: tuple[Cell, ...]
    laid: Laid
    runs: tuple[Behind, ...] = ()
    statistic: str | None = None
    of: str | None = None
    overrides: tuple[str, ...] = ()
    synthetic: bool = False
    tested: bool = False
    notes: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """The experiment's name, and the file's."""
        return self.experiment.name

    @property
    def caption(self) -> str:
        """What it shows, where it is published, in what our numbers differ from the paper's way."""
        source = "" if self.experiment.source == "ours" else f"{self.experiment.source}: "
        where = f" ({', '.join(self.laid.constants)})" if self.laid.constants else ""
        title = self.experiment.title
        parts = [f"{source}{title}{where}." if source else f"{title[0].upper()}{title[1:]}{where}."]
        if self.synthetic:
            parts.insert(0, "SYNTHETIC: made by a test, no results.")
        spread = f"{self.how.removesuffix('.')}; ± sample standard deviation." if self.how else ""
        parts += [spread, f"Overrides: {' '.join(self.overrides)}." if self.overrides else ""]
        return " ".join(part for part in parts if part)

    @property
    def how(self) -> str:
        """How our numbers were made of runs."""
        if self.statistic is None or self.of is None:
            return ""
        way = self.experiment.aggregate
        of = "seconds of training" if self.of == SECONDS else f"each run's {self.of} evaluation"
        of += " (tests: of its selected adapter)" if self.tested else ""
        other = way is not None and (way.statistic, way.of) != (self.statistic, self.of)
        theirs = f", where the paper takes the {way.statistic} of the {way.of}" if way is not None and other else ""
        return f"Ours: {self.statistic} over seeds of {of}{theirs}."

    @cached_property
    def counts(self) -> dict[Status, int]:
        """Cells by status, the most first."""
        return dict(Counter(cell.status for cell in self.cells).most_common())

    def marks(self, notes: Sequence[str]) -> str:
        """The numbers of these footnotes, as `1, 3`."""
        return ", ".join(str(self.notes.index(note) + 1) for note in notes)


def make_table(
    experiment: Experiment,
    evidence: Evidence,
    overrides: Sequence[str] = (),
    *,
    statistic: str | None = None,
    of: str | None = None,
    composing: Callable[[str], object] = lambda name: None,
) -> Table:
    """The table of an experiment. statistic, of: other than the paper's. composing: as `planned_runs` takes it.

    Raises UserError for overrides that a run refuses.
    """
    way = experiment.aggregate
    runs: list[Behind] = []
    if experiment.name in RUN_BY and experiment.kind == "reference":
        cells = setting_cells(
            experiment.name, experiment.published, lambda name: planned_runs(name, overrides, composing)
        )
        way = None
    else:
        runs = planned_runs(experiment, overrides, composing)
        of = None if way is not None and way.of == SECONDS else of
        cells = build_cells(experiment, runs, evidence.records, statistic=statistic, of=of, analysed=evidence.analysed)
    notes = dict.fromkeys(note for cell in cells for note in (*printed_notes(cell), *own_notes(cell)))
    return Table(
        experiment=experiment,
        cells=tuple(cells),
        laid=lay_out(experiment.name, cells),
        runs=tuple(runs),
        statistic=(statistic or way.statistic) if way is not None else None,
        of=(of or way.of) if way is not None else None,
        overrides=portable(overrides),
        synthetic=evidence.synthetic,
        tested=any(answers_of(evidence.records[run.signature]) for run in runs if run.signature in evidence.records),
        notes=tuple(notes),
    )


def printed_notes(cell: Cell) -> tuple[str, ...]:
    """What is wrong with the published number."""
    return (f"misprint: {cell.published.misprint}",) if cell.published is not None and cell.published.misprint else ()


def own_notes(cell: Cell) -> tuple[str, ...]:
    """Why there is no number of ours, which runs diverged, learned nothing, or left questions without an answer."""
    if cell.reason is not None:
        return (f"not built: {cell.reason}",)
    diverged = f"diverged: {', '.join(cell.diverged)}" if cell.diverged else ""
    unanswered = (
        f"{cell.unanswered} of {cell.n * (cell.rows or 0)} completions held no answer" if cell.unanswered else ""
    )
    constant = f"{len(cell.constant)} of {cell.n} gave every row the same answer" if cell.constant else ""
    collapsed = f"{len(cell.collapsed)} of {cell.n} ended in one answer for every row" if cell.collapsed else ""
    return tuple(filter(None, (diverged, constant, collapsed, unanswered)))
