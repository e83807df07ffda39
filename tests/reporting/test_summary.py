"""The table of finished runs shows every word, on a pipe too."""

from __future__ import annotations

import io

from rich.console import Console

from lora_xs.records import Record
from lora_xs.reporting.summary import print_summary


def record(method: str, rank: int | None, score: float) -> Record:
    spec = {"task": {"name": "reviews", "main_metric": "accuracy"}, "method": {"name": method}, "rank": rank, "seed": 3}
    train = {
        "parameters": {"adapter": 202752, "head": 770},
        "adapter_bytes": 817592,
        "best": {"accuracy": score},
        "last": None,
        "majority": {"accuracy": 52.43},
        "train_seconds": 133.4,
    }
    return Record("diverged", {"signature": "abc", "spec": spec}, train)


def test_a_pipe_gets_whole_words_one_line_a_run_sorted_by_method() -> None:
    out = io.StringIO()
    print_summary([record("lora_xs", 16, 69.8125), record("full_ft", None, 80.0)], Console(file=out, width=40))
    lines = [line for line in out.getvalue().splitlines() if "reviews" in line]
    assert [line.split()[3] for line in lines] == ["full_ft", "lora_xs"]
    for word in ("lora_xs r=16", "202,752 + 770", "817,592", "69.81", " - ", "52.43", "133", "diverged"):
        assert word in lines[1]
