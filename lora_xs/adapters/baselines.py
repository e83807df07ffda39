"""The rivals, through PEFT: full fine-tuning, the head alone, LoRA and rsLoRA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_xs.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from lora_xs.spec import RunSpec


def full_fine_tuning(model: nn.Module, spec: RunSpec) -> nn.Module:
    """Every weight trains."""
    return model.requires_grad_(True)


def head_only(model: nn.Module, spec: RunSpec) -> nn.Module:
    """Nothing but the head trains: what a comparison of adapters stands on."""
    return model.requires_grad_(False)


def lora(model: nn.Module, spec: RunSpec) -> nn.Module:
    """LoRA, ΔW = s B A with s = alpha / r, or rsLoRA's s = alpha / √r. Raises UserError when no module matches."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.method.dropout,
        target_modules=peft_targets(spec.target_modules),
        use_rslora=spec.method.name == "rslora",
        bias="none",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"method={spec.method.name}: {str(error).partition('. ')[0]}") from error


def peft_targets(target_modules: tuple[str, ...]) -> list[str] | str:
    """A list of suffixes as PEFT takes it; a single entry with a regular expression's marks is one."""
    if len(target_modules) == 1 and any(mark in target_modules[0] for mark in "*|()[]\\^$+?"):
        return target_modules[0]
    return list(target_modules)
