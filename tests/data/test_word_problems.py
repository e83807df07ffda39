"""Generated word problems: right answers, no overlap of the splits, the same texts everywhere."""

from __future__ import annotations

import re
import string
from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from lora_xs.data.instruction_sets import INSTRUCTION_LOADERS
from lora_xs.data.questions import TESTS
from lora_xs.data.sources import Request
from lora_xs.data.word_problem_templates import TEMPLATES, Template, calculate
from lora_xs.data.word_problems import TEST_ROWS, TRAIN_ROWS, problems
from lora_xs.errors import UserError

REQUEST = Request("word_problems", "auto", None, None, None)
LINE = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


def test_every_line_of_every_worked_answer_is_true_and_the_last_is_the_answer() -> None:
    for problem in problems("train", 1000):
        *lines, last = problem.response.split("\n")
        results = []
        for line in lines:
            found = LINE.fullmatch(line)
            assert found, line
            left, sign, right, result = int(found[1]), found[2], int(found[3]), int(found[4])
            if sign == "/":
                assert result * right == left
            else:
                assert result == {"+": left + right, "-": left - right, "*": left * right}[sign]
            results.append(result)
        assert last == f"The answer is: {problem.answer}" and problem.answer == results[-1]
        assert 1 <= len(lines) <= 4


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_a_story_names_all_that_is_needed_and_its_bounds_keep_every_result_whole_and_positive(
    template: Template,
) -> None:
    for corner in product(*template.numbers.values()):
        values = dict(zip(template.numbers, corner, strict=True))
        calculate(template.given, values)
        told = {name for _, name, _, _ in string.Formatter().parse(template.question) if name}
        known = {name for name in told if name in values}
        for step in template.steps:
            assert {side for side in (step.left, step.right) if not side.isdecimal()} <= known
            known.add(step.result)
        calculate(template.steps, values)
        assert all(values[step.result] > 0 for step in (*template.given, *template.steps))


def test_no_text_is_twice_and_the_splits_share_neither_a_text_nor_a_sum() -> None:
    train, test = problems("train", TRAIN_ROWS), problems("test", TEST_ROWS)
    assert len({problem.question for problem in train}) == TRAIN_ROWS
    assert len({problem.question for problem in test}) == TEST_ROWS
    assert not {problem.question for problem in train} & {problem.question for problem in test}
    assert not {(p.template, p.numbers) for p in train} & {(p.template, p.numbers) for p in test}
    assert not {p.response for p in train} & {p.response for p in test}  # by the seed's luck: two templates are alike
    kinds = Counter(problem.template for problem in test)
    assert set(kinds) == {template.name for template in TEMPLATES} and min(kinds.values()) >= 10


def test_a_shorter_list_is_the_beginning_of_a_longer_one_and_another_seed_gives_others() -> None:
    assert problems("train", 20) == problems("train", 40)[:20]
    assert problems("train", 20) != problems("train", 20, seed=1)


def test_the_texts_are_the_same_on_every_platform() -> None:
    rows = INSTRUCTION_LOADERS["word_problems"](REQUEST)
    test = TESTS["word_problems"](REQUEST)
    assert rows.identity["content"]["train"] == (  # a change needs a new VERSION in lora_xs.data.word_problems
        "4d5eff55c18f4438bc8da141e92383d26d7ab8dd31ffa13a90e9ef84bad0c91a"
    )
    assert test.identity["content"] == "51906a74ee8136a87d55ce79ef1040890e628500b286dd6d5c8f8ce51b1db1d7"
    assert rows.identity["source"] == test.identity["source"] == "generated" and rows.identity["generator"] == 1


def test_they_are_asked_as_gsm8k_is_and_need_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_XS_DATA", str(tmp_path / "nowhere"))
    test = TESTS["word_problems"](Request("math/gsm8k_train", "local", None, None, None))
    assert (len(test.questions), test.family, test.name) == (TEST_ROWS, "gsm8k", "word_problems")
    assert test.questions[3].id == "word_problems/3" and int(test.questions[3].gold) > 0
    with pytest.raises(UserError, match=r"data.source=hub: task word_problems is made here"):
        INSTRUCTION_LOADERS["word_problems"](Request("word_problems", "hub", None, None, None))
