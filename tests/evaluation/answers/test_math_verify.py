"""The independent judge: its process, its time limit, and that it runs no text as code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_xs.errors import UserError
from lora_xs.evaluation.answers import independent, judge, score_generations
from lora_xs.evaluation.answers.independent import ENDED, TIMED_OUT, WORKER, Worker
from lora_xs.evaluation.generation import Generation

needs_library = pytest.mark.skipif(not independent.installed(), reason="optional: pip install 'math-verify>=0.9,<0.10'")

STUB = """
import json, os, sys, time
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["answer"] == "hang":
        time.sleep(1000)
    if request["answer"] == "die":
        os._exit(1)
    print(json.dumps({"correct": request["answer"] == request["gold"], "why": str(os.getpid())}), flush=True)
"""


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker([sys.executable, "-c", STUB])
    yield worker
    worker.close()


def request(answer: str) -> dict[str, str]:
    return {"gold": "1", "answer": answer}


def test_one_process_serves_many_answers(worker: Worker) -> None:
    replies = [worker.ask(request(answer), 60) for answer in ("1", "2", "1")]
    assert [reply["correct"] for reply in replies] == [True, False, True]
    assert len({reply["why"] for reply in replies}) == 1 and replies[0]["why"] != str(os.getpid())


def test_a_hung_answer_is_wrong_and_the_next_one_is_judged_by_a_new_process(worker: Worker) -> None:
    first = worker.ask(request("1"), 60)["why"]
    assert worker.ask(request("hang"), 0.2) == {"correct": False, "why": TIMED_OUT}
    again = worker.ask(request("1"), 60)
    assert again["correct"] and again["why"] != first
    with pytest.raises(ProcessLookupError):
        os.kill(int(first), 0)


def test_a_process_that_dies_costs_one_answer(worker: Worker) -> None:
    assert worker.ask(request("die"), 60) == {"correct": False, "why": ENDED}
    assert worker.ask(request("1"), 60)["correct"]


def test_threads_take_turns(worker: Worker) -> None:
    replies: list[bool] = []
    threads = [
        threading.Thread(target=lambda: replies.append(worker.ask(request("1"), 60)["correct"])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == [True] * 8


def test_a_process_that_does_not_start_is_named() -> None:
    worker = Worker([sys.executable, "-c", "raise SystemExit(1)"])
    with pytest.raises(UserError, match="does not start"):
        worker.ask(request("1"), 60)


def test_a_missing_library_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(independent, "installed", lambda: False)
    with pytest.raises(UserError, match="pip install 'math-verify"):
        judge("math", "The answer is: 1", "1", "math_verify")
    rows = [Generation("gsm8k/0", "?", "The answer is: 1", 4, "eos", "1")]
    with pytest.raises(UserError, match="pip install 'math-verify"):
        score_generations("gsm8k", rows, ["math_verify"])
    assert set(score_generations("gsm8k", rows).points) == {"strict", "published"}
    assert judge("boolq", "true", "true", "math_verify").correct, "a label needs no library"


@needs_library
def test_the_librarys_eval_makes_numbers_and_nothing_else(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    code = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("worker", {str(WORKER)!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
worker.disarm()
import sympy
assert sympy.sympify("18") == 18 and sympy.Number("-1.5") == -1.5
for text in ("open({str(mark)!r}, 'w')", "x", "2**3", "1+1", "Integer(1)", "'18'", "9" * 2000):
    try:
        sympy.sympify(text)
    except (ValueError, TypeError, sympy.SympifyError):
        continue
    raise SystemExit(text)
x = sympy.Symbol("x")
try:
    sympy.lambdify(x, x + 1)
except ValueError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "refused\n" and done.returncode == 0, done.stdout + done.stderr
    assert not mark.exists()


@needs_library
def test_the_real_process_answers_whatever_it_is_asked() -> None:
    requests = [
        {"gold": "$\\frac{1}{2}$", "answer": "$0.5$"},
        {"gold": "$1$", "answer": "$__import__('os')._exit(3)$"},
        {"gold": "1", "answer": "$1+1$"},
        {"gold": "1", "answer": "1\n\u2028\ud83d\ude00"},
        {"gold": "", "answer": "1"},
    ]
    lines = "".join(json.dumps(asked) + "\n" for asked in requests)
    done = subprocess.run([sys.executable, "-P", str(WORKER)], input=lines, capture_output=True, text=True, timeout=120)
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert replies[0] == {"ready": True} and done.returncode == 0, done.stderr
    assert [reply["correct"] for reply in replies[1:]] == [True, False, False, True, False]


@needs_library
def test_the_library_works_beside_hydras_parser_runtime() -> None:
    assert judge("math", "The answer is: \\frac{\\sqrt{8}}{2}", "\\sqrt{2}", "math_verify").correct
