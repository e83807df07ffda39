"""Prompts and the responses to learn, with their identity and their subsets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
from datasets import Dataset

from lora_xs.data.prompts import prompt_named
from lora_xs.data.rows import content_hash, describe_splits, limit_rows
from lora_xs.data.subsets import drawn_rows
from lora_xs.errors import UserError


@dataclass(frozen=True)
class InstructionRows:
    """Two splits with columns `prompt` (as training renders it) and `response` (without the end of sequence).

    A loader gives every row as `train`; `limited` holds the validation rows out. `identity` is JSON-able: `source`,
    `repo` and `revision`, `files` (name → sha256), `prompt` and `prompt_sha256`, and for each split `rows` and
    `content` (hash of the rendered rows in order, the same whatever the source).
    """

    train: Dataset
    validation: Dataset
    identity: dict[str, Any]

    def limited(
        self, train_rows: int | None, validation_rows: int | None, seed: int, take: Literal["sample", "first"]
    ) -> InstructionRows:
        """A loader's rows divided: `validation_rows` of them held out, then `train_rows` of the rest kept.

        Held out are the rows whose sha256 of `"validation:<index>"` is smallest: the same for every seed. Of the rest
        the first ones are kept, or `limit_rows`'s sample by `seed`. None: no validation rows, all training rows.
        Raises UserError where nothing is left to train on, or a count is below 1.
        """
        rows = len(self.train)
        held = drawn_rows("validation", rows, validation_rows) if validation_rows else []
        if len(held) == rows:
            raise UserError(f"task.validation_rows={validation_rows}: no row is left to train on, there are {rows}")
        out = set(held)
        rest = self.train.select([index for index in range(rows) if index not in out]) if held else self.train
        if take == "first" and train_rows is not None and 1 <= train_rows < len(rest):
            rest = rest.select(range(train_rows))
        else:
            rest = limit_rows(rest, train_rows, seed)
        validation = self.train.select(held) if held else self.validation
        return InstructionRows(rest, validation, {**self.identity, **describe_splits(rest, validation)})


def render_rows(pairs: Iterable[tuple[str, str]], prompt: str, origin: dict[str, Any]) -> InstructionRows:
    """InstructionRows of (instruction, response) pairs in the prompt of that name; `origin` is what the identity says
    of the source."""
    template = prompt_named(prompt)
    prompts, responses = [], []
    for instruction, response in pairs:
        prompts.append(template.for_training(instruction))
        responses.append(template.response(response))
    train, none = _dataset(prompts, responses), _dataset([], [])
    named = {"prompt": prompt, "prompt_sha256": template.sha256}
    return InstructionRows(train, none, {**origin, **named, **describe_splits(train, none)})


def _dataset(prompts: list[str], responses: list[str]) -> Dataset:
    table = pa.table(
        {"prompt": pa.array(prompts, pa.large_string()), "response": pa.array(responses, pa.large_string())}
    )
    return Dataset(table, fingerprint=content_hash(table)[:16])
