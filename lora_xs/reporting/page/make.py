"""The page's content, gathered: sections, claims, counts and provenance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_xs.reporting.claims.checklist import CLAIMS
from lora_xs.reporting.claims.finding import findings
from lora_xs.reporting.claims.gather import Gatherer
from lora_xs.reporting.evidence import Evidence
from lora_xs.reporting.figures.index import draw_figures
from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.material import material_of
from lora_xs.reporting.page.front import claim_lines, counts_of, facts_of, newest
from lora_xs.reporting.page.render import Page
from lora_xs.reporting.page.section import section_of
from lora_xs.reporting.table import Table, make_table
from lora_xs.sweeps.experiment_file import load_experiment


@dataclass(frozen=True)
class Made:
    """The page, and the tables and figures on it, for files of their own. figures: of each experiment."""

    page: Page
    tables: tuple[Table, ...]
    figures: Mapping[str, Sequence[Picture]]


def make_page(names: Iterable[str], evidence: Evidence, roots: Sequence[Path], claims_on: Sequence[str] = ()) -> Made:
    """The page of these experiments. roots: the folders that `evidence` was read from. claims_on: claims that are
    tested on these experiments, there alone; every claim, everywhere, without.

    Raises UserError for an experiment there is not.
    """
    tables, figures, sections = [], {}, []
    for name in names:
        table = make_table(load_experiment(name), evidence)
        tables.append(table)
        figures[name] = draw_figures(material_of(table, evidence))
        sections.append(section_of(table, evidence, roots, figures[name]))
    gather = Gatherer(evidence)
    tested = [one for claim in CLAIMS for one in findings(claim, gather, only=claims_on)]
    page = Page(
        sections=tuple(sections),
        claims=tuple(claim_lines(tested)),
        counts=tuple(counts_of(sections)),
        facts=tuple(facts_of(evidence)),
        synthetic=evidence.synthetic,
        newest=newest(evidence),
    )
    return Made(page, tuple(tables), figures)
