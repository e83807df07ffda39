"""A run's adapter on disk: PEFT's two files and the head beside them, all safetensors.

The tensors are R and a fingerprint for LoRA-XS, a plain LoRA of the unmodified base for PiSSA, d and b for VeRA.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

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
    """Write the adapter and the head into `folder`, whole or not at all.

    Returns the bytes of the adapter's file, or of full fine-tuning's `model.safetensors`, without the head's; 0: none.

    A model without an adapter (full fine-tuning, head only) leaves its trained weights outside the head, if any, as
    `model.safetensors`.
    """
    from peft import PeftModel
    from safetensors.torch import save_file

    from lora_xs.adapters.pissa import plain_lora_state, starts_of
    from lora_xs.adapters.vera import write_projections

    with new_folder(folder) as temporary:
        size = 0
        if isinstance(model, PeftModel):
            state = plain_lora_state(model) if starts_of(model) else None
            model.save_pretrained(str(temporary), save_embedding_layers=False, state_dict=state)
            write_projections(model, temporary)
            (temporary / "README.md").unlink(missing_ok=True)
            size = (temporary / ADAPTER).stat().st_size
        else:
            rest = {name: tensor for name, tensor in trainable_state(model).items() if not is_head(name, head)}
            if rest:
                save_file(rest, temporary / MODEL)
                size = (temporary / MODEL).stat().st_size
        save_file(head_state(model, head), temporary / HEAD)
    return size


def adapter_place(folder: str | Path) -> Path:
    """Where an adapter lies: the folder itself, or, of a run's folder, its best adapter."""
    place = Path(folder)
    best = place / "adapter" / "best"
    return best if not (place / CONFIG).is_file() and (best / CONFIG).is_file() else place


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU. Raises UserError where it is missing, cut short or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{file}: cannot be read ({reason}); take an intact copy") from None


def load_adapter(model: nn.Module, folder: Path, *, head: bool) -> None:
    """Load an adapter of the same method, rank and targets into `model` (already attached); the head too if asked.

    LoRA-XS checks its factors' fingerprints here, PiSSA its start, VeRA its projections. A model without an adapter
    gets the weights full fine-tuning left, if any. Raises UserError saying what differs or is missing.
    """
    from peft import PeftModel, set_peft_model_state_dict

    from lora_xs.adapters.pissa import PissaConfig, trained_part
    from lora_xs.adapters.vera import check_projections, without_projection_warnings

    if not isinstance(model, PeftModel):
        _load_whole(model, folder)
        if head:
            load_head(model, folder)
        return
    config = model.peft_config["default"]
    _check_config((config.plain() if isinstance(config, PissaConfig) else config).to_dict(), folder)
    check_projections(model, folder)
    entries = trained_part(model, read_tensors(folder / ADAPTER))
    try:
        with without_projection_warnings():
            result = set_peft_model_state_dict(model, entries, adapter_name="default")
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{folder}: {' '.join(str(error).split())}") from error
    missing = [key for key in result.missing_keys if _of_adapter(key)]
    if missing or result.unexpected_keys:
        raise UserError(
            f"{folder}: {len(missing)} tensors missing and {len(result.unexpected_keys)} unexpected, "
            f"first {(missing + list(result.unexpected_keys))[0]}"
        )
    if head:
        load_head(model, folder)


def load_head(model: nn.Module, folder: Path) -> None:
    """Copy `head.safetensors` into the model's head; a model without one has left it empty. Raises UserError when it is
    absent, in part too, or of another shape."""
    from peft import PeftModel

    if not (folder / HEAD).is_file():
        raise UserError(f"{folder}: no {HEAD}; leave start_from.head=false")
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    own, saved = dict(base.named_parameters()), read_tensors(folder / HEAD)
    absent = [name for name in head_state(model, tuple({key.split(".")[0] for key in saved})) if name not in saved]
    if absent:
        raise UserError(f"{folder}/{HEAD}: lacks {', '.join(absent)}; take an intact copy")
    _copy(saved, own, f"{folder}/{HEAD}")


def _load_whole(model: nn.Module, folder: Path) -> None:
    """Copy what full fine-tuning left into a model without an adapter; head only leaves nothing but the head."""
    if (folder / ADAPTER).is_file():
        raise UserError(f"{folder}: holds an adapter; a model without an adapter cannot start from one")
    own = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if (folder / MODEL).is_file():
        _copy(read_tensors(folder / MODEL), own, f"{folder}/{MODEL}")
    elif not (folder / HEAD).is_file():
        raise UserError(f"{folder}: neither {MODEL} nor {HEAD} there; give the adapter folder of a finished run")


def _copy(saved: Mapping[str, Tensor], own: Mapping[str, nn.Parameter], file: str) -> None:
    for name, tensor in saved.items():
        if name not in own or own[name].shape != tensor.shape:
            has = tuple(own[name].shape) if name in own else "none"
            raise UserError(f"{file}: {name} is {tuple(tensor.shape)}, this model's is {has}")
    for name, tensor in saved.items():
        own[name].data.copy_(tensor)


def _check_config(wanted: dict[str, Any], folder: Path) -> None:
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / CONFIG}: not readable: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{folder / CONFIG}: not an adapter's configuration; take an intact copy")
    for key in ("peft_type", "r", "lora_alpha", "use_rslora", "target_modules", "projection_prng_key"):
        one, other = found.get(key), wanted.get(key)
        if isinstance(one, list) or isinstance(other, set | list):
            one, other = sorted(one or []), sorted(other or [])
        if key in found and str(getattr(one, "value", one)) != str(getattr(other, "value", other)):
            raise UserError(f"{folder}: saved with {key}={one}, this run has {key}={other}")


def _of_adapter(key: str) -> bool:
    """Whether a model's tensor is an adapter's: by PEFT's prefixes of LoRA (and LoRA-XS) and VeRA."""
    return (".lora_" in key or ".vera_lambda_" in key) and ".base_layer." not in key
