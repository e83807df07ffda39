"""The benchmarks' common form: what a row and a curve say, and the page made of them. No time is measured here."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def modules():
    """side_by_side and report, imported without leaving their environment behind."""
    environment, path = dict(os.environ), list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("side_by_side"), importlib.import_module("report")
    sys.path[:] = path
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def form(modules) -> ModuleType:
    return modules[0]


@pytest.fixture
def page(modules) -> ModuleType:
    return modules[1]


def test_a_ratio_is_the_median_of_the_pairs_and_not_the_ratio_of_medians(form):
    row = form.compared("q", [1.0, 10.0, 3.0], [2.0, 4.0, 3.0], target=1.0)
    assert (row.ratio, row.least, row.most, row.rounds, row.met) == (1.0, 0.5, 2.5, 3, True)
    assert form.compared("q", [3.0], [2.0], target=1.2).met is False
    assert form.compared("q", [3.0], [2.0]).met is None
    assert form.absent("q", "no peer", target=1.0).met is None


def test_arms_alternate_and_the_order_turns_round(form):
    called: list[str] = []
    clock = iter(range(100))
    arms = {"a": lambda: called.append("a"), "b": lambda: called.append("b")}
    seconds = form.race(arms, rounds=2, unmeasured=1, clock=lambda: next(clock))
    assert called == ["b", "a", "a", "b", "b", "a"]
    assert seconds == {"a": [1, 1], "b": [1, 1]}


def test_a_slope_is_the_power_of_growth(form):
    curve = form.grown("c", "x", "y", {1: 5.0, 2: 12.0, 4: 48.0, 8: 192.0}.items(), fitted_from=2)
    assert curve.slope == pytest.approx(2.0)
    assert curve.slope_of == "log y over log x, x ≥ 2"
    assert [x for x, _ in curve.points] == [1, 2, 4, 8]


def test_rows_are_written_as_agreed(form, tmp_path):
    sheet = form.Sheet("t")
    sheet.add(form.compared("q", [1.0], [2.0], 0.6), form.absent("z", "not installed", 1.0))
    sheet.finish(tmp_path / "rows.json")
    first, second = json.loads((tmp_path / "rows.json").read_text())
    wanted = {"question", "ratio", "least", "most", "rounds", "target", "met", "what", "note"}
    assert set(first) == set(second) == wanted
    assert first["met"] is True and second["ratio"] is None and second["note"] == "not installed"


def test_every_script_has_the_common_options(page):
    assert {"step", "growth", "factors", "bundle", "generation", "warm", "gpu"} <= set(page.scripts())
    assert not {"report", "side_by_side", "arms", "stress"} & set(page.scripts())


def test_the_page_says_what_was_met_missed_and_not_measured_and_measures_nothing_twice(
    form, page, tmp_path, monkeypatch
):
    measured: list[str] = []

    def run(command: list[str], **_: object):
        measured.append(Path(command[1]).stem)
        items = [
            form.compared("fast enough", [1.0], [2.0], 0.6),
            form.compared("too slow | here", [3.0], [2.0], 1.2, note="why it is so"),
            form.absent("peer", "not installed", 1.0),
            form.compared("aside", [3.0], [2.0]),
            form.grown("time against size", "size", "s", [(1, 1.0), (2, 2.0)]),
        ]
        Path(command[command.index("--json") + 1]).write_text(json.dumps([form.as_json(item) for item in items]))
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(page.subprocess, "run", run)
    monkeypatch.setattr(
        page,
        "describe_environment",
        lambda: {"hardware": {"cpu": "C", "cores": 2, "gpu": None}, "versions": {"torch": "2"}, "commit": "0123456789"},
    )
    for _ in range(2):
        assert page.main(["--only", "step", "--folder", str(tmp_path)]) == 0
    assert measured == ["step"]
    text = (tmp_path / "benchmarks.md").read_text()
    assert "1 of 3 targets met, 1 not measured." in text
    assert "| fast enough | 0.5 | ≤ 0.6 | yes |" in text
    assert "| too slow \\| here | 1.5 | ≤ 1.2 | **no** |" in text and "why it is so" in text
    assert "| peer |  | ≤ 1 | not measured |" in text
    assert "Slope 1.00" in text and (tmp_path / "benchmarks" / "time-against-size.png").stat().st_size
    assert page.main(["--only", "step", "--folder", str(tmp_path), "--again"]) == 0
    assert measured == ["step", "step"]


def test_a_script_that_fails_is_named_and_keeps_nothing(page, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(page.subprocess, "run", lambda *_, **__: type("Done", (), {"returncode": 1}))
    assert page.main(["--only", "warm", "--folder", str(tmp_path)]) == 1
    assert "failed: warm" in capsys.readouterr().out
    assert not (tmp_path / "benchmarks" / "warm.json").exists()
