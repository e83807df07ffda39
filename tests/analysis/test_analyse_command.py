"""scripts/analyse.py from its arguments: exit statuses, what it prints, what it leaves."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from lora_xs.analysis.record import read_analysis

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def analyse():
    """The command."""
    found = importlib.util.spec_from_file_location("analyse", REPOSITORY / "scripts" / "analyse.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_a_study_is_done_once_and_then_shown(analyse, tuned_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["spectrum", str(tuned_folder), "--fractions", "0.5,1", "--modules", "query", "--rows", "9"]
    assert analyse.main(words) == 0
    first = capsys.readouterr()
    assert first.err.count("query") == 6 and "matthews of the weights as they are" in first.out
    record = read_analysis(tuned_folder / "analysis" / "spectrum-9rows.json")
    assert record is not None and len(record.points) == 6
    assert record.command.endswith("--fractions 0.5,1 --modules query --rows 9")
    assert str(tuned_folder.parent) not in json.dumps(record.command) + json.dumps(record.environment)
    assert analyse.main(words) == 0
    again = capsys.readouterr()
    assert again.out.startswith("already done") and again.out.partition("\n")[2] == first.out
    assert analyse.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["points"] == record.points


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["projection", "nowhere"], "neither a folder nor a signature"),
        (["projection", "FOLDER", "--rows", "0"], "--rows 0: at least 1 row"),
        (["projection", "FOLDER", "--fractions", "half"], "--fractions half: not numbers"),
        (["spectrum", "FOLDER", "--fractions", "2"], "--fractions 2.0: a fraction"),
    ],
)
def test_mistakes_answer_in_a_line(
    analyse, tuned_folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert analyse.main([str(tuned_folder) if word == "FOLDER" else word for word in words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and says in said and said.count("\n") == 1


def test_costs_need_no_run_and_show_those_there_are(
    analyse, trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analyse, "TIMED", ("table06_runtime",))  # others have hundreds of runs to compose
    assert analyse.main(["cost", "--results", str(tmp_path), "--json"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert {point["kind"] for point in points} == {"operations", "parameters"}
    source = trained("lora_xs")
    shutil.copytree(source, tmp_path / source.name)
    assert analyse.main(["cost", "--results", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "200.7" in text and "0/1" in text  # printed seconds, and no run of ours behind them
    assert "gemma2-9b: what is printed follows from rows of 415.0 to 416.1 tokens, not 256" in text
    record = read_analysis(tmp_path / "analysis" / "cost.json")
    assert record is not None and record.environment["versions"]
    (time,) = [point for point in record.points if point["kind"] == "time"]
    assert (time["method"], time["rank"], time["modules"]) == ("lora_xs", 4, 8) and time["start_seconds"] > 0
    assert time["percent"] == pytest.approx(100 * time["start_seconds"] / time["training_seconds"])
