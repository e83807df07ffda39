"""Every training set of prompts and responses by its task's name."""

from __future__ import annotations

from collections.abc import Callable

from lora_xs.data.commonsense import load_commonsense170k, load_merged
from lora_xs.data.instruction import InstructionRows
from lora_xs.data.metamath import load_gsm8k_train, load_metamathqa
from lora_xs.data.sources import Request
from lora_xs.data.word_problems import load_word_problems

INSTRUCTION_LOADERS: dict[str, Callable[[Request], InstructionRows]] = {
    "math/metamathqa": load_metamathqa,
    "math/gsm8k_train": load_gsm8k_train,
    "commonsense/all": load_commonsense170k,
    "commonsense/merged": load_merged,
    "word_problems": load_word_problems,
}
