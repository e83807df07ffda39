"""Our own reading, for comparisons of our own: numbers exactly equal, or expressions with the same normalised text."""

from __future__ import annotations

from lora_xs.choices import LABELS
from lora_xs.errors import UserError
from lora_xs.evaluation.answers.extraction import LONGEST, bare, label_in, strict_text
from lora_xs.evaluation.answers.families import Verdict
from lora_xs.evaluation.answers.normalisation import normalise
from lora_xs.evaluation.answers.quantities import read_number, reference_number


def judge_number(completion: str, gold: str) -> Verdict:
    """Whether the answer is one number (see `quantities`) and exactly the gold one. Raises UserError for a bad gold."""
    expected = reference_number(gold)
    text = strict_text(completion)
    if text is None or len(text) > LONGEST:
        return _without(text)
    value = read_number(text)
    if value is None:
        return Verdict(False, text, "not one number")
    return Verdict(value == expected, text, "equal numbers" if value == expected else "another number")


def judge_expression(completion: str, gold: str) -> Verdict:
    """Whether the answer's text is the gold one's after normalisation of both."""
    text = strict_text(completion)
    if text is None or len(text) > LONGEST:
        return _without(text)
    same = normalise(text) == normalise(bare(gold))
    return Verdict(same, text, "the same text" if same else "another text")


def judge_choice(task: str, completion: str, gold: str) -> Verdict:
    """Whether the first label in the completion is the gold one. Raises UserError for a gold that is no label."""
    if gold not in LABELS[task]:
        raise UserError(f"reference answer {gold!r} of {task} is not one of {', '.join(LABELS[task])}")
    label = label_in(task, completion)
    if label is None:
        return Verdict(False, None, "no label")
    return Verdict(label == gold, label, "the label" if label == gold else "another label")


def _without(text: str | None) -> Verdict:
    if text is None:
        return Verdict(False, None, "no marker with an answer")
    return Verdict(False, text[:LONGEST], f"longer than {LONGEST} characters")
