"""GSM8K's test, MATH's and its 500-question part, with the gold answer taken out of each worked solution."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from lora_xs.data.files import HubFiles, gather_rows, text_field
from lora_xs.data.metamath import GSM8K_REPO, GSM8K_REVISION, PROMPT, split_answer
from lora_xs.data.prompts import prompt_named
from lora_xs.data.question_set import Question, QuestionSet, build_set
from lora_xs.data.sources import Request
from lora_xs.errors import UserError

STOP = ("Instruction:", "Instruction", "Response:", "Response")  # LoRA-XS's and LoRA-SB's evaluation code
SUBJECTS = (
    "algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
    "precalculus",
)  # fmt: skip
GSM8K_TEST = HubFiles(GSM8K_REPO, GSM8K_REVISION, ("main/test-00000-of-00001.parquet",))
MATH_TEST = HubFiles(
    "EleutherAI/hendrycks_math",  # the authors' own repository is gone from the hub
    "21a5633873b6a120296cce3e2df9d5550074f4a3",
    tuple(f"{subject}/test-00000-of-00001.parquet" for subject in SUBJECTS),
)
MATH_500 = HubFiles("HuggingFaceH4/MATH-500", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be", ("test.jsonl",))
OTHERWISE = "another test (task.tests=[word_problems] needs no file)"
WHOLE = re.compile(r"-?\d+")


def load_gsm8k(request: Request) -> QuestionSet:
    """GSM8K's 1,319 test questions; gold: the number after `####`, without thousands separators."""

    def read(row: Any, place: str) -> tuple[str, str]:
        question = text_field(row, place, "question")
        _, final = split_answer(text_field(row, place, "answer"), place)
        gold = final.strip().replace(",", "")
        if not WHOLE.fullmatch(gold):
            raise UserError(f"{place}: field 'answer' must end in a whole number after '#### ', not {final!r}")
        return question, gold

    return _load(request, ("math/gsm8k_test.jsonl",), GSM8K_TEST, read, "gsm8k", "gsm8k")


def load_math(request: Request, *, name: str = "math") -> QuestionSet:
    """MATH's 5,000 test problems (`math`) or 500 of them (`math500`); gold: the last `\\boxed{…}` of the solution.

    Fields `problem` and `solution` (or `instruction` and `output`). The hub has the problems subject by subject, other
    copies in another order: a question's number, and so a subset, is the source's.
    """

    def read(row: Any, place: str) -> tuple[str, str]:
        problem = text_field(row, place, "problem", "instruction")
        solution = text_field(row, place, "solution", "output")
        gold = last_boxed(solution)
        if gold is None:
            raise UserError(f"{place}: field '{'solution' if 'solution' in row else 'output'}' has no \\boxed{{…}}")
        return problem, gold

    local = ("math/math500.jsonl",) if name == "math500" else ("math/math_test.jsonl", "math/MATH_test.jsonl")
    return _load(request, local, MATH_500 if name == "math500" else MATH_TEST, read, name, "math")


def last_boxed(text: str) -> str | None:
    """What stands in the last `\\boxed{…}` of a LaTeX text, its braces balanced (`\\{` and `\\}` do not count).

    None where there is none, or its braces do not close.
    """
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    begin = start + len("\\boxed{")
    depth, place = 1, begin
    while place < len(text):
        character = text[place]
        if character == "\\":
            place += 1  # whatever is escaped is no brace
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return text[begin:place]
        place += 1
    return None


def _load(
    request: Request,
    local: tuple[str, ...],
    hub: HubFiles,
    read: Callable[[Any, str], tuple[str, str]],
    name: str,
    family: Literal["gsm8k", "math"],
) -> QuestionSet:
    # A revision is of the training set's repository, not of a test's.
    rows, origin = gather_rows(replace(request, task=name, revision=None), local, hub, OTHERWISE)
    prompt = request.prompt or PROMPT
    template = prompt_named(prompt)
    questions = []
    for number, (place, row) in enumerate(rows):
        text, gold = read(row, place)
        questions.append(Question(f"{name}/{number}", template.for_evaluation(text), gold))
    return build_set(name, family, questions, STOP, (prompt, template), origin)
