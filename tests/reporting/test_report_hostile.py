"""Whatever a record says is text: names, errors, folders and versions that look like markup stay words."""

from __future__ import annotations

import json

import pytest
from report_reader import PageText, read_page, report_script
from synthetic import record_of, write_synthetic

from lora_xs.reporting.planned import planned_runs

NAME = "mini_math"
SCRIPT = "</td></script><script>alert('one')</script>"
IMAGE = "\"'><img src=x onerror=alert(2)>"
WORDS = "{{ 7 * 7 }}<b>bold</b>&amp;"
main = report_script().main


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> PageText:
    """A page of mini_math with one run that diverged and says the worst everywhere, in a folder named so."""
    folder = tmp_path_factory.mktemp("hostile")
    write_synthetic(folder / "runs", [NAME])
    run = planned_runs(NAME)[0]
    (folder / "runs" / f"s{run.seed}-{run.signature}" / "record.json").unlink()
    record = record_of(run, {}, status="diverged")
    record.run["error"] = {"what": SCRIPT, "step": 3}
    record.run["protocol"] = IMAGE
    record.run["started"] = WORDS
    record.run["spec"] = {
        "task": {"name": SCRIPT, "main_metric": "response_loss"}, "model": {"name": IMAGE}, "method": {"name": WORDS},
    }  # fmt: skip
    record.environment = {
        "commit": IMAGE, "hardware": {"cpu": SCRIPT}, "versions": {IMAGE: WORDS}, "data": {SCRIPT: {IMAGE: WORDS}},
        "model": {"name": WORDS},
    }  # fmt: skip
    own = folder / "runs" / "a \"><b onclick='x'>"
    own.mkdir()
    (own / "record.json").write_text(json.dumps(vars(record)), encoding="utf-8")
    to = folder / "page" / "index.html"
    assert main([f"experiment={NAME}", f"results={folder / 'runs'}", f"to={to}", "processes=1"]) == 0
    return read_page(to.read_text(encoding="utf-8"))  # strictly nested: nothing closed what it should not


def test_no_element_of_a_record_s_making_is_on_the_page(page: PageText) -> None:
    assert len(page.all("script")) == 1 and "alert" not in page.all("script")[0].text
    assert not [one for one in page.elements if any(name.startswith("on") for name in one.attributes)]
    assert all(one.attributes["src"].startswith("data:image/png") for one in page.all("img"))
    assert {one.text for one in page.all("b")} == {
        one.text for one in page.all("b") if one.text.replace(",", "").isdecimal()
    }


def test_what_a_record_says_is_there_as_it_was_written(page: PageText) -> None:
    runs, shared = page.by_id("runs").text, page.by_id("shared").text
    assert all(words in runs for words in (SCRIPT, IMAGE, WORDS, "<b onclick='x'>"))
    assert all(words in shared for words in (SCRIPT, IMAGE, WORDS))
    assert "49" not in [one.text for one in page.all("td")]


def test_addresses_are_made_of_plain_letters(page: PageText) -> None:
    for one in page.elements:
        assert set(one.attributes.get("id", "")) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
        )
