"""Decoders' tokenizers: what is taken from the files, what is decided here, and what is refused.

Class. Always what AutoTokenizer makes of the folder, with a Rust tokenizer behind it. A class that builds its own
tokenizer can split text otherwise than the folder's tokenizer.json says (the papers' code read LLaMA3 with
LlamaTokenizer): the two are compared on a probe, and where they differ the folder is refused.
BOS. Whatever the tokenizer's own post-processor adds, and nothing beside it: LLaMA, Mistral and Gemma add one, SmolLM2
and GPT-2 do not. Some Llama tokenizers were saved without that post-processor and then add none; `describe_tokenizer`
puts what happens (`adds_bos`) into the run's record.
EOS. Never by the tokenizer: whoever makes training rows appends it, so one that adds it itself is refused.
Pad. The tokenizer's own; without one its unknown token (LLaMA2 and Mistral: `<unk>`), without that its EOS (LLaMA3).
Labels are masked by length and never by the pad id, so a pad that is the EOS (SmolLM2's own) hides no final EOS.
Side. Rows are padded on the right; generation pads on the left by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_xs.errors import UserError
from lora_xs.models.location import Location
from lora_xs.models.weights import cannot_load
from lora_xs.spec.sections import ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "Below is an instruction.\n\n### Instruction:\nIf 1234 + 5.6 = x, what's x/2?  \n\n### Response: Ça fait 619"
"""Text on which a wrong pre-tokenizer shows: blank lines, digits, two spaces, an accent."""


def load_tokenizer(model: ModelSpec, location: Location) -> PreTrainedTokenizerBase:
    """The folder's tokenizer with a pad token, padding on the right. Raises UserError for one that cannot be used."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(location.folder, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise cannot_load(model, location, error) from error
    where = f"model={model.name}: the tokenizer of {location.folder.name} ({type(tokenizer).__name__})"
    if not tokenizer.is_fast:
        raise UserError(f"{where} has no Rust tokenizer; save it with a tokenizer.json")
    if tokenizer.eos_token_id is None:
        raise UserError(f"{where} has no EOS token, nothing would end a response; set eos_token in its config")
    if _added(tokenizer)[1]:
        raise UserError(f"{where} appends tokens itself, rows would end twice; save it with add_eos_token=false")
    if not _splits_as_saved(tokenizer, location.folder):
        raise UserError(
            f"{where} splits text otherwise than its tokenizer.json: its class is wrong; set tokenizer_class in "
            "tokenizer_config.json to PreTrainedTokenizerFast"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token if tokenizer.unk_token_id is None else tokenizer.unk_token
    tokenizer.padding_side = "right"
    found: PreTrainedTokenizerBase = tokenizer
    return found


def check_vocabulary(model: ModelSpec, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Raise UserError where the tokenizer has an id that is not among the embedding's `rows`."""
    needed = _vocabulary(tokenizer)
    if needed > rows:
        raise UserError(
            f"model={model.name}: the tokenizer has ids up to {needed - 1}, the model {rows} embeddings; "
            "give the tokenizer that belongs to these weights"
        )


def describe_tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What of a tokenizer decides how rows are made, as JSON values for the run's record.

    class; vocabulary: its largest id plus one; pad, bos, eos: `{"token", "id"}` or None; adds_bos: whether BOS comes
    before every text; padding_side.
    """
    prefix, _ = _added(tokenizer)
    special = {
        name: None if index is None else {"token": str(getattr(tokenizer, f"{name}_token")), "id": index}
        for name in ("pad", "bos", "eos")
        for index in [getattr(tokenizer, f"{name}_token_id")]
    }
    return {
        "class": type(tokenizer).__name__,
        "vocabulary": _vocabulary(tokenizer),
        **special,
        "adds_bos": tokenizer.bos_token_id is not None and tokenizer.bos_token_id in prefix,
        "padding_side": tokenizer.padding_side,
    }


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> int:
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def _added(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Ids the tokenizer puts before and after a text by itself."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return whole, []


def _splits_as_saved(tokenizer: Any, folder: Path) -> bool:
    """Whether PROBE becomes the ids that tokenizer.json alone gives it, where there is such a file."""
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        return True
    saved = Tokenizer.from_file(str(file))
    saved.no_truncation()
    saved.no_padding()
    ids: list[int] = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    return bool(saved.encode(PROBE, add_special_tokens=False).ids == ids)
