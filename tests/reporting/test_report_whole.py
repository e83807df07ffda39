"""All experiments on one page: from synthetic records of every run nothing is left out, and no name stands twice."""

from __future__ import annotations

import pytest
from report_reader import PageText, read_page
from synthetic import write_synthetic

from lora_xs.reporting.claims.checklist import CLAIMS
from lora_xs.reporting.claims.finding import findings
from lora_xs.reporting.claims.gather import Gatherer
from lora_xs.reporting.evidence import read_evidence
from lora_xs.reporting.html.page import Page, page_of
from lora_xs.reporting.html.render import to_html
from lora_xs.reporting.table import make_table
from lora_xs.sweeps.experiment_file import experiment_names, load_experiment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, PageText]:
    """The page of every experiment and claim, without figures."""
    results = tmp_path_factory.mktemp("whole")
    write_synthetic(results)
    evidence = read_evidence([results])
    tables = [make_table(load_experiment(name), evidence) for name in experiment_names()]
    gather = Gatherer(evidence)
    found = [one for claim in CLAIMS for one in findings(claim, gather)]
    page = page_of(tables, evidence, found, {}, [results])
    return page, read_page(to_html(page))


def test_every_table_and_every_cell_is_on_the_page_once(made: tuple[Page, PageText]) -> None:
    page, text = made
    assert sorted(section.name for section in page.sections) == sorted(experiment_names())
    ids = [one.attributes["id"] for one in text.elements if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    cells = sum(count for section in page.sections for count in section.counts.values())
    assert cells == sum(page.summary.cells.values()) > 1500
    numbers = [one for one in text.all("td", "ours") if one.attributes.get("id")]
    assert len(numbers) == cells
    links = {one.attributes["href"][1:] for one in text.all("a") if one.attributes["href"].startswith("#")}
    assert links <= set(ids)


def test_every_run_has_its_row_and_every_claim_its_verdicts(made: tuple[Page, PageText]) -> None:
    page, text = made
    summary = page.summary
    assert summary.ended.ended == summary.ended.planned == summary.records > 1800 and not summary.beside
    rows = [one for one in text.all("th", "run")]
    assert len(rows) == summary.records
    claims = text.by_id("claims").text
    assert all(claim.sentence in claims and claim.source in claims for claim in CLAIMS)
    papers, own, printed = page.claims.counts.values()
    assert sum(papers.values()) == len(CLAIMS) and sum(own.values()) > 5 and printed["supported"] > 2
    assert len(to_html(page).encode()) < 3.2e6  # what a page of figures adds stays below as much again


def test_a_paper_s_experiments_come_in_its_own_group_and_those_with_runs_first(made: tuple[Page, PageText]) -> None:
    page, _ = made
    titles = [group.title.partition(":")[0] for group in page.groups]
    assert titles == ["LoRA-XS", "LoRA-SB", "This suite's own, small experiments"]
    for group, word in zip(page.groups, ("LoRA-XS", "LoRA-SB", "ours"), strict=True):
        assert all(section.source.startswith(word) for section in group.sections)
