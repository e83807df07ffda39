"""The page says what the records say: every table and figure, every number traceable, gaps named, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from report_reader import PageText, read_page, report_script
from synthetic import write_synthetic
from synthetic_curves import enrich

from lora_xs.reporting.planned import planned_runs
from lora_xs.reporting.settings import read_settings
from lora_xs.sweeps.experiment_file import load_experiment

NAMES = ("mini_math", "sb_table04_decomposed_matrix", "sb_table06_inference_cost", "table07_glue_hparams")
RUNS = ("mini_math", "sb_table04_decomposed_matrix")
WORDS = [f"experiment={name}" for name in NAMES]
PAPERS = {"https://arxiv.org/abs/2405.17604", "https://arxiv.org/abs/2411.19557"}
main = report_script().main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of synthetic records of RUNS (`full`) and of an empty folder (`none`), with their tables and figures."""
    folder = tmp_path_factory.mktemp("report")
    write_synthetic(folder / "runs", RUNS)
    enrich(folder / "runs", RUNS)
    (folder / "nothing").mkdir()
    for results, to in (("runs", "full"), ("nothing", "none")):
        words = [f"results={folder / results}", f"to={folder / to / 'index.html'}", "processes=1"]
        assert main([*WORDS, *words]) == 0
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> PageText:
    return read_page((folder / "full" / "index.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def empty(folder: Path) -> PageText:
    return read_page((folder / "none" / "index.html").read_text(encoding="utf-8"))


def test_every_experiment_has_its_section_table_figures_and_place_in_the_contents(page: PageText, folder: Path) -> None:
    links = {one.attributes["href"] for one in page.all("a")}
    for name in NAMES:
        section = page.by_id(name)
        assert section.tag == "section" and load_experiment(name).title[1:] in section.text
        assert f"#{name}" in links
    drawn = json.loads((folder / "full" / "figures" / "index.json").read_text())
    assert {entry["experiment"] for entry in drawn.values()} == {*RUNS, "sb_table06_inference_cost"}
    figures = {one.attributes["id"] for one in page.all("figure")}
    assert figures == {f"figure-{name}" for name in drawn}
    assert {file.stem for file in (folder / "full" / "figures").glob("*.png")} == set(drawn)


def test_figures_are_embedded_as_the_files_are_and_say_what_they_show(page: PageText, folder: Path) -> None:
    images = page.all("img")
    files = {file.read_bytes() for file in (folder / "full" / "figures").glob("*.png")}
    assert {base64.b64decode(one.attributes["src"].partition("base64,")[2]) for one in images} == files
    for one in images:
        assert len(one.attributes["alt"]) > 40 and int(one.attributes["width"]) == 980


def test_ours_and_published_never_share_a_column(page: PageText) -> None:
    table = "sb_table04_decomposed_matrix"
    ours = [one for one in page.all("td", "ours") if one.attributes.get("id", "").startswith(table)]
    assert len(ours) == 12  # 6 rows of GSM8K and MATH
    cells = {one.text for one in page.all("td", "published")}
    assert "63.38" in cells and not any("n=" in text for text in cells)
    assert all("(n=3)" in one.text for one in ours)


def test_every_number_leads_to_its_runs_seeds_values_and_files(page: PageText) -> None:
    ids = [one.attributes["id"] for one in page.elements if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    targets = {one.attributes["href"] for one in page.all("a") if one.attributes["href"].startswith("#")}
    assert {target[1:] for target in targets} <= set(ids)
    for run in planned_runs("mini_math"):
        assert f"runs/s{run.seed}-{run.signature}" in page.by_id("runs").text
    number = page.by_id("mini_math--lora_sb-32")
    assert number.classes == {"ours"} and "(n=3)" in number.text
    ((link, _),) = [
        (one.attributes["href"], one)
        for one in page.all("a")
        if one.text == number.text and "mini_math" in one.attributes["href"]
    ]
    entry = page.by_id(link[1:])
    behind = [run for run in planned_runs("mini_math") if run.cell["method"] == "lora_sb"]
    assert all(f"seed {run.seed}: " in entry.text and run.signature in entry.text for run in behind)


def test_nothing_is_fetched_and_nothing_but_our_own_script_may_run(page: PageText, folder: Path) -> None:
    text = (folder / "full" / "index.html").read_text(encoding="utf-8")
    for one in page.elements:
        for name, value in one.attributes.items():
            assert not name.startswith("on") and name not in ("style", "srcset", "action", "data")
            if name == "src":
                assert value.startswith("data:image/png;base64,")
            if name == "href":
                assert value.startswith("#") or (one.tag == "link" and value == "data:,") or value in PAPERS
    (style,), (script,) = page.all("style"), page.all("script")
    assert not re.search(r"url\(|@import|@font-face", style.text)
    assert not re.search(r"fetch|XMLHttp|import\(|eval|innerHTML|localStorage", script.text)
    (policy,) = (one for one in page.all("meta") if one.attributes.get("http-equiv") == "Content-Security-Policy")
    for own in (style, script):
        digest = base64.b64encode(hashlib.sha256(own.text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy.attributes["content"]
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == PAPERS


def test_headings_descend_in_order_and_tables_name_their_rows_and_columns(page: PageText) -> None:
    levels = [int(one.tag[1]) for one in page.elements if re.fullmatch("h[1-6]", one.tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    (html,) = page.all("html")
    assert html.attributes["lang"] == "en"
    for one in page.all("th"):
        assert one.attributes["scope"] in ("row", "col", "colgroup", "rowgroup")
    assert len(page.all("caption")) == len(page.all("table"))


def test_synthetic_records_mark_the_title_the_page_and_every_caption(page: PageText, empty: PageText) -> None:
    assert page.all("title")[0].text.startswith("SYNTHETIC")
    assert "Nothing on this page is a result" in page.all("p", "warning")[0].text
    captions = [one.text for one in page.all("caption") if "Ours: " in one.text]
    assert captions and all(text.startswith("SYNTHETIC") for text in captions)
    assert "SYNTHETIC" not in empty.all("html")[0].text.replace(empty.all("style")[0].text, "")


def test_without_a_record_the_page_is_whole_and_says_what_is_missing(empty: PageText) -> None:
    for name, planned in (("mini_math", 9), ("sb_table04_decomposed_matrix", 18)):
        section = empty.by_id(name)
        assert f"no runs: 0 of {planned}" in section.text and "Costs" not in section.text
    assert "no runs of its own" in empty.by_id("table07_glue_hparams").text
    folds = empty.all("details", "fold")
    assert len(folds) == 2 and not any("open" in one.attributes for one in folds)
    summary = empty.by_id("summary").text
    assert "0 of 27 planned" in " ".join(summary.split()) and summary.count("no records") == 5
    assert "No record was found" in empty.by_id("runs").text
    assert {one.text for one in empty.all("td", "ours") if one.attributes.get("data-status") == "not run"} == {
        "missing (0/3)"
    }


def test_the_summary_counts_runs_cells_and_claims(page: PageText) -> None:
    words = " ".join(page.by_id("summary").text.split())
    assert "27 of 27 planned" in words and "0 more records that no experiment here plans" in words
    settings = len(read_settings("lora_xs/table07_glue_hparams.csv"))
    assert f"24 of them are counted from architectures and {settings} are settings" in words
    assert "our runs in small settings of our own" in words and "2000-01-01 00:00:00 UTC" in words


def test_the_same_records_give_the_same_bytes_whatever_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_XS_CACHE", "off")
    words = ["experiment=sb_table04_decomposed_matrix", "experiment=mini_math", f"results={folder / 'runs'}"]
    assert main([*words, f"to={tmp_path / 'a' / 'index.html'}", "processes=1"]) == 0
    monkeypatch.setenv("LORA_XS_CACHE", str(tmp_path / "cache"))
    for to in ("b", "c"):  # the first fills the cache, the second reads it; two processes draw
        assert main([*words, f"to={tmp_path / to / 'index.html'}", "processes=2"]) == 0
    files = sorted(file.relative_to(tmp_path / "a") for file in (tmp_path / "a").rglob("*") if file.is_file())
    assert len(files) > 10
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
        assert (tmp_path / "b" / file).read_bytes() == (tmp_path / "c" / file).read_bytes(), file


def test_tables_land_as_markdown_with_their_figures(folder: Path) -> None:
    tables = folder / "full" / "tables"
    assert {file.stem for file in tables.glob("*.md")} == {*NAMES, "README"}
    shown = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", (tables / "mini_math.md").read_text())
    assert len(shown) >= 3 and all((tables / link).is_file() for link in shown)
    assert "(mini_math.md)" in (tables / "README.md").read_text()
