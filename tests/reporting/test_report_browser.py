"""The report page in a real browser without a screen: silent, sortable, readable on a phone, printable."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from report_pages import page_of, synthetic_results

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (the extra `browser`)")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")
QUIET = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
FIRST = "#table13_init_grid_mrpc table.sortable"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*QUIET, f"--user-data-dir={folder / 'profile'}", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    page = folder / "index.html"
    page.write_text(page_of(synthetic_results(folder / "results"))[1], encoding="utf-8")
    driver.get(page.as_uri())
    yield driver
    driver.quit()


@pytest.fixture(autouse=True)
def _fresh(browser: Any) -> None:
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get(browser.current_url.partition("#")[0])


def column(browser: Any, at: int, block: int = 0) -> list[str]:
    """Sort keys of a column of the first grid's first block, top to bottom."""
    script = """return [...document.querySelector(arguments[0]).tBodies[arguments[2]].rows]
        .filter(row => !row.classList.contains('title')).map(row => row.cells[arguments[1]].dataset.value)"""
    return list(browser.execute_script(script, FIRST, at, block))


def test_the_console_is_silent_and_every_image_is_there(browser: Any) -> None:
    browser.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert browser.get_log("browser") == []
    widths = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert widths and min(widths) > 300


def test_nothing_is_asked_of_the_network(browser: Any) -> None:
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert [name for name in asked if not name.startswith("data:")] == []


def test_a_click_sorts_by_number_and_a_second_one_the_other_way(browser: Any) -> None:
    button = f"{FIRST} thead th.ours button"
    browser.execute_script("document.querySelector(arguments[0]).click()", button)
    up = [float(value) for value in column(browser, 1) if value]
    assert len(up) > 2 and up == sorted(up)
    head = browser.execute_script("return document.querySelector(arguments[0]).closest('th').ariaSort", button)
    assert head == "ascending"
    browser.execute_script("document.querySelector(arguments[0]).click()", button)
    assert [float(value) for value in column(browser, 1) if value] == up[::-1]


def test_keys_sort_too(browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    buttons = browser.find_elements(By.CSS_SELECTOR, f"{FIRST} thead th.published button")
    browser.execute_script("arguments[0].focus()", buttons[1])
    buttons[1].send_keys(Keys.ENTER)
    found = [float(value) for value in column(browser, 5) if value]
    assert len(found) > 2 and found == sorted(found)


def test_what_is_missing_stays_last(browser: Any) -> None:
    script = """const body = document.querySelector(arguments[0]).tBodies[0];
        const row = [...body.rows].find(one => !one.classList.contains('title'));
        row.cells[1].dataset.value = '';
        document.querySelector(arguments[0] + ' thead th.ours button').click();
        const up = [...body.rows].at(-1) === row;
        document.querySelector(arguments[0] + ' thead th.ours button').click();
        return [up, [...body.rows].at(-1) === row]"""
    assert browser.execute_script(script, FIRST) == [True, True]


def test_the_filter_keeps_rows_that_have_the_status(browser: Any) -> None:
    script = """const choice = document.getElementById('status');
        choice.value = arguments[0]; choice.dispatchEvent(new Event('change'));
        return [...document.querySelectorAll('.experiment .whole > .scroll tbody tr:not(.title)')]
            .map(row => [row.hidden, [...row.cells].some(cell => cell.dataset.status === arguments[0])])"""
    rows = browser.execute_script(script, "reproduced")
    assert any(there for _, there in rows) and any(not there for _, there in rows)
    assert all(hidden is not there for hidden, there in rows)


def test_a_link_to_a_run_opens_what_it_lies_in(browser: Any) -> None:
    script = """const link = document.querySelector('#table13_init_grid_mrpc td.ours a');
        location.hash = link.getAttribute('href'); return link.getAttribute('href').slice(1)"""
    name = browser.execute_script(script)
    seen = "const at = document.getElementById(arguments[0]).getBoundingClientRect(); return at.height > 0"
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    assert browser.execute_script(seen, name)


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_the_page_never_scrolls_sideways(browser: Any, width: int) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_it_prints_with_everything_open(browser: Any) -> None:
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    shut = browser.execute_script("return document.querySelectorAll('details.whole:not([open])').length")
    printed = base64.b64decode(browser.print_page())
    assert shut == 0 and printed.startswith(b"%PDF") and printed.count(b"/Type /Page") > 3


def test_it_is_read_without_its_script(browser: Any) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.refresh()
        source = browser.page_source
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert 'class="filter"' in source and "<summary>Contents</summary>" in source
    assert 'hidden=""' in source.partition('class="filter"')[2].partition(">")[0]
