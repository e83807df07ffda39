"""Prompt templates as versioned data: how a row reads in training and how a question reads when it is asked.

Protocol constants, taken from what produced the published numbers, their traps included: the name ends in a version,
and a changed text needs a new one (a golden hash in the tests holds each still). The `even` prompts are the same
protocol without the trap: what is asked is exactly what was trained.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from lora_xs.errors import UserError

PLACE = "{instruction}"
SENTENCE = "Below is an instruction that describes a task. Write a response that appropriately completes the request."


@dataclass(frozen=True)
class Prompt:
    """Two texts with one `{instruction}` each; `lead` is what every response starts with after the training text."""

    training: str
    evaluation: str
    lead: str = ""

    def for_training(self, instruction: str) -> str:
        """The prompt a response is learned after."""
        return self.training.replace(PLACE, instruction)

    def for_evaluation(self, instruction: str) -> str:
        """The prompt a model completes."""
        return self.evaluation.replace(PLACE, instruction)

    def response(self, text: str) -> str:
        """`text` as training renders it after the prompt."""
        return self.lead + text

    @property
    def sha256(self) -> str:
        """64 hex digits over every text of the template."""
        return hashlib.sha256(json.dumps([self.training, self.evaluation, self.lead]).encode()).hexdigest()


_ALPACA = f"{SENTENCE}\n\n### Instruction:\n{PLACE}\n\n### Response:"


def _indented(after_sentence: str, spaces_before_response: int = 16) -> str:
    """LLM-Adapters' template: a sentence, then headings and texts behind the 16 blanks of its source code."""
    indent = " " * 16
    return (
        f"{SENTENCE}{after_sentence}\n\n{indent}### Instruction:\n{indent}{PLACE}\n\n{indent}### Response:\n"
        + " " * spaces_before_response
    )


PROMPTS = {
    # Alpaca's template without input, as in LoRA-XS's and LoRA-SB's math runs; the sentence is added only in evaluation
    "alpaca_v1": Prompt(_ALPACA, f"{_ALPACA} Let's think step by step."),
    "alpaca_even_v1": Prompt(_ALPACA, _ALPACA),
    # LLM-Adapters', as in LoRA-XS's commonsense runs: two blanks after the sentence in training, one in evaluation
    "llm_adapters_v1": Prompt(_indented("  "), _indented(" ")),
    # The same training text, but the blank before the response belongs to it: tokenizers join it with the next word,
    # so a prompt that ends in it is not the beginning of what was trained.
    "llm_adapters_even_v1": Prompt(_indented("  ", 15), _indented("  ", 15), lead=" "),
}


def prompt_named(name: str) -> Prompt:
    """The template of that name. Raises UserError with the known ones."""
    if name not in PROMPTS:
        raise UserError(f"task.prompt={name}: no such template; allowed: {', '.join(PROMPTS)}")
    return PROMPTS[name]
