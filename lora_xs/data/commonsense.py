"""Training rows of the commonsense experiments in the files of LLM-Adapters: Commonsense170K, or what a folder has.

A row is an `instruction` that ends in its options (`Answer format: answer1/answer2`), an empty `input`, and the
`output` to learn (`the correct answer is answer1`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lora_xs.data.files import HubFiles, Row, gather_matching, gather_rows, text_field
from lora_xs.data.instruction import InstructionRows, render_rows
from lora_xs.data.sources import Request
from lora_xs.errors import UserError

PROMPT = "llm_adapters_v1"
FILE = "commonsense_170k.json"
COPY = HubFiles(
    "Lohse/commonsense",
    "cccf5dd36d23714bb6067a07b26bc447b65ebc78",
    (FILE,),
    git_blob="529e426b33d4cdb1d0c4a275a1a7245ad081fd91",  # LLM-Adapters' own file at its commit fe675038
)
ORIGINAL = "LLM-Adapters on GitHub publishes ft-training_set/commonsense_170k.json and dataset/<name>/{train,test}.json"


def load_commonsense170k(request: Request) -> InstructionRows:
    """LLM-Adapters' Commonsense170K; on the hub it is a copy, and `original` in the identity says whether it is exact.

    Raises UserError where the file cannot be had, and for a malformed row.
    """
    otherwise = f"task=commonsense/merged, whatever training files a folder has ({ORIGINAL})"
    rows, origin = gather_rows(request, (f"commonsense/{FILE}", FILE), COPY, otherwise)
    return render_rows(_pairs(rows), request.prompt or PROMPT, origin)


def load_merged(request: Request) -> InstructionRows:
    """The local stand-in: the rows of every `<root>/commonsense/<name>/train.json`, one file after the other by name.

    Raises UserError where there is none, and for a malformed row.
    """
    rows, origin = gather_matching(request, "commonsense/*/train.json", ORIGINAL)
    return render_rows(_pairs(rows), request.prompt or PROMPT, origin)


def instruction_of(row: object, place: str) -> str:
    """The instruction of a checked row. Raises UserError for a row with an `input`: the prompt has no place for it."""
    instruction = text_field(row, place, "instruction")
    if isinstance(row, dict) and row.get("input"):
        raise UserError(f"{place}: field 'input' must be empty, the prompt has no place for it")
    return instruction


def _pairs(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    for place, row in rows:
        yield instruction_of(row, place), text_field(row, place, "output")
