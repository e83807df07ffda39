"""The eight multiple-choice tests of the commonsense experiments, in LLM-Adapters' files (`dataset/<name>/test.json`).

A row is as in training (`lora_xs.data.commonsense`) with the right label in `answer`.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace

from lora_xs.choices import LABELS
from lora_xs.data.commonsense import ORIGINAL, PROMPT, instruction_of
from lora_xs.data.files import gather_rows, text_field
from lora_xs.data.prompts import prompt_named
from lora_xs.data.question_set import Question, QuestionSet, build_set
from lora_xs.data.sources import Request
from lora_xs.errors import UserError

logger = logging.getLogger(__name__)

OFFERED = re.compile(r"Answer format: (\S+)\s*$")  # how an instruction ends


@dataclass(frozen=True)
class ChoiceTest:
    """A test's folder, and how many questions were published."""

    folder: str
    rows: int


CHOICE_TESTS = {
    "boolq": ChoiceTest("boolq", 3270),
    "piqa": ChoiceTest("piqa", 1838),
    "siqa": ChoiceTest("social_i_qa", 1954),
    "hellaswag": ChoiceTest("hellaswag", 10042),
    "winogrande": ChoiceTest("winogrande", 1267),
    "arc_easy": ChoiceTest("ARC-Easy", 2376),
    "arc_challenge": ChoiceTest("ARC-Challenge", 1172),
    "obqa": ChoiceTest("openbookqa", 500),
}


def load_choice_test(name: str, request: Request) -> QuestionSet:
    """The test of that name from `<root>/commonsense/<folder>/test.json`; a question's choices are those it offers.

    A number of rows other than the published one is a warning, not an error. Raises UserError for a missing file, and
    for a malformed row (`file: row number: field …`).
    """
    test = CHOICE_TESTS[name]
    # No repository of the hub is known to hold these files; what source the training rows have says nothing of them.
    source = "auto" if request.source == "hub" else request.source
    asked = replace(request, task=name, source=source, revision=None)
    rows, origin = gather_rows(asked, (f"commonsense/{test.folder}/test.json",), None, ORIGINAL)
    if len(rows) != test.rows:
        logger.warning("test %s has %d questions, %d were published", name, len(rows), test.rows)
    prompt = request.prompt or PROMPT
    template = prompt_named(prompt)
    questions = []
    for number, (place, row) in enumerate(rows):
        instruction, gold = instruction_of(row, place), text_field(row, place, "answer")
        choices = offered_choices(instruction, place, LABELS[name])
        if gold not in choices:
            raise UserError(f"{place}: field 'answer' must be one of {', '.join(choices)}, not {gold!r}")
        continuations = tuple(template.response(training_response(choice)) for choice in choices)
        rendered = template.for_evaluation(instruction)
        questions.append(Question(f"{name}/{number}", rendered, gold, choices, continuations))
    return build_set(name, "choice", questions, (), (prompt, template), origin)


def offered_choices(instruction: str, place: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    """The labels an instruction's last line offers: three to five answers in ARC, where others always have four.

    Raises UserError, naming `place`, where that line is missing or offers a label that the test does not have.
    """
    found = OFFERED.search(instruction)
    if found is None:
        raise UserError(f"{place}: field 'instruction' must end in its options, 'Answer format: {'/'.join(labels)}'")
    choices = tuple(found[1].split("/"))
    if len(set(choices)) != len(choices) or not set(choices) <= set(labels):
        raise UserError(f"{place}: field 'instruction' offers {found[1]}, not labels of {', '.join(labels)}")
    return choices


def training_response(label: str) -> str:
    """What training has a model answer for a label."""
    return f"the correct answer is {label}"
