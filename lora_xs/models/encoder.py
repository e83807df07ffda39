"""Pretrained encoders with a fresh classification head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lora_xs.head import is_head
from lora_xs.models.location import Location
from lora_xs.models.weights import cannot_load, load_weights
from lora_xs.spec.sections import ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_base(model: ModelSpec, location: Location, labels: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The pretrained encoder with a fresh head of `labels` outputs (1: regression), and its tokenizer.

    With `model.quantization` every linear layer but the head's is quantised while it loads; biases, embeddings, norms
    and the head stay in `model.dtype`. The head draws from torch's global RNG: seed it first. Raises UserError for
    files that are not such a model.
    """
    base, tokenizer = load_encoder(model, location, labels)
    freshen_head(base, model.head)
    return base, tokenizer


def load_encoder(model: ModelSpec, location: Location, labels: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """`load_base` before its head is drawn: all of it but the head is the same whatever the RNG's state."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(location.folder, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise cannot_load(model, location, error) from error
    base = load_weights(
        AutoModelForSequenceClassification,
        model,
        location,
        fresh=model.head,
        num_labels=labels,
        problem_type="regression" if labels == 1 else "single_label_classification",
    )
    return base, tokenizer


def freshen_head(base: PreTrainedModel, head: Sequence[str]) -> None:
    """Draw the head anew, N(0, initializer_range²) and zero biases, also where the files hold one of another task."""
    import torch

    spread = getattr(base.config, "initializer_range", 0.02)
    for name, parameter in base.named_parameters():
        if is_head(name, head):
            with torch.no_grad():
                parameter.normal_(0.0, spread) if parameter.ndim >= 2 else parameter.zero_()
