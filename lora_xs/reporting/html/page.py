"""The page as data: everything that is on it, before any of it is markup."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_xs.reporting.analysed import COUNTED
from lora_xs.reporting.cell_text import LEGEND
from lora_xs.reporting.cells import SETTING
from lora_xs.reporting.claims.finding import Finding
from lora_xs.reporting.ended import Ended, ended_of
from lora_xs.reporting.evidence import Evidence
from lora_xs.reporting.html.anchors import Anchors
from lora_xs.reporting.html.costs import Costs, costs_of
from lora_xs.reporting.html.drawn import Drawn
from lora_xs.reporting.html.grid import Anchor, Grid, grid_of
from lora_xs.reporting.html.ledger import Ledger, commit_words, ledger_of, protocol_words, told
from lora_xs.reporting.html.provenance import Why, why_of
from lora_xs.reporting.html.verdicts import Claims, claims_of
from lora_xs.reporting.material import material_of
from lora_xs.reporting.noise import Status
from lora_xs.reporting.render_markdown import trace_command
from lora_xs.reporting.table import Table

OWN = "This suite's own, small experiments"
GROUPS = ("LoRA-XS", "LoRA-SB")


@dataclass(frozen=True)
class Section:
    """One experiment. found, planned: runs. figures: with their files' bytes."""

    name: str
    source: str
    title: str
    caption: str
    found: int
    planned: int
    counts: Mapping[Status, int]
    grid: Grid
    notes: tuple[str, ...]
    figures: tuple[Drawn, ...]
    costs: Costs | None
    whys: tuple[Why, ...]
    trace: str

    @property
    def heading(self) -> str:
        """What it is, where it is published."""
        return self.title if self.source == "ours" else f"{self.source}: {self.title}"

    @property
    def folded(self) -> bool:
        """Whether runs are planned and none of them is there."""
        return bool(self.planned) and not self.found

    @property
    def runs_words(self) -> str:
        """How much of it is there."""
        if not self.planned:
            return "no runs of its own"
        return f"{self.found} of {self.planned} runs" if self.found else f"no runs: 0 of {self.planned}"


@dataclass(frozen=True)
class Group:
    """Experiments of one origin."""

    title: str
    sections: tuple[Section, ...]

    @property
    def found(self) -> int:
        """Runs that are there, of any of its experiments."""
        return sum(section.found for section in self.sections)


@dataclass(frozen=True)
class Summary:
    """Counts of the whole page.

    ended: of distinct runs; beside: records that no experiment here plans. cells: by
    status; counted, settings: of these, such that no run is behind. newest: when the last run started. protocols,
    commits, machines, models: what the records name, the most frequent first, with how many do. hours: taken by the
    records. unreadable: files that are no whole record.
    """

    ended: Ended
    beside: int
    records: int
    cells: Mapping[Status, int]
    counted: int
    settings: int
    newest: str
    protocols: Mapping[str, int]
    commits: Mapping[str, int]
    machines: Mapping[str, int]
    models: Mapping[str, int]
    hours: float
    unreadable: int


@dataclass(frozen=True)
class Page:
    """Everything. legend: what each status that occurs means."""

    summary: Summary
    claims: Claims
    groups: tuple[Group, ...]
    ledger: Ledger
    legend: Mapping[Status, str]
    synthetic: bool

    @property
    def sections(self) -> list[Section]:
        """Every experiment, in the order of the page."""
        return [section for group in self.groups for section in group.sections]


def page_of(
    tables: Sequence[Table],
    evidence: Evidence,
    found: Sequence[Finding],
    drawn: Mapping[str, Sequence[Drawn]],
    roots: Sequence[Path],
) -> Page:
    """The page of these tables. found: of claims. drawn: figures by experiment. roots: where `evidence` was read."""
    anchors = Anchors()
    sections = [_section(table, evidence, drawn.get(table.name, ()), anchors) for table in tables]
    groups = [Group(f"{paper}: tables and figures of the paper", _from(sections, paper)) for paper in GROUPS] + [
        Group(OWN, tuple(one for one in sections if not one.source.startswith(GROUPS)))
    ]
    counts: Counter[Status] = Counter()
    for section in sections:
        counts.update(section.counts)
    cells = {status: counts[status] for status in LEGEND if counts[status]}
    return Page(
        summary=_summary(tables, evidence, cells),
        claims=claims_of(found),
        groups=tuple(sorted((one for one in groups if one.sections), key=lambda one: not one.found)),
        ledger=ledger_of(evidence, roots),
        legend={status: LEGEND[status] for status in cells},
        synthetic=evidence.synthetic,
    )


def _from(sections: Sequence[Section], paper: str) -> tuple[Section, ...]:
    return tuple(section for section in sections if section.source.startswith(paper))


def _section(table: Table, evidence: Evidence, drawn: Sequence[Drawn], anchors: Anchors) -> Section:
    signatures = {run.signature for run in table.runs}
    names = {
        id(cell): Anchor(anchors.new([table.name, "-".join(cell.place.values())]), anchors.new([f"why.{table.name}"]))
        for cell in table.cells
    }
    title = table.experiment.title
    return Section(
        name=table.name,
        source=table.experiment.source,
        title=title[0].upper() + title[1:],
        caption=table.caption,
        found=len(signatures & evidence.records.keys()),
        planned=len(signatures),
        counts=table.counts,
        grid=grid_of(table, names),
        notes=table.notes,
        figures=tuple(drawn),
        costs=costs_of(material_of(table, evidence)),
        whys=tuple(why_of(table, cell, names[id(cell)], evidence) for cell in table.cells),
        trace=trace_command(table),
    )


def _summary(tables: Sequence[Table], evidence: Evidence, cells: Mapping[Status, int]) -> Summary:
    planned = {run.signature for table in tables for run in table.runs}
    records = list(evidence.records.values())
    return Summary(
        ended=ended_of(planned, evidence.records),
        beside=sum(record.signature not in planned for record in records),
        records=len(records),
        cells=cells,
        counted=sum(cell.signatures == (COUNTED,) for table in tables for cell in table.cells),
        settings=sum(cell.metric == SETTING for table in tables for cell in table.cells),
        newest=max((told(record.run, "started") for record in records), default=""),
        protocols=_tally(map(protocol_words, records)),
        commits=_tally(map(commit_words, records)),
        machines=_tally(
            told(one.environment, "hardware", "gpu") or told(one.environment, "hardware", "cpu") for one in records
        ),
        models=_tally(told(record.run, "spec", "model", "name") for record in records),
        hours=sum(seconds for record in records if isinstance(seconds := record.run.get("seconds"), int | float))
        / 3600,
        unreadable=len(evidence.unreadable),
    )


def _tally(words: Iterable[str]) -> dict[str, int]:
    """How often each is named, the most first; what is not named does not count."""
    return dict(sorted(Counter(filter(None, words)).items(), key=lambda found: (-found[1], found[0])))
