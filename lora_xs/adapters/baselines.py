"""The rivals, through PEFT: full fine-tuning, the head alone, LoRA and rsLoRA. PiSSA and VeRA have their own files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lora_xs.errors import UserError
from lora_xs.spec.targets import pattern_of

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import nn

    from lora_xs.spec import RunSpec


def full_fine_tuning(model: nn.Module, spec: RunSpec) -> nn.Module:
    """Every weight trains, in fp32 also where `model.dtype` loads it in half precision."""
    return model.float().requires_grad_(True)


def head_only(model: nn.Module, spec: RunSpec) -> nn.Module:
    """Nothing but the head trains: what a comparison of adapters stands on."""
    base: Any = model
    if getattr(base, "is_quantized", False):
        # the Trainer refuses a quantised base without adapters, because nothing could train: here the float head does
        base.is_quantized = False
    return model.requires_grad_(False)


def lora(model: nn.Module, spec: RunSpec) -> nn.Module:
    """LoRA, ΔW = s B A with s = alpha / r, or rsLoRA's s = alpha / √r. Raises UserError when no module matches."""
    from peft import LoraConfig

    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.method.dropout,
        target_modules=peft_targets(spec.target_modules),
        use_rslora=spec.method.name == "rslora",
        bias="none",
    )
    return inject(model, config, spec)


def inject(model: nn.Module, config: PeftConfig, spec: RunSpec) -> PeftModel:
    """`get_peft_model`; its long answer to targets that match nothing, or cannot be adapted, becomes a UserError."""
    from peft import get_peft_model

    try:
        return get_peft_model(model, config)
    except ValueError as error:
        reason = " ".join(str(error).partition(". ")[0].split())
        targets = ",".join(spec.target_modules)
        raise UserError(f"method={spec.method.name} method.target_modules=[{targets}]: {reason}") from error


def peft_targets(target_modules: tuple[str, ...]) -> list[str] | str:
    """A list of suffixes as PEFT takes it; a single entry with a regular expression's marks is one."""
    return pattern_of(target_modules) or list(target_modules)
