"""Commonsense rows in LLM-Adapters' files and the eight tests: what is learned, offered and counted as right."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

import pytest

from lora_xs.data.choice_tests import CHOICE_TESTS
from lora_xs.data.commonsense import load_commonsense170k, load_merged
from lora_xs.data.instruction_sets import INSTRUCTION_LOADERS
from lora_xs.data.questions import TESTS
from lora_xs.data.sources import Request
from lora_xs.errors import UserError

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
needs_data = pytest.mark.skipif(not (SHARED / "commonsense").is_dir(), reason="the shared data folder is not there")


def row(answer: str = "answer2", offered: str = "answer1/answer2/answer3", **changed: object) -> dict:
    asked = f"Please choose: what?\n\nAnswer1: a Answer2: b\n\nAnswer format: {offered}"
    return {"instruction": asked, "input": "", "output": f"the correct answer is {answer}", "answer": answer} | changed


def write(root: Path, name: str, rows: list, split: str = "test") -> Path:
    path = root / "commonsense" / name / f"{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=0))
    return path


def request(root: Path | None, task: str = "commonsense/merged", prompt: str | None = None) -> Request:
    return Request(task, "auto", root, None, None, prompt)


@pytest.fixture(autouse=True)
def no_folder_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORA_XS_DATA", raising=False)


def test_merged_rows_are_those_of_every_training_file_by_name(tmp_path: Path) -> None:
    write(tmp_path, "piqa", [row("solution1", "solution1/solution2")], "train")
    write(tmp_path, "ARC-Easy", [row("answer1"), row("answer3")], "train")
    write(tmp_path, "boolq", [row("true", "true/false")])  # a test alone
    made = load_merged(request(tmp_path))
    assert made.train["response"][:] == [f"the correct answer is {x}" for x in ("answer1", "answer3", "solution1")]
    assert list(made.identity["files"]) == ["commonsense/ARC-Easy/train.json", "commonsense/piqa/train.json"]
    assert made.train["prompt"][0].endswith("answer3\n\n                ### Response:\n                ")


def test_commonsense170k_is_found_in_either_place_and_said_not_to_be_the_original(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "commonsense"):
        folder.mkdir(exist_ok=True)
        (folder / "commonsense_170k.json").write_text(json.dumps([row()]))
        made = load_commonsense170k(request(tmp_path, "commonsense/all"))
        assert len(made.train) == 1 and made.identity["original"] is False
    assert list(made.identity["files"]) == ["commonsense/commonsense_170k.json"]


def test_a_question_offers_its_own_options_each_with_the_response_training_would_render(tmp_path: Path) -> None:
    offered = ["answer1/answer2/answer3", "answer1/answer2/answer3/answer4/answer5"]
    write(tmp_path, "ARC-Easy", [row(offered=text) for text in offered])
    test = TESTS["arc_easy"](request(tmp_path))
    assert [len(question.choices) for question in test.questions] == [3, 5]
    first = test.questions[0]
    assert (first.id, first.gold, first.choices) == ("arc_easy/0", "answer2", ("answer1", "answer2", "answer3"))
    assert first.continuations[2] == "the correct answer is answer3"
    assert (test.family, test.stop) == ("choice", ())


@pytest.mark.parametrize("prompt", ["llm_adapters_v1", "llm_adapters_even_v1"])
def test_prompt_and_continuation_are_what_training_rendered(tmp_path: Path, prompt: str) -> None:
    for split in ("train", "test"):
        write(tmp_path, "boolq", [row("false", "true/false")], split)
    (question,) = TESTS["boolq"](request(tmp_path, prompt=prompt)).questions
    learned = load_merged(request(tmp_path, prompt=prompt)).train[0]
    asked = question.prompt + question.continuations[question.choices.index(question.gold)]
    trained = learned["prompt"] + learned["response"]
    assert asked == (trained.replace("request.  ", "request. ") if prompt == "llm_adapters_v1" else trained)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (["a"], "a row must be a JSON object, not list"),
        (row(instruction=None), "field 'instruction' must be a text, not NoneType"),
        (row(instruction="what?"), "field 'instruction' must end in its options, 'Answer format: answer1/"),
        (row(offered="answer1/ending2"), "field 'instruction' offers answer1/ending2, not labels of answer1, answer2"),
        (row(offered="answer1/answer1"), "field 'instruction' offers answer1/answer1"),
        (row(input="context"), "field 'input' must be empty"),
        (row("answer4"), "field 'answer' must be one of answer1, answer2, answer3, not 'answer4'"),
        ({k: v for k, v in row().items() if k != "answer"}, "field 'answer' is missing"),
    ],
)
def test_a_bad_test_row_is_named_by_file_row_and_field(tmp_path: Path, bad: object, said: str) -> None:
    path = write(tmp_path, "openbookqa", [row(), bad, row()])
    with pytest.raises(UserError) as raised:
        TESTS["obqa"](request(tmp_path))
    assert str(raised.value).startswith(f"{path}: row 2: {said}") and "\n" not in str(raised.value)


def test_a_bad_training_row_is_named_by_file_row_and_field(tmp_path: Path) -> None:
    path = write(tmp_path, "piqa", [row(), {"instruction": "x", "input": ""}], "train")
    with pytest.raises(UserError, match=rf"^{path}: row 2: field 'output' is missing$"):
        load_merged(request(tmp_path))


def test_a_test_of_another_size_than_published_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "winogrande", [row("option1", "option1/option2")])
    with caplog.at_level(logging.WARNING):
        TESTS["winogrande"](request(tmp_path))
    assert "test winogrande has 1 questions, 1267 were published" in caplog.text


def test_a_missing_file_is_named_with_where_it_is_published(tmp_path: Path) -> None:
    for load in (TESTS["piqa"], INSTRUCTION_LOADERS["commonsense/merged"], INSTRUCTION_LOADERS["commonsense/all"]):
        for root in (None, tmp_path):
            with pytest.raises(UserError) as raised:
                load(request(root))
            assert "LLM-Adapters on GitHub publishes" in str(raised.value) and "\n" not in str(raised.value)


@needs_data
def test_all_eight_real_tests_have_the_published_sizes_and_labels(caplog: pytest.LogCaptureFixture) -> None:
    published = {"boolq": 3270, "piqa": 1838, "siqa": 1954, "hellaswag": 10042, "winogrande": 1267, "arc_easy": 2376,
                 "arc_challenge": 1172, "obqa": 500}  # fmt: skip
    options = {}
    with caplog.at_level(logging.WARNING):
        for name, size in published.items():
            questions = TESTS[name](request(SHARED)).questions
            assert len(questions) == CHOICE_TESTS[name].rows == size
            options[name] = Counter(len(question.choices) for question in questions)
    assert not caplog.text
    assert options["arc_easy"] == {3: 7, 4: 2365, 5: 4} and options["arc_challenge"] == {3: 4, 4: 1165, 5: 3}
    assert [list(options[name]) for name in ("boolq", "siqa", "hellaswag", "obqa")] == [[2], [3], [4], [4]]


@needs_data
def test_the_real_training_files_merge_to_the_stated_rows() -> None:
    made = load_merged(request(SHARED))
    assert len(made.train) == 38988
    assert made.identity["content"]["train"] == (  # load_merged(…).identity["content"]["train"]
        "00c710da63c7cd7dbc2e25560761e10e6c12ee26d288f7b37848d3e3e0927d65"
    )


@needs_data
def test_of_the_real_test_questions_only_two_of_arc_easy_are_trained_on() -> None:
    prompt = "llm_adapters_even_v1"
    trained = set(load_merged(request(SHARED, prompt=prompt)).train["prompt"])
    shared = {name: sum(q.prompt in trained for q in TESTS[name](request(SHARED, prompt=prompt)).questions)
              for name in CHOICE_TESTS}  # fmt: skip
    assert shared == dict.fromkeys(CHOICE_TESTS, 0) | {"arc_easy": 2}
