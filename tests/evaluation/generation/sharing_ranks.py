"""Run by torchrun: one of the processes that answer a set together. Arguments: file; 1 if the second is to fail."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from lora_xs.data.question_set import Question, QuestionSet
from lora_xs.errors import UserError
from lora_xs.evaluation.generation import Completion, Decoding, answer
from lora_xs.processes import joined, place
from lora_xs.spec.compose import compose_spec

ASKED = QuestionSet("t", "gsm8k", tuple(Question(f"t/{i}", f"p{i}", "1") for i in range(7)), (), {})


class OneByOne:
    """Says who answered; the second process may fail at its second batch."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails

    def batches(
        self, prompts: Sequence[str], decoding: Decoding, skip: Collection[int] = (), share: tuple[int, int] = (0, 1)
    ) -> Iterator[list[tuple[int, Completion]]]:
        first, step = share
        for count, index in enumerate([index for index in range(len(prompts)) if index not in skip][first::step]):
            if self.fails and first == 1 and count == 1:
                raise UserError("the second has no room")
            yield [(index, Completion(f"{first} of {step}\ud800", 1, "eos"))]


if __name__ == "__main__":
    file, fails = Path(sys.argv[1]), sys.argv[2] == "1"
    with joined(compose_spec(["trainer.processes=2"]).trainer):
        try:
            found = answer(ASKED, OneByOne(fails), Decoding(4), file, settings={})
            said = " ".join(f"{one.id}:{one.completion[0]}" for one in found)
        except UserError as error:
            said = str(error)
        file.with_name(f"said.{place()[0]}").write_text(said)
