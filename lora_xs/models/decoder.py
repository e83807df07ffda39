"""Pretrained decoders with their language-model head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_xs.models.location import Location
from lora_xs.models.tokenizer import check_vocabulary, load_tokenizer
from lora_xs.models.weights import load_weights
from lora_xs.spec.sections import ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_decoder(model: ModelSpec, location: Location) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The pretrained decoder in `model.dtype`, and its tokenizer (see `load_tokenizer`).

    With `model.quantization` every linear layer but `lm_head` is quantised while it loads; embeddings, norms and
    `lm_head` stay in `model.dtype`. Nothing is drawn at random. `model.attention` is what `config._attn_implementation`
    says afterwards. Raises UserError for files that are not such a model, for a tokenizer with more tokens than the
    model has embeddings, and for an attention that the model or this machine does not have.
    """
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(model, location)
    base = load_weights(AutoModelForCausalLM, model, location)
    check_vocabulary(model, tokenizer, base.get_input_embeddings().weight.shape[0])
    return base, tokenizer
