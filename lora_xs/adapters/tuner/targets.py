"""Which modules an adapter goes to, all checked before one is touched: a mistake leaves the model as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.integrations import dequantize_module_weight, get_bnb_param_type, skip_init_on_device
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lora_xs.adapters.tuner.config import LoraXsConfig
from lora_xs.errors import UserError

LINEAR_TYPES = (nn.Linear, Conv1D)
"""Base layers that can be adapted. bitsandbytes' int8 and 4-bit layers are subclasses of nn.Linear."""


def check_targets(model: nn.Module, config: LoraXsConfig, matches: Callable[[str], bool]) -> list[str]:
    """Names of the modules of `model` that `matches` selects. Raises UserError unless there are some, all adaptable at
    their rank.

    Modules inside a layer that is already adapted are not looked at.
    """
    adapted = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, BaseTunerLayer))
    names = [name for name, _ in model.named_modules() if name and not name.startswith(adapted)]
    targets = [name for name in names if matches(name)]
    if not targets:
        linear = [name for name in names if isinstance(model.get_submodule(name), LINEAR_TYPES)]
        raise UserError(
            f"target_modules={config.target_modules!r} matches no module that may be adapted (exclude_modules and "
            f"modules_to_save are left out); linear modules of this model are for example {_examples(linear)}"
        )
    for name in targets:
        _check_module(model, name, config.rank_of(name))
    return targets


def linear_shape(base: Any) -> tuple[int, int]:
    """(out, in) of a base layer, quantised or not."""
    if isinstance(base, Conv1D):
        return base.nf, base.nx
    return base.out_features, base.in_features


def is_quantised(base: Any) -> bool:
    """Whether the weight is stored by bitsandbytes in 8 or 4 bits; does not import bitsandbytes."""
    return bool(get_bnb_param_type(base.weight))


@skip_init_on_device  # dequantising registers the weight anew, which low_cpu_mem_usage would turn into a meta tensor
def float_weight(base: Any) -> Tensor:
    """The weight as [out, in] in a float dtype: a view of a float weight, else the dequantised one."""
    if isinstance(base, Conv1D):
        return base.weight.detach().t()
    return dequantize_module_weight(base).detach()


def _check_module(model: nn.Module, name: str, rank: int) -> None:
    module = model.get_submodule(name)
    base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    if not isinstance(base, LINEAR_TYPES):
        raise UserError(f"{name}: {type(base).__name__} is not a linear layer; narrow target_modules to linear ones")
    parent = model.get_submodule(name.rpartition(".")[0])
    if isinstance(parent, nn.MultiheadAttention):
        raise UserError(f"{name}: nn.MultiheadAttention never calls this module; leave it out of target_modules")
    weight = base.weight
    if hasattr(weight, "full_tensor"):
        raise UserError(f"{name}: the weight is sharded; attach the adapter before the model is distributed")
    if not is_quantised(base) and not weight.is_floating_point():
        raise UserError(f"{name}: a weight of {weight.dtype} cannot be adapted; load the base in a float dtype")
    if weight.device == torch.device("meta") and hasattr(base, "_hf_hook"):
        raise UserError(f"{name}: the weight is offloaded; load the model without offloading to attach the adapter")
    out_features, in_features = linear_shape(base)
    if rank > min(out_features, in_features):
        raise UserError(
            f"{name}: rank {rank} is above the smaller dimension of its weight [{out_features}, {in_features}]; "
            f"lower r to {min(out_features, in_features)} or less, or give the module its own rank_pattern"
        )


def _examples(names: list[str]) -> str:
    """Up to four names with distinct endings."""
    by_ending = {name.rpartition(".")[2]: name for name in reversed(names)}
    return ", ".join(sorted(by_ending.values())[:4]) or "none"
