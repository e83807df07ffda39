"""Bases whose linear layers are kept in int8 or nf4 by bitsandbytes, all but the parts that stay whole."""

from __future__ import annotations

import importlib.metadata
import logging
from typing import TYPE_CHECKING, Any

from lora_xs.errors import UserError
from lora_xs.spec.sections import ModelSpec

if TYPE_CHECKING:
    from torch import nn

PACKS = "support_avx512bf16_for_cpu"
"""A bitsandbytes layer's attribute: whether it may use the products of such CPUs."""


def kept_whole(model: ModelSpec) -> list[str]:
    """Linear modules that are not quantised: an encoder's head, which trains; a decoder's output over the vocabulary,
    whose weight is most often the embedding's."""
    return list(model.head) if model.kind == "encoder" else [*model.head, "lm_head"]


def describe_quantization(model: ModelSpec) -> dict[str, Any]:
    """What, beside the files, decides a quantised base's bits. Raises UserError where bitsandbytes is missing."""
    try:
        version = importlib.metadata.version("bitsandbytes")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"model.quantization={model.quantization} needs bitsandbytes; run `pip install bitsandbytes`, or leave "
            "model.quantization=none"
        ) from None
    compute = {} if model.quantization == "int8" else {"compute": model.dtype}
    return {"type": model.quantization, "bitsandbytes": version, "float": kept_whole(model), **compute}


def quantization_arguments(model: ModelSpec) -> dict[str, Any]:
    """The bitsandbytes part of `from_pretrained`'s arguments; empty without quantisation."""
    if model.quantization == "none":
        return {}
    import torch
    from transformers import BitsAndBytesConfig

    # it says at every product that int8 layers round their inputs to half precision
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if model.quantization == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept_whole(model))
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=getattr(torch, model.dtype),
            llm_int8_skip_modules=kept_whole(model),
        )
    return {"quantization_config": config}


def keep_as_loaded(base: nn.Module) -> None:
    """Forbid four-bit layers to store themselves anew: on a CPU with bf16 instructions bitsandbytes would, at the first
    product outside training, in place, with scales rounded to bf16, so that evaluating changes the frozen weights."""
    for module in base.modules():
        if hasattr(module, PACKS):
            setattr(module, PACKS, False)
