"""`scripts/claims.py`: a table or JSON of what is asked for, refusals in a line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("claims_script", REPOSITORY / "scripts" / "claims.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_runs_the_papers_numbers_are_judged_and_ours_are_undecided(
    script: ModuleType, tmp_path: Path, capsys: Any
) -> None:
    assert script.main(["experiment=table06_runtime", "seed=0", "--results", str(tmp_path), "--json"]) == 0
    (finding,) = json.loads(capsys.readouterr().out)
    assert finding["claim"] == "xs_trains_as_fast_as_lora" and finding["setting"]["overrides"] == ["seed=0"]
    assert finding["ours"]["verdict"] == "undecided" and finding["published"]["verdict"] == "supported"
    assert [pair["seed"] for pair in finding["published"]["parts"][0]["pairs"]] == [None, None, None]
    assert script.main(["experiment=table06_runtime", "--results", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "LoRA-XS Table 6" in said and "supported: 3" in said


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["claim=everything_works"], "claim=everything_works: no such claim"),
        (["experiment=demo"], "experiment=demo: no claim is tested on it"),
        (["seed=0"], "seed=0 goes with one experiment"),
        (["claim=noise_hurts", "--results", "nowhere"], "no such folder"),
    ],
)
def test_mistakes_are_refused_in_a_line(script: ModuleType, words: list[str], complaint: str, capsys: Any) -> None:
    assert script.main(words) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.count("\n") == 1
