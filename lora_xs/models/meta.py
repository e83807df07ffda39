"""Models without weights, on torch's meta device: what counting parameters and costs needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_xs.errors import UserError
from lora_xs.spec.sections import ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_on_meta(model: ModelSpec) -> PreTrainedModel:
    """Shapes and names without weights: enough to count any of the papers' models.

    Encoders get a classification head with two outputs, decoders a language-model head. Raises UserError for a
    config without an architecture.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    shape = dict(model.architecture)
    if not shape:
        raise UserError(f"model={model.name} has no architecture in its config; add one to count it without weights")
    config = AutoConfig.for_model(shape.pop("model_type"), **shape)
    config.num_labels = 2
    builder = AutoModelForSequenceClassification if model.kind == "encoder" else AutoModelForCausalLM
    with torch.device("meta"):
        return builder.from_config(config)
