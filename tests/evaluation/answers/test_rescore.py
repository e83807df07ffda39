"""`scripts/rescore.py` as a user meets it, and that scoring needs neither torch nor a model."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lora_xs.evaluation.answers.report import generation_files
from lora_xs.evaluation.generation.store import VERSION, Generation, append

REPOSITORY = Path(__file__).resolve().parents[3]
SCRIPT = REPOSITORY / "scripts" / "rescore.py"


@pytest.fixture(scope="module")
def rescore() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rescore", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(run: Path, test: str, *pairs: tuple[str, str], rows: int | None = None) -> Path:
    """A run's file of completions for a test."""
    file = run / "generations" / f"{test}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    header = {"kind": "header", "version": VERSION, "test": test, "rows": rows or len(pairs)}
    file.write_text(json.dumps(header) + "\n")
    append(file, [Generation(f"{test}/{index}", "?", text, 5, "eos", gold) for index, (text, gold) in enumerate(pairs)])
    return file


@pytest.fixture
def a_run(tmp_path: Path) -> Path:
    run = tmp_path / "s0-abc"
    write(run, "gsm8k", ("The answer is: 18", "18"), ("The answer is: 17.6 [bold]\x1b[31m", "18"), ("?", "3"), rows=9)
    write(run, "boolq", ("true", "true"))
    return run


def test_a_runs_tests_are_scored_a_line_each(
    rescore: ModuleType, a_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rescore.main([str(a_run), "--scorer", "strict", "--scorer", "published"]) == 0
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if "gsm8k" in line or "boolq" in line]
    assert "1 of 1" not in lines[0] and "100.00 ± 0.00" in lines[0]
    assert "unjudged" in out and "3 of 9" in lines[1] and "33.33 ± 27.22" in lines[1] and "66.67 ± 27.22" in lines[1]


def test_disagreements_are_listed_and_a_models_text_is_neither_markup_nor_control(
    rescore: ModuleType, a_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = a_run / "generations" / "gsm8k.jsonl"
    assert rescore.main([str(file), "--disagreements", "--scorer", "strict", "--scorer", "published"]) == 0
    out = capsys.readouterr().out
    assert (
        "gsm8k/1" in out
        and "17.6 [bold]\\x1b[31m" in out
        and "right: read as 18, equal numbers" in out
        and "\x1b[31m" not in out
    )
    assert rescore.main([str(a_run / "generations" / "boolq.jsonl"), "--disagreements"]) == 0
    assert "no disagreements" in capsys.readouterr().out


def test_json_has_all_numbers(rescore: ModuleType, a_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rescore.main([str(a_run), "--json", "--scorer", "strict"]) == 0
    boolq, gsm8k = json.loads(capsys.readouterr().out)
    assert boolq["points"] == {"strict": 100.0} and gsm8k["no_answer"] == 1 and gsm8k["rows"] == 9
    assert gsm8k["unjudged"] == 0
    assert gsm8k["file"].endswith("gsm8k.jsonl") and gsm8k["n"] == 3


def test_mistakes_are_one_line_and_status_2(
    rescore: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = write(tmp_path, "math")
    other = write(tmp_path, "glue", ("a", "b"))
    broken = tmp_path / "broken.jsonl"
    broken.write_text("not JSON\n")
    for place, said in [
        (tmp_path / "missing", "give a run's folder"),
        (broken, "broken.jsonl:1"),
        (empty, "math.jsonl: test 'math' has no generations"),
        (other, "glue.jsonl: test 'glue' has no scorer"),
    ]:
        assert rescore.main([str(place)]) == 2
        out, error = capsys.readouterr()
        assert said in error and error.startswith("error: ") and error.count("\n") == 1 and not out
    assert rescore.main([str(other), "--scorer", "strict", "--disagreements"]) == 2
    assert "needs two scorers" in capsys.readouterr().err


def test_files_are_found_from_a_run_a_folder_of_runs_a_folder_of_files_and_a_file(a_run: Path) -> None:
    files = generation_files(a_run)
    assert [file.name for file in files] == ["boolq.jsonl", "gsm8k.jsonl"]
    assert generation_files(a_run.parent) == files == generation_files(a_run / "generations")
    assert generation_files(files[0]) == files[:1]


def test_scoring_imports_no_torch_and_importing_it_no_algebra(a_run: Path) -> None:
    code = f"""
import runpy, sys
heavy = {{"torch", "transformers", "datasets", "numpy"}}
import lora_xs.evaluation.answers
assert not (heavy | {{"sympy", "mpmath", "math_verify"}}) & set(sys.modules), "after the import"
sys.argv = ["rescore.py", {str(a_run)!r}, "--disagreements"]
try:
    runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
except SystemExit as done:
    assert done.code == 0
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "gsm8k" in done.stdout
