"""`attach`: the one door through which every fine-tuning method reaches the model, a line a method."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from lora_xs.adapters.estimation import EstimationRows
    from lora_xs.spec import RunSpec


def attach(model: nn.Module, spec: RunSpec, rows: EstimationRows | None = None) -> nn.Module:
    """Put `spec.method`'s trainable parameters on `model` and freeze the rest, the head excepted.

    `rows` are what LoRA-SB makes its factors from; no other method looks at them. Draws from torch's global RNG (seed
    it first). Trained weights are fp32 whatever the base's dtype. Raises UserError
    when no module matches or the method does not fit the model.
    """
    from lora_xs.adapters import baselines
    from lora_xs.adapters.pissa import pissa
    from lora_xs.adapters.sb import attach_lora_sb
    from lora_xs.adapters.trainable import thaw_head
    from lora_xs.adapters.vera import vera
    from lora_xs.adapters.xs import attach_lora_xs

    methods: dict[str, Callable[[nn.Module, RunSpec], nn.Module]] = {
        "full_ft": baselines.full_fine_tuning,
        "head_only": baselines.head_only,
        "lora": baselines.lora,
        "rslora": baselines.lora,
        "pissa": pissa,
        "vera": vera,
        "lora_xs": attach_lora_xs,
        "lora_sb": lambda model, spec: attach_lora_sb(model, spec, rows),
    }
    adapted = methods[spec.method.name](model, spec)
    thaw_head(adapted, spec.model.head)
    return adapted
