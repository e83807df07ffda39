"""A test is answered once, over kills and torn lines, under one setting; every stored text is what was written."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_xs.data.question_set import QuestionSet
from lora_xs.errors import UserError
from lora_xs.evaluation.generation import Completion, Decoding, HfEngine, answer, read_generations
from lora_xs.evaluation.generation.decoding import plan_batches
from lora_xs.evaluation.generation.store import MAX_LINE

DECODING = Decoding(8, 1, ("Instruction:",))
SETTINGS = {"model": "tiny", "adapter": {"rank": 4, "sha256": "ab"}}


class Echo:
    """An engine that says a prompt's length, in batches of two; remembers what it was asked; may fail at a batch."""

    def __init__(self, fails_at: int = -1) -> None:
        self.asked: list[str] = []
        self.fails_at = fails_at

    def batches(
        self, prompts: Sequence[str], decoding: Decoding, skip: Collection[int] = (), share: tuple[int, int] = (0, 1)
    ) -> Iterator[list[tuple[int, Completion]]]:
        for number, start in enumerate(range(0, len(prompts), 2)):
            batch = [index for index in range(start, min(start + 2, len(prompts))) if index not in skip]
            if number == self.fails_at:
                raise KeyboardInterrupt
            self.asked += [prompts[index] for index in batch]
            if batch:
                yield [(i, Completion(f"«{len(prompts[i])}»\n\x00\u2028\ud800", 3, "eos")) for i in reversed(batch)]

    def complete(self, prompts: Sequence[str], decoding: Decoding) -> list[Completion]:
        raise NotImplementedError


def test_every_question_is_answered_in_order_and_stored_with_all_that_scoring_needs(
    questions: QuestionSet, tmp_path: Path
) -> None:
    file = tmp_path / "new" / "gsm8k.jsonl"
    told: list[tuple[int, int]] = []
    found = answer(questions, Echo(), DECODING, file, settings=SETTINGS, progress=lambda *seen: told.append(seen))
    assert [generation.id for generation in found] == [question.id for question in questions.questions]
    assert [generation.gold for generation in found] == [question.gold for question in questions.questions]
    assert found[1].prompt == questions.questions[1].prompt
    assert found[1].completion == f"«{len(found[1].prompt)}»\n\x00\u2028\ud800"
    assert told == [(0, 9), (2, 9), (4, 9), (6, 9), (8, 9), (9, 9)]
    header, stored = read_generations(file)
    assert sorted(stored, key=lambda one: one.id) == sorted(found, key=lambda one: one.id)
    assert [one.id for one in stored][:2] == ["gsm8k/1", "gsm8k/0"]  # the file's order is the engine's
    assert header["rows"] == 9 and header["settings"] == SETTINGS and header["decoding"]["max_new_tokens"] == 8
    lines = file.read_bytes().split(b"\n")
    assert len(lines) == 11 and {"prompt_sha256", "completion_sha256"} <= json.loads(lines[1]).keys()


def test_a_finished_file_asks_nothing_again(questions: QuestionSet, tmp_path: Path) -> None:
    file = tmp_path / "gsm8k.jsonl"
    first = answer(questions, Echo(), DECODING, file, settings=SETTINGS)
    engine = Echo(fails_at=0)
    assert answer(questions, engine, DECODING, file, settings=SETTINGS) == first
    assert engine.asked == []


def test_an_interrupted_set_goes_on_where_it_stood(questions: QuestionSet, tmp_path: Path) -> None:
    whole, file = tmp_path / "whole.jsonl", tmp_path / "gsm8k.jsonl"
    expected = answer(questions, Echo(), DECODING, whole, settings=SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        answer(questions, Echo(fails_at=2), DECODING, file, settings=SETTINGS)
    assert len(read_generations(file)[1]) == 4
    engine = Echo()
    assert answer(questions, engine, DECODING, file, settings=SETTINGS) == expected
    assert engine.asked == [question.prompt for question in questions.questions[4:]]
    assert file.read_bytes() == whole.read_bytes()


def test_a_file_torn_at_any_byte_after_its_header_is_taken_up(questions: QuestionSet, tmp_path: Path) -> None:
    whole, file = tmp_path / "whole.jsonl", tmp_path / "gsm8k.jsonl"
    expected = answer(questions, Echo(), DECODING, whole, settings=SETTINGS)
    content = whole.read_bytes()
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    for cut in [ends[0], ends[1] - 1, *range(ends[3] - 3, ends[3] + 4), len(content) - 1]:
        file.write_bytes(content[:cut])
        kept = sum(end <= cut for end in ends) - 1
        assert len(read_generations(file)[1]) == kept
        engine = Echo()
        assert answer(questions, engine, DECODING, file, settings=SETTINGS) == expected
        assert len(engine.asked) == 9 - kept
        assert len(read_generations(file)[1]) == 9


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from lora_xs.data.question_set import Question, QuestionSet
from lora_xs.evaluation.generation import Completion, Decoding, answer

class Killed:
    def batches(self, prompts, decoding, skip=(), share=(0, 1)):
        yield [(0, Completion("first", 1, "eos")), (1, Completion("second", 1, "eos"))]
        os.kill(os.getpid(), signal.SIGKILL)

asked = QuestionSet("t", "gsm8k", tuple(Question(f"t/{i}", f"p{i}", "1") for i in range(3)), (), {})
answer(asked, Killed(), Decoding(4), Path(sys.argv[1]), settings={})
"""


def test_what_was_finished_before_a_kill_is_in_the_file_and_torch_was_not_needed(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    (tmp_path / "torch.py").write_text("raise ImportError('torch was imported')")
    repository = str(Path(__file__).parents[3])
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(file), repository],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [generation.completion for generation in read_generations(file)[1]] == ["first", "second"]


@pytest.mark.parametrize("tokens_at_once", [16384, 150])
def test_an_interrupted_set_gets_the_very_batches_it_would_have_had(
    tiny_decoder: Any, tiny_tokenizer: Any, questions: QuestionSet, tmp_path: Path, tokens_at_once: int
) -> None:
    whole, file = tmp_path / "whole.jsonl", tmp_path / "gsm8k.jsonl"
    engine = HfEngine(tiny_decoder, tiny_tokenizer, tokens_at_once=tokens_at_once)
    expected = answer(questions, engine, DECODING, whole, settings={})
    lengths = [len(row) for row in tiny_tokenizer([one.prompt for one in questions.questions])["input_ids"]]
    first = len(plan_batches(lengths, DECODING, tokens_at_once)[0])
    lines = whole.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[: 1 + first]))
    assert answer(questions, engine, DECODING, file, settings={}) == expected
    assert file.read_bytes() == whole.read_bytes()


def test_other_settings_questions_or_decoding_are_refused_by_name(questions: QuestionSet, tmp_path: Path) -> None:
    file = tmp_path / "gsm8k.jsonl"
    answer(questions, Echo(), DECODING, file, settings=SETTINGS)
    content = file.read_bytes()
    asked = questions.questions
    other_prompt = replace(questions, questions=(replace(asked[0], prompt="other"), *asked[1:]))
    other_gold = replace(questions, questions=(replace(asked[0], gold="0"), *asked[1:]))
    cases: list[tuple[QuestionSet, Decoding, dict[str, Any], str]] = [
        (questions, Decoding(9, 1, DECODING.stop), SETTINGS, "decoding.max_new_tokens=8, now 9"),
        (questions, Decoding(8, 4, DECODING.stop), SETTINGS, "decoding.beams=1, now 4"),
        (questions, Decoding(8), SETTINGS, 'decoding.stop=["Instruction:"], now []'),
        (questions, DECODING, {**SETTINGS, "adapter": {"rank": 8, "sha256": "ab"}}, "settings.adapter.rank=4, now 8"),
        (questions, DECODING, {"model": "tiny"}, 'settings.adapter={"rank": 4, "sha256": "ab"}, now null'),
        (other_prompt, DECODING, SETTINGS, "(other prompts)"),
        (other_gold, DECODING, SETTINGS, "(other golds)"),
        (questions.limited(5), DECODING, SETTINGS, "rows=9, now 5; other prompts"),
    ]
    for asking, decoding, settings, said in cases:
        with pytest.raises(UserError, match=re.escape(said)) as refused:
            answer(asking, Echo(fails_at=0), decoding, file, settings=settings)
        assert "\n" not in str(refused.value) and str(file) in str(refused.value)
    assert file.read_bytes() == content


def test_a_line_that_is_not_as_it_was_written_is_named(questions: QuestionSet, tmp_path: Path) -> None:
    file = tmp_path / "gsm8k.jsonl"
    answer(questions, Echo(), DECODING, file, settings=SETTINGS)
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]

    def refused(number: int, change: dict[str, Any], said: str) -> None:
        edited = [line | change if place == number else line for place, line in enumerate(lines, start=1)]
        file.write_text("".join(json.dumps(line) + "\n" for line in edited))
        with pytest.raises(UserError, match=re.escape(f"{file}:{number}: ") + ".*" + said) as error:
            read_generations(file)
        assert "\n" not in str(error.value)

    refused(3, {"completion": "The answer is: 18"}, "'completion' is not what was written")
    refused(4, {"prompt": "What is 9 + 9?"}, "'prompt' is not what was written")
    refused(5, {"tokens": "3"}, "'tokens' must be a whole number, not str")
    refused(5, {"tokens": True}, "'tokens' must be a whole number, not bool")
    refused(6, {"finish": "tired"}, "'tired' is none of eos, stop, length")
    refused(7, {"id": lines[1]["id"]}, "there twice")
    refused(1, {"version": 2}, "'version': 2 is not 1")
    refused(1, {"kind": "generation"}, "'kind' must be 'header'")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"not json\n", "not JSON"),
        (b"\xff\xfe\n", "not JSON"),
        (b"[1]\n", "a JSON object"),
        (b"[" * 100_000 + b"\n", "not JSON"),
        (b"x" * (MAX_LINE + 1), f"longer than {MAX_LINE} bytes"),
    ],
)
def test_a_foreign_line_is_refused_and_left_alone(
    questions: QuestionSet, tmp_path: Path, line: bytes, said: str
) -> None:
    file = tmp_path / "gsm8k.jsonl"
    answer(questions, Echo(), DECODING, file, settings=SETTINGS)
    header = file.read_bytes().splitlines(keepends=True)[0]
    file.write_bytes(header + line)
    with pytest.raises(UserError, match=rf"{re.escape(str(file))}:2: .*{said}"):
        answer(questions, Echo(fails_at=0), DECODING, file, settings=SETTINGS)
    assert file.read_bytes() == header + line


def test_a_file_of_something_else_is_refused_and_left_alone(questions: QuestionSet, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    for content in (b"", b"my notes, without an end of line"):
        file.write_bytes(content)
        with pytest.raises(UserError, match="no header"):
            answer(questions, Echo(fails_at=0), DECODING, file, settings=SETTINGS)
        assert file.read_bytes() == content


def test_a_file_with_a_question_of_another_test_is_refused(questions: QuestionSet, tmp_path: Path) -> None:
    file, other = tmp_path / "gsm8k.jsonl", tmp_path / "other.jsonl"
    answer(questions, Echo(), DECODING, file, settings=SETTINGS)
    renamed = replace(questions, questions=tuple(replace(one, id=f"x/{one.id}") for one in questions.questions))
    answer(renamed, Echo(), DECODING, other, settings=SETTINGS)
    file.write_bytes(file.read_bytes() + other.read_bytes().splitlines(keepends=True)[1])
    with pytest.raises(UserError, match="holds 'x/gsm8k/1', which test gsm8k does not ask"):
        answer(questions, Echo(), DECODING, file, settings=SETTINGS)


def test_a_prompt_that_is_too_long_is_named_by_its_question(
    tiny_decoder: Any, tiny_tokenizer: Any, questions: QuestionSet, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"gsm8k/1: \d+ tokens and 210 new ones"):
        engine = HfEngine(tiny_decoder, tiny_tokenizer)
        answer(questions, engine, Decoding(210), tmp_path / "gsm8k.jsonl", settings={})


def test_settings_that_are_not_json_and_equal_ids_are_refused(questions: QuestionSet, tmp_path: Path) -> None:
    for settings in ({"path": Path("x")}, {"loss": float("nan")}):
        with pytest.raises(UserError, match="not JSON"):
            answer(questions, Echo(), DECODING, tmp_path / "a.jsonl", settings=settings)
    twice = replace(questions, questions=questions.questions[:1] * 2)
    with pytest.raises(UserError, match="same id"):
        answer(twice, Echo(), DECODING, tmp_path / "b.jsonl", settings={})
    assert list(tmp_path.iterdir()) == []


def test_batches_hold_what_fits_longest_first() -> None:
    assert plan_batches([5, 9, 5, 7], Decoding(3), 24) == [[1, 3], [0, 2]]
    assert plan_batches([5, 9, 5, 7], Decoding(3, beams=2), 24) == [[1], [3], [0], [2]]
    assert plan_batches([5, 9, 5, 7], Decoding(3), 1) == [[1], [3], [0], [2]]
    assert plan_batches([], Decoding(3), 1) == []
    planned = plan_batches(list(range(100)), Decoding(10), 500)
    assert sorted(index for batch in planned for index in batch) == list(range(100))
    assert all((max(batch) + 10) * len(batch) <= 500 for batch in planned)


def test_two_processes_share_a_set_and_stop_together_where_one_fails(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    script = Path(__file__).with_name("sharing_ranks.py")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

    def both(fails: str) -> list[str]:
        subprocess.run([*torchrun, str(script), str(file), fails], check=True, capture_output=True, timeout=120)
        return [(tmp_path / f"said.{rank}").read_text() for rank in (0, 1)]

    assert both("1") == ["the second has no room"] * 2
    assert [one.id for one in read_generations(file)[1]] == ["t/0", "t/1"]  # the round both had finished
    assert both("0") == ["t/0:0 t/1:1 t/2:0 t/3:1 t/4:0 t/5:1 t/6:0", ""]
    assert [one.id for one in read_generations(file)[1]] == [f"t/{i}" for i in range(7)]  # as if one had been alone
