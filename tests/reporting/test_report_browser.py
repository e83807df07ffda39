"""The page in a real browser: no error, no request, all images; sorting, filter, opened numbers, phone, print."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from browser import chromium, screen
from report_reader import report_script
from synthetic import write_synthetic
from synthetic_curves import enrich

pytestmark = pytest.mark.slow
NAMES = ("mini_math", "sb_table04_decomposed_matrix", "sb_table06_inference_cost", "demo")
RUNS = ("mini_math", "sb_table04_decomposed_matrix")
TABLE = "#sb_table04_decomposed_matrix > .scroll table"
COLUMN = """
return [...document.querySelectorAll(arguments[0] + ' tbody tr')].map((row) => row.cells[arguments[1]].innerText)
"""
SORTED = """
return document.querySelectorAll(arguments[0] + ' [aria-sort]').length + ' ' + arguments[1].closest('th').ariaSort
"""
CHOOSE = "const s = document.querySelector('#status'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))"
SECTIONS = "return [...document.querySelectorAll('section.experiment')].filter((o) => !o.hidden).map((o) => o.id)"
ROWS = """
const rows = 'section.experiment:not([hidden]) > .scroll:first-of-type tbody tr:not([hidden]):not(.title)';
return [...document.querySelectorAll(rows)].map(
  (row) => [...row.querySelectorAll('td.ours')].map((cell) => [cell.dataset.status, cell.classList.contains('dim')]))
"""
BEFORE_PRINT = """
window.opened = [];
addEventListener('beforeprint', () => { opened.push(document.querySelector('#runs details').open); });
"""
WORDS = "p, td, th, a, small, dd, dt, li, h1, h2, h3, h4, summary, caption, .badge, figcaption"
CONTRAST = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
const ground = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const colour = parse(getComputedStyle(one).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
let worst = [99, ""];
for (const element of document.querySelectorAll(arguments[0])) {
  if (!element.textContent.trim() || !element.checkVisibility()) continue;
  const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const named = element.tagName + "." + element.className + ": " + element.textContent.slice(0, 40);
  if (ratio < worst[0]) worst = [ratio, named];
}
return worst;
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a page of synthetic records, on disk."""
    folder = tmp_path_factory.mktemp("browsed")
    write_synthetic(folder / "runs", RUNS)
    enrich(folder / "runs", RUNS)
    words = [f"experiment={name}" for name in NAMES]
    to = folder / "page" / "index.html"
    assert report_script().main([*words, f"results={folder / 'runs'}", f"to={to}", "processes=1"]) == 0
    return to.as_uri()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def browser(started: Any, page: str) -> Any:
    """The browser with the page freshly loaded on a desktop's screen."""
    screen(started, 1440, 900)
    started.get("about:blank")
    started.get_log("performance")
    started.get_log("browser")
    started.get(page)
    return started


def requests(driver: Any) -> list[str]:
    messages = [json.loads(line["message"])["message"] for line in driver.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    failed = [m["params"]["errorText"] for m in messages if m["method"] == "Network.loadingFailed"]
    assert failed == []
    return [url for url in sent if not url.startswith("data:")]


def test_no_error_no_request_but_the_file_and_every_image_is_there(browser: Any, page: str) -> None:
    images = browser.execute_script(
        "document.querySelectorAll('details').forEach((one) => { one.open = true; });"
        "return Promise.all([...document.images].map((one) => one.decode().then(() => one.naturalWidth)))"
    )
    assert len(images) > 5 and all(width == 980 for width in images)
    assert browser.get_log("browser") == []
    assert requests(browser) == [page]


def test_a_head_sorts_numbers_as_numbers_with_a_click_and_with_the_key(browser: Any) -> None:
    heads = browser.find_elements("css selector", f"{TABLE} thead tr:last-child button")
    heads[0].click()  # GSM8K, ours
    ours = [float(text.split()[0]) for text in browser.execute_script(COLUMN, TABLE, 1)]
    assert ours == sorted(ours) and min(ours) < 10 < max(ours)  # as words, "9.9" would follow "80"
    assert browser.execute_script(SORTED, TABLE, heads[0]) == "1 ascending"
    heads[0].send_keys("\ue007")  # Enter
    down = [float(text.split()[0]) for text in browser.execute_script(COLUMN, TABLE, 1)]
    assert down == ours[::-1] and browser.execute_script(SORTED, TABLE, heads[0]) == "1 descending"
    heads[2].click()  # the difference
    differences = [float(t.split()[0].replace("−", "-")) for t in browser.execute_script(COLUMN, TABLE, 3)]
    assert differences == sorted(differences) and differences[0] < 0
    assert browser.execute_script(SORTED, TABLE, heads[2]) == "1 ascending"


def test_what_is_missing_sorts_last_either_way(browser: Any) -> None:
    head = browser.find_element("css selector", "#overview thead th:nth-child(4) button")
    for _ in range(2):
        head.click()
        counts = browser.execute_script(COLUMN, "#overview table", 3)
        known = [int(text) for text in counts if text]
        assert 0 < len(known) < len(counts) and all(counts[: len(known)])


def test_the_filter_leaves_rows_and_sections_of_that_status(browser: Any) -> None:
    everything = browser.execute_script(SECTIONS)
    browser.execute_script(CHOOSE, "not run")
    assert browser.execute_script(SECTIONS) == ["demo"]
    assert "2 cells in 1 tables" in browser.find_element("css selector", ".filter output").text
    assert browser.find_element("css selector", "#demo table").is_displayed()  # its fold is opened
    browser.execute_script(CHOOSE, "off")
    rows = browser.execute_script(ROWS)
    assert rows
    for row in rows:
        assert any(status == "off" for status, _ in row)
        assert all(dim == (status != "off") for status, dim in row)
    browser.execute_script(CHOOSE, "")
    assert browser.execute_script(SECTIONS) == everything


def test_a_number_opens_to_its_runs_and_their_records(browser: Any) -> None:
    link = browser.find_element("css selector", "#mini_math--lora_xs-32 a")
    value = link.text
    browser.execute_script("arguments[0].click()", link)
    dialog = browser.find_element("css selector", "dialog[open]")
    assert value in dialog.text and dialog.text.count("seed ") == 3
    assert dialog.text.count(": its record") == 3 and "runs/s0-" in dialog.text
    dialog.find_element("tag name", "button").click()
    assert not browser.find_elements("css selector", "dialog[open]")


def test_a_link_into_a_fold_opens_it(browser: Any, page: str) -> None:
    target = browser.execute_script("return document.querySelector('#demo td.ours').id")
    browser.get("about:blank")
    browser.get(f"{page}#{target}")
    assert browser.find_element("id", target).is_displayed()


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_the_page_in_its_width_and_every_word_can_be_read(browser: Any, page: str, dark: bool) -> None:
    for width in (390, 1440):
        screen(browser, width, 844, mobile=width < 500, dark=dark)
        browser.get(page)
        browser.execute_script("document.querySelectorAll('main details').forEach((one) => { one.open = true; })")
        wide = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1] == width
        ratio, where = browser.execute_script(CONTRAST, WORDS)
        assert ratio >= 4.5, where  # WCAG 2 AA
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is not dark


def test_it_prints_with_runs_opened_and_the_rest_folded_again(browser: Any) -> None:
    folds = "return [...document.querySelectorAll('details')].map((one) => one.open)"
    before = browser.execute_script(folds)
    browser.execute_script(BEFORE_PRINT)
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")
    assert browser.execute_script("return opened") == [True]
    assert browser.execute_script(folds) == before


def test_without_scripts_every_table_and_number_is_there(browser: Any, page: str) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page)
        assert browser.find_element("css selector", TABLE).is_displayed()
        assert not browser.find_elements("css selector", "thead button")
        assert not browser.find_element("css selector", ".filter").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
