"""MetaMathQA, GSM8K and MATH: rows to learn and gold answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_xs.data.instruction_sets import INSTRUCTION_LOADERS
from lora_xs.data.math_tests import last_boxed
from lora_xs.data.metamath import load_gsm8k_train, load_metamathqa, metamath_form
from lora_xs.data.questions import TESTS
from lora_xs.data.sources import Request
from lora_xs.errors import UserError

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
needs_data = pytest.mark.skipif(not (SHARED / "math").is_dir(), reason="the shared data folder is not there")
WORKED = "She has 2*3=<<2*3=6>>6 eggs.\nShe sells 6-1=<<6-1=5>>5.\n#### 5"


def request(root: Path | None, task: str = "math/metamathqa", prompt: str | None = None) -> Request:
    return Request(task, "auto", root, None, None, prompt)


def write(root: Path, name: str, rows: list[dict], listed: bool = False) -> Path:
    path = root / "math" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rows) if listed else "".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(autouse=True)
def no_folder_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORA_XS_DATA", raising=False)


def test_metamathqa_is_read_from_a_list_or_from_lines_under_either_field_names(tmp_path: Path) -> None:
    own = [{"type": "GSM_SV", "query": f"q{i}", "original_question": "", "response": f"r{i}"} for i in range(3)]
    contents = []
    for folder, name, rows, listed in (
        ("a", "MetaMathQA-395K.json", own, True),
        ("b", "metamathqa.jsonl", own, False),
        ("c", "metamathqa.jsonl", [{"instruction": row["query"], "output": row["response"]} for row in own], False),
    ):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, name, rows, listed)
        made = load_metamathqa(request(tmp_path / folder))
        contents.append(made.identity["content"])
        assert list(made.identity["files"]) == [f"math/{name}"]
    assert contents[0] == contents[1] == contents[2]
    assert made.train["response"][:] == ["r0", "r1", "r2"]
    assert made.train["prompt"][1].endswith("### Instruction:\nq1\n\n### Response:")


def test_gsm8k_is_answered_in_metamathqas_form_without_the_calculators_notes(tmp_path: Path) -> None:
    write(tmp_path, "gsm8k_train.jsonl", [{"question": "How many?", "answer": WORKED}])
    response = load_gsm8k_train(request(tmp_path)).train["response"][0]
    assert response == "She has 2*3=6 eggs.\nShe sells 6-1=5.\n#### 5\nThe answer is: 5"


@pytest.mark.parametrize("answer", ["no number", "#### 5", "a\n#### 5\n#### 6"])
def test_a_gsm8k_answer_without_its_one_last_line_is_named(answer: str) -> None:
    with pytest.raises(UserError, match=r"^file:3: field 'answer' must have one line '#### <number>', not [02]$"):
        metamath_form(answer, "file:3")


@pytest.mark.parametrize(("final", "gold"), [("5", "5"), ("1,450,000", "1450000"), ("-10", "-10"), (" 7 ", "7")])
def test_gsm8ks_gold_is_its_last_number_without_separators(tmp_path: Path, final: str, gold: str) -> None:
    write(tmp_path, "gsm8k_test.jsonl", [{"question": "How many?", "answer": f"One.\n#### {final}"}])
    test = TESTS["gsm8k"](request(tmp_path))
    (question,) = test.questions
    assert (question.id, question.gold, question.choices) == ("gsm8k/0", gold, ())
    assert question.prompt.endswith("How many?\n\n### Response: Let's think step by step.")
    assert (test.name, test.family, test.stop) == (
        "gsm8k", "gsm8k", ("Instruction:", "Instruction", "Response:", "Response")
    )  # fmt: skip


def test_a_gsm8k_gold_that_is_no_whole_number_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "gsm8k_test.jsonl", [{"question": "a", "answer": "One.\n#### five"}])
    with pytest.raises(UserError, match=rf"^{path}:1: field 'answer' must end in a whole number.*'five'$"):
        TESTS["gsm8k"](request(tmp_path))


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        (r"so $x = \boxed{5}$.", "5"),
        (r"\boxed{1} and then \boxed{\frac{1}{2}} follows", r"\frac{1}{2}"),
        (r"\boxed{\left\{ 1, 2 \right.}", r"\left\{ 1, 2 \right."),
        (r"\boxed{\{1\}} \text{or} {x}", r"\{1\}"),
        (r"\boxed{a\\}", "a\\\\"),
        (r"\boxed{}", ""),
        (r"\boxed{never closed", None),
        (r"\boxed 5", None),
        ("nothing", None),
    ],
)
def test_maths_gold_is_the_last_box_with_balanced_braces(text: str, gold: str | None) -> None:
    assert last_boxed(text) == gold


@pytest.mark.parametrize("names", [("problem", "solution"), ("instruction", "output")])
def test_math_is_read_under_either_field_names_and_a_row_without_box_is_named(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    first, second = names
    path = write(tmp_path, "MATH_test.jsonl", [{first: "p", second: r"\boxed{3}"}, {first: "p", second: "3"}])
    with pytest.raises(UserError, match=rf"^{path}:2: field '{second}' has no \\boxed"):
        TESTS["math"](request(tmp_path))
    write(tmp_path, "MATH_test.jsonl", [{first: "p", second: r"\boxed{3}"}])
    (question,) = TESTS["math"](request(tmp_path, prompt="alpaca_even_v1")).questions
    assert question.gold == "3" and question.prompt.endswith("p\n\n### Response:")


def test_a_subset_of_questions_is_the_same_for_every_run_and_has_its_own_identity(tmp_path: Path) -> None:
    write(tmp_path, "gsm8k_test.jsonl", [{"question": f"q{i}", "answer": f"One.\n#### {i}"} for i in range(30)])
    whole = TESTS["gsm8k"](request(tmp_path))
    few = whole.limited(5)
    assert [question.id for question in few.questions] == [
        f"gsm8k/{i}" for i in (5, 9, 10, 20, 21)
    ]  # smallest sha256(f"test:{i}")
    assert few.identity["rows"] == 5 and few.identity["content"] != whole.identity["content"]
    assert few.identity["files"] == whole.identity["files"] and few.identity["prompt"] == "alpaca_v1"
    assert whole.limited(None) is whole and whole.limited(30) is whole
    with pytest.raises(UserError, match=r"task.test_rows=0"):
        whole.limited(0)


def test_a_training_sets_revision_is_not_asked_of_a_tests_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("lora_xs.data.files.fetch_hub_file", lambda *wanted: asked.append(wanted) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        TESTS["gsm8k"](Request("math/metamathqa", "hub", None, "e" * 40, None))
    assert asked[0][2] != "e" * 40


def test_without_files_the_failure_is_one_line_that_names_ways_out() -> None:
    for task in ("math/metamathqa", "math/gsm8k_train"):
        with pytest.raises(UserError) as raised:
            INSTRUCTION_LOADERS[task](request(None, task))
        assert "task=word_problems" in str(raised.value) and "\n" not in str(raised.value)


@needs_data
def test_the_real_files_have_their_published_sizes_and_a_gold_answer_in_every_row() -> None:
    made = load_gsm8k_train(request(SHARED))
    assert len(made.train) == 7473
    assert made.identity["content"]["train"] == (  # load_gsm8k_train(…).identity["content"]["train"]
        "a0b800225d471680eda6fd05378a2c2f20dfb63baf9fc3977dd3e2e97aa814a5"
    )
    assert not any("<<" in response for response in made.train["response"])
    sizes = {name: len(TESTS[name](request(SHARED)).questions) for name in ("gsm8k", "math", "math500")}
    assert sizes == {"gsm8k": 1319, "math": 5000, "math500": 500}


@needs_data
def test_math500s_gold_answers_are_its_own_and_all_its_problems_are_in_math() -> None:
    lines = (SHARED / "math" / "math500.jsonl").read_text(encoding="utf-8").split("\n")
    given = [json.loads(line)["answer"] for line in lines if line]
    few, whole = TESTS["math500"](request(SHARED)), TESTS["math"](request(SHARED))
    assert [question.gold for question in few.questions] == given
    assert {question.prompt for question in few.questions} <= {question.prompt for question in whole.questions}


@needs_data
def test_a_real_metamathqa_sample_is_read(tmp_path: Path) -> None:
    (tmp_path / "math").mkdir()
    content = (SHARED / "math" / "metamathqa_sample.jsonl").read_bytes()
    (tmp_path / "math" / "metamathqa.jsonl").write_bytes(content)
    responses = load_metamathqa(request(tmp_path)).train["response"][:]
    assert len(responses) == 12 and all("The answer is: " in response for response in responses)
