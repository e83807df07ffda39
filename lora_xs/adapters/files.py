"""A run's adapter on disk: PEFT's two files (R only, for LoRA-XS) and the head beside them, all safetensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from lora_xs.adapters.trainable import head_state, trainable_state
from lora_xs.atomic import new_folder
from lora_xs.errors import UserError
from lora_xs.head import is_head

ADAPTER, CONFIG, HEAD, MODEL = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "head.safetensors",
    "model.safetensors",
)


def save_adapter(model: nn.Module, folder: Path, head: Sequence[str]) -> int:
    """Write the adapter and the head into `folder`, whole or not at all; return the adapter file's bytes (0: none).

    A model without an adapter (full fine-tuning, head only) leaves its trained weights outside the head, if any, as
    `model.safetensors`.
    """
    from peft import PeftModel
    from safetensors.torch import save_file

    with new_folder(folder) as temporary:
        size = 0
        if isinstance(model, PeftModel):
            model.save_pretrained(str(temporary), save_embedding_layers=False)
            (temporary / "README.md").unlink(missing_ok=True)
            size = (temporary / ADAPTER).stat().st_size
        else:
            rest = {name: tensor for name, tensor in trainable_state(model).items() if not is_head(name, head)}
            if rest:
                save_file(rest, temporary / MODEL)
                size = (temporary / MODEL).stat().st_size
        save_file(head_state(model, head), temporary / HEAD)
    return size


def load_adapter(model: nn.Module, folder: Path, *, head: bool) -> None:
    """Load an adapter of the same method, rank and targets into `model` (already attached); the head too if asked.

    LoRA-XS checks its factors' fingerprints here. Raises UserError saying what differs or is missing.
    """
    from peft import PeftModel, set_peft_model_state_dict
    from safetensors.torch import load_file

    if not isinstance(model, PeftModel):
        raise UserError(f"{folder}: a model without an adapter cannot start from one")
    _check_config(model.peft_config["default"].to_dict(), folder)
    try:
        result = set_peft_model_state_dict(model, load_file(folder / ADAPTER), adapter_name="default")
    except RuntimeError as error:
        raise UserError(f"{folder}: {' '.join(str(error).split())}") from error
    missing = [key for key in result.missing_keys if ".lora_" in key and "base_layer" not in key]
    if missing or result.unexpected_keys:
        raise UserError(
            f"{folder}: {len(missing)} tensors missing and {len(result.unexpected_keys)} unexpected, "
            f"first {(missing + list(result.unexpected_keys))[0]}"
        )
    if head:
        load_head(model, folder)


def load_head(model: nn.Module, folder: Path) -> None:
    """Copy `head.safetensors` into the model's head. Raises UserError when it is absent or of another shape."""
    from peft import PeftModel
    from safetensors.torch import load_file

    if not (folder / HEAD).is_file():
        raise UserError(f"{folder}: no {HEAD}; leave start_from.head=false")
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    own = dict(base.named_parameters())
    for name, tensor in load_file(folder / HEAD).items():
        if name not in own or own[name].shape != tensor.shape:
            has = tuple(own[name].shape) if name in own else "none"
            raise UserError(f"{folder}/{HEAD}: {name} is {tuple(tensor.shape)}, this model's is {has}")
        own[name].data.copy_(tensor)


def _check_config(wanted: dict[str, Any], folder: Path) -> None:
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / CONFIG}: not readable: {error}") from error
    for key in ("peft_type", "r", "lora_alpha", "use_rslora", "target_modules"):
        one, other = found.get(key), wanted.get(key)
        if isinstance(one, list) or isinstance(other, set | list):
            one, other = sorted(one or []), sorted(other or [])
        if key in found and str(getattr(one, "value", one)) != str(getattr(other, "value", other)):
            raise UserError(f"{folder}: saved with {key}={one}, this run has {key}={other}")
