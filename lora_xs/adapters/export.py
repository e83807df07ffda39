"""Out of LoRA-XS without loss: lora_B ← s·B R and lora_A ← A is a plain LoRA, which stock PEFT and vLLM load."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from lora_xs.adapters.files import ADAPTER, CONFIG, HEAD, adapter_place, read_tensors
from lora_xs.adapters.trainable import PEFT_PREFIX
from lora_xs.adapters.tuner import LoraXsConfig, LoraXsLayer
from lora_xs.atomic import new_folder
from lora_xs.errors import UserError
from lora_xs.models import locate
from lora_xs.spec import RunSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_AUTO_CLASSES = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}
SPEC = "spec.json"
_OUTPUT_WEIGHTS = ("out_proj.weight", "classifier.weight", "score.weight")


def export_lora(
    model: PeftModel, folder: str | Path, adapter_name: str = "default", *, head: Sequence[str] = ()
) -> Path:
    """Write an adapter as plain LoRA (`adapter_config.json`, `adapter_model.safetensors`), whole or not at all.

    lora_A [r, in] and lora_B [out, r] are stored in R's dtype, with lora_alpha = r: PEFT's scale is 1, the product the
    trained one. `modules_to_save` come along; `head` names further trained modules of the base model to store
    with them. Loads with stock PEFT onto the base model the adapter was trained on. Returns the folder. Raises
    UserError where the model has no such LoRA-XS adapter, or the folder holds anything already.
    """
    place = free_folder(folder)
    config = getattr(model, "peft_config", {}).get(adapter_name)
    if not isinstance(config, LoraXsConfig):
        raise UserError(f"the model has no LoRA-XS adapter {adapter_name!r} to export; load one first")
    layers = {name: layer for name, layer in model.named_modules() if _carries(layer, adapter_name)}
    own = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    entries = {key: tensor for key, tensor in own.items() if key.rpartition(".")[0] not in layers}  # modules_to_save
    for name, layer in layers.items():
        entries |= {f"{name}.{key}.weight": factor for key, factor in _plain_factors(layer, adapter_name).items()}
    for name, parameter in model.get_base_model().named_parameters():
        if any(name.startswith(f"{module}.") for module in head):
            entries[PEFT_PREFIX + name] = parameter.detach()
    transposed = all(isinstance(layer.get_base_layer(), Conv1D) for layer in layers.values())
    with new_folder(place) as temporary:
        tensors = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in entries.items()}
        save_file(tensors, temporary / ADAPTER, metadata={"format": "pt"})
        _plain_config(config, [*(config.modules_to_save or ()), *head], transposed).save_pretrained(str(temporary))
    return place


def load_adapted(folder: str | Path, base: str | Path | None = None) -> PeftModel:
    """The base model with the adapter of `folder` on it, and the head that lies beside it, for inference on the CPU.

    `base` is the base model's folder or hub name; None takes the one the adapter's configuration names. Raises
    UserError where one of them cannot be found, or the adapter does not belong to the base model.
    """
    place = adapter_place(folder)
    if not (place / CONFIG).is_file():
        raise UserError(f"{place}: no {CONFIG} there; give the folder of a saved adapter, or of its run")
    try:
        config = PeftConfig.from_pretrained(str(place))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{place / CONFIG}: not an adapter's configuration ({error}); take an intact copy") from None
    if not isinstance(config, LoraXsConfig):
        raise UserError(f"{place}: the adapter is of type {config.peft_type}, not LORA_XS; give a LoRA-XS adapter")
    source = base or config.base_model_name_or_path
    if not source:
        raise UserError(f"{place}: its configuration names no base model; give it with --base <folder or name>")
    head = read_tensors(place / HEAD) if (place / HEAD).is_file() else {}
    saved = read_tensors(place / ADAPTER)
    model = PeftModel.from_pretrained(_load_base(str(source), config, {**saved, **head}), place)
    strangers = model.get_base_model().load_state_dict(head, strict=False).unexpected_keys
    if strangers:
        raise UserError(f"{place / HEAD}: the base model has no {strangers[0]}; give the one that was trained")
    return model


def run_base(folder: str | Path) -> Path | None:
    """Where the base model lies of the run whose folder, or whose adapter's folder, this is; None where it is no run's.

    Packaged weights have no name that transformers could look up. Raises UserError where the run's model is not here.
    """
    place = Path(folder)
    file = next((one / SPEC for one in (place, *place.absolute().parents[:2]) if (one / SPEC).is_file()), None)
    if file is None:
        return None
    try:
        spec = RunSpec.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}); give the base model's folder with --base") from None
    try:
        return locate(spec.model).folder
    except UserError as error:
        raise UserError(f"{error}; or give its folder with --base") from None


def head_modules(folder: str | Path) -> list[str]:
    """Names of the modules whose weights lie in `head.safetensors` beside an adapter, e.g. `["classifier.dense"]`."""
    file = adapter_place(folder) / HEAD
    return sorted({key.rpartition(".")[0] for key in read_tensors(file)}) if file.is_file() else []


def free_folder(folder: str | Path) -> Path:
    """The folder's path. Raises UserError where it exists and is not empty: writing whole folders replaces them."""
    place = Path(folder)
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise UserError(f"{place}: exists and is not an empty folder; give a new one")
    return place


def _carries(module: torch.nn.Module, adapter_name: str) -> bool:
    return isinstance(module, LoraXsLayer) and adapter_name in module.scaling


def _plain_factors(layer: LoraXsLayer, adapter_name: str) -> dict[str, Tensor]:
    """lora_A = A [r, in] and lora_B = s·B R [out, r], in R's dtype."""
    layer.require_factors(adapter_name)
    R = layer.lora_R[adapter_name].detach()
    B = layer.lora_B[adapter_name].to(R.dtype)
    return {"lora_A": layer.lora_A[adapter_name].to(R.dtype), "lora_B": layer.scaling[adapter_name] * (B @ R)}


def _plain_config(config: LoraXsConfig, modules_to_save: list[str], transposed: bool) -> LoraConfig:
    return LoraConfig(
        r=config.r,
        lora_alpha=config.r,
        rank_pattern=dict(config.rank_pattern),
        alpha_pattern=dict(config.rank_pattern),
        target_modules=config.target_modules,
        exclude_modules=config.exclude_modules,
        layers_to_transform=config.layers_to_transform,
        layers_pattern=config.layers_pattern,
        modules_to_save=modules_to_save or None,
        fan_in_fan_out=transposed,
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
        revision=config.revision,
        inference_mode=True,
    )


def _load_base(source: str, config: LoraXsConfig, saved: dict[str, Tensor]) -> PreTrainedModel:
    """The base model in the class the adapter was trained on, with as many outputs as the saved head has."""
    import transformers

    class_name = _AUTO_CLASSES.get(str(getattr(config.task_type, "value", config.task_type)))
    class_name = class_name or (config.auto_mapping or {}).get("base_model_class", "")
    base_class = getattr(transformers, class_name or "-", None)
    if base_class is None:
        raise UserError(f"{source}: transformers has no model class {class_name!r}; call export_lora in Python")
    outputs = [tensor.shape[0] for key, tensor in saved.items() if key.endswith(_OUTPUT_WEIGHTS)]
    try:
        size = {"num_labels": outputs[0]} if outputs else {}
        return base_class.from_pretrained(source, trust_remote_code=False, **size)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{source}: no base model there ({reason}); give its folder with --base") from None
