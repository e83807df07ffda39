"""Training rows of the math experiments: MetaMathQA, and GSM8K's training split in MetaMathQA's form."""

from __future__ import annotations

import re

from lora_xs.data.files import HubFiles, gather_rows, text_field
from lora_xs.data.instruction import InstructionRows, render_rows
from lora_xs.data.sources import Request
from lora_xs.errors import UserError

PROMPT = "alpaca_v1"
METAMATHQA = HubFiles("meta-math/MetaMathQA", "aa4f34d3d2d3231299b5b03d9b3e5a20da45aa18", ("MetaMathQA-395K.json",))
METAMATHQA_LOCAL = tuple(f"math/{name}" for name in ("MetaMathQA-395K.json", "metamathqa.json", "metamathqa.jsonl"))
GSM8K_REPO, GSM8K_REVISION = "openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866"
GSM8K_TRAIN = HubFiles(GSM8K_REPO, GSM8K_REVISION, ("main/train-00000-of-00001.parquet",))
GSM8K_TRAIN_LOCAL = ("math/gsm8k_train.jsonl",)
CALCULATION = re.compile(r"<<.*?>>")  # GSM8K's notes for a calculator


def load_metamathqa(request: Request) -> InstructionRows:
    """MetaMathQA in the file's order, so that the papers' first 100,000 or 50,000 rows are the first ones here.

    Fields `query` and `response` (or `instruction` and `output`). Raises UserError where the file cannot be had, and
    for a malformed row.
    """
    otherwise = "task=math/gsm8k_train, a smaller set in the same form, or task=word_problems, which needs no file"
    rows, origin = gather_rows(request, METAMATHQA_LOCAL, METAMATHQA, otherwise)
    pairs = [
        (text_field(row, place, "query", "instruction"), text_field(row, place, "response", "output"))
        for place, row in rows
    ]
    return render_rows(pairs, request.prompt or PROMPT, origin)


def load_gsm8k_train(request: Request) -> InstructionRows:
    """GSM8K's 7,473 training questions, answered as MetaMathQA answers: see `metamath_form`."""
    rows, origin = gather_rows(request, GSM8K_TRAIN_LOCAL, GSM8K_TRAIN, "task=word_problems, which needs no file")
    pairs = [
        (text_field(row, place, "question"), metamath_form(text_field(row, place, "answer"), place))
        for place, row in rows
    ]
    return render_rows(pairs, request.prompt or PROMPT, origin)


def metamath_form(answer: str, place: str) -> str:
    """A GSM8K answer without its calculator notes, with MetaMathQA's closing line `The answer is: …` after `#### …`.

    Raises UserError, naming `place`, for an answer without exactly one line `#### …`.
    """
    rationale, final = split_answer(answer, place)
    return f"{CALCULATION.sub('', rationale)}\n#### {final}\nThe answer is: {final}"


def split_answer(answer: str, place: str) -> tuple[str, str]:
    """The worked part and the final number, as written, of a GSM8K answer. Raises UserError as `metamath_form`."""
    parts = answer.split("\n#### ")
    if len(parts) != 2:
        raise UserError(f"{place}: field 'answer' must have one line '#### <number>', not {len(parts) - 1}")
    return parts[0], parts[1]
