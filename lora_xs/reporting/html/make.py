"""From records to files: the page, its figures and the tables beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_xs.atomic import write_text
from lora_xs.reporting.claims.checklist import CLAIMS
from lora_xs.reporting.claims.finding import findings
from lora_xs.reporting.claims.gather import Gatherer
from lora_xs.reporting.claims.written import claims_page
from lora_xs.reporting.evidence import Evidence, read_evidence
from lora_xs.reporting.figures.files import save_png, write_index
from lora_xs.reporting.html.drawing import draw_all
from lora_xs.reporting.html.page import page_of
from lora_xs.reporting.html.render import to_html
from lora_xs.reporting.material import material_of
from lora_xs.reporting.table import make_table
from lora_xs.reporting.written import FORMATS, write_tables
from lora_xs.sweeps.experiment_file import experiment_names, load_experiment


@dataclass(frozen=True)
class Places:
    """What is read and what is written. results: folders with records. page: the HTML file. claims: a Markdown file."""

    results: tuple[Path, ...]
    page: Path
    tables: Path
    figures: Path
    claims: Path


def make_report(
    places: Places,
    names: Sequence[str] = (),
    processes: int | None = None,
    composing: Callable[[str], object] = lambda name: None,
) -> Evidence:
    """Write everything and return what it was made of. names: of experiments; all without. processes: that draw.

    Raises UserError for an experiment there is not, and as `read_evidence`.
    """
    every = experiment_names()
    experiments = [load_experiment(name) for name in names or every]
    evidence = read_evidence(places.results)
    tables = [make_table(experiment, evidence, composing=composing) for experiment in experiments]
    gather = Gatherer(evidence, composing)
    found = [one for claim in CLAIMS for one in findings(claim, gather, only=names)]
    drawn = draw_all([material_of(table, evidence) for table in tables], processes)
    for picture in (picture for pictures in drawn.values() for picture in pictures):
        save_png(picture.name, picture.png, places.figures)
    write_index(places.figures, drawn)
    write_tables(tables, evidence, places.tables, FORMATS, every, places.figures)
    write_text(places.claims, claims_page(found))
    write_text(places.page, to_html(page_of(tables, evidence, found, drawn, places.results)))
    return evidence
