"""Which attention a model computes with: `model.attention`, refused in one line where it cannot be had here."""

from __future__ import annotations

import importlib.util

from lora_xs.errors import UserError
from lora_xs.spec.sections import ModelSpec

FLASH = "flash_attention_2"


def check_package(model: ModelSpec) -> None:
    """Raise UserError where flash attention is asked for and its package is missing; imports neither it nor torch."""
    if model.attention == FLASH and importlib.util.find_spec("flash_attn") is None:
        raise UserError(
            f"model.attention={FLASH} needs the package flash-attn; run `pip install flash-attn --no-build-isolation` "
            "(it compiles for CUDA), or use model.attention=sdpa"
        )


def check_device(model: ModelSpec) -> None:
    """Raise UserError where flash attention is asked for and there is no GPU for it."""
    if model.attention != FLASH:
        return
    import torch

    if not torch.cuda.is_available():
        raise UserError(f"model.attention={FLASH} needs a CUDA GPU, there is none here; use model.attention=sdpa")
