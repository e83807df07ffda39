"""The report page: whole, self-contained, escaped, the same twice; every number of ours leads to its runs."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from report_pages import EXPERIMENTS, Reader, page_of, synthetic_results

from lora_xs.records import RECORD
from lora_xs.reporting.page.make import Made

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_results(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def made(results: Path) -> tuple[Made, str]:
    return page_of(results)


def test_every_experiment_has_a_section_a_table_and_its_figures(made: tuple[Made, str]) -> None:
    page, text = made
    reader = Reader(text)
    ids = reader.ids
    assert len(ids) == len(set(ids))
    for section in page.page.sections:
        assert section.name in ids
        assert {picture.name for picture in section.pictures} <= set(ids)
    assert [section.name for section in page.page.sections] == list(EXPERIMENTS)
    images = reader.all("img")
    assert len(images) == sum(len(section.pictures) for section in page.page.sections) > 3
    for image in images:
        head, _, data = str(image["src"]).partition(",")
        assert head == "data:image/png;base64" and base64.b64decode(data).startswith(b"\x89PNG")
        assert len(str(image["alt"])) > 40


def test_nothing_is_fetched(made: tuple[Made, str]) -> None:
    reader = Reader(made[1])
    outward = [link["href"] for link in reader.all("a") if not str(link["href"]).startswith("#")]
    assert outward == ["https://arxiv.org/abs/2405.17604", "https://arxiv.org/abs/2411.19557"]
    assert not [script for script in reader.all("script") if "src" in script]
    assert [link["href"] for link in reader.all("link")] == ["data:,"]
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", made[1])


def test_every_number_of_ours_leads_to_its_runs_and_each_run_to_its_record(
    made: tuple[Made, str], results: Path
) -> None:
    page, text = made
    reader = Reader(text)
    targets = {str(link["href"])[1:] for link in reader.all("a") if str(link["href"]).startswith("#")}
    assert targets <= set(reader.ids)
    for section in page.page.sections:
        cells = [box for block in section.grid.blocks for row in block.rows for box in row if box.kind == "ours"]
        assert {box.anchor for box in cells if box.anchor} == {origin.anchor for origin in section.origins}
        assert all(box.anchor for box in cells if box.value is not None)
        for run in section.runs:
            assert (results.parent / run.record).is_file() and run.record.startswith(results.name)


def test_ours_and_published_never_share_a_box(made: tuple[Made, str]) -> None:
    for section in made[0].page.sections:
        for group in section.grid.groups:
            assert group.parts in (("ours", "published", "difference"), ("ours", "published"), ("ours",))
        widths = {len(row) for block in section.grid.blocks for row in block.rows}
        assert widths == {section.grid.width}


def test_made_up_records_are_marked_from_the_title_on(made: tuple[Made, str]) -> None:
    text = made[1]
    assert "<title>LoRA-XS and LoRA-SB, run again (SYNTHETIC)</title>" in text
    assert 'class="warning"' in text


def test_the_same_records_give_the_same_bytes(made: tuple[Made, str], results: Path) -> None:
    assert page_of(results)[1] == made[1]


def test_without_records_the_page_says_so_and_shows_what_is_published(tmp_path: Path) -> None:
    made, text = page_of(tmp_path)
    assert made.page.runs == 0 and "No record was found" in text
    assert "No run of ours yet" in text and "0 of" in text
    assert all(not section.origins for section in made.page.sections)
    assert re.search(r'<td class="published not-run"[^>]*data-value="\d', text)


def test_what_a_record_says_is_text_never_markup(results: Path, tmp_path: Path) -> None:
    copy = tmp_path / "hostile"
    shutil.copytree(results, copy)
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
    for file in sorted(copy.rglob(RECORD))[:40]:
        content = json.loads(file.read_text(encoding="utf-8"))
        content["run"]["started"] = hostile
        content["environment"] |= {"commit": hostile, "hardware": {"cpu": hostile, "cores": hostile}}
        content["environment"]["model"] = {"files": {hostile: hostile}}
        file.write_text(json.dumps(content), encoding="utf-8")
    text = page_of(copy)[1]
    assert "<script>alert" not in text and "<img src=x" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert len(Reader(text).all("script")) == 1


def test_the_command_writes_the_page_and_imports_no_torch(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "here" / "report.html"
    words = ["experiment=table06_runtime", f"--results={results}", f"--to={page}", "--page-only"]
    code = f"import sys; sys.argv = ['report.py', *{words!r}]; sys.path.insert(0, 'scripts'); import report\n"
    code += "status = report.main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(status)"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(page) and "SYNTHETIC 1 experiments" in done.stdout
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_an_override_is_refused_in_one_line(results: Path) -> None:
    command = [sys.executable, "scripts/report.py", "experiment=mini_math", "seed=0", f"--results={results}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith("error: seed=0") and done.stderr.count("\n") == 1
