"""A folder's weights as a model of a given class: safetensors only, no remote code, nothing missing or misfitting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lora_xs.errors import UserError
from lora_xs.head import is_head
from lora_xs.models.attention import check_device
from lora_xs.models.location import Location
from lora_xs.models.quantised import keep_as_loaded, quantization_arguments
from lora_xs.spec.sections import ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_weights(
    builder: Any, model: ModelSpec, location: Location, *, fresh: Sequence[str] = (), **settings: Any
) -> PreTrainedModel:
    """`builder.from_pretrained` in `model`'s dtype, quantisation and attention; `settings` go to the model's config.

    fresh: path parts of modules that the files need not hold, which the caller draws. Raises UserError for files that
    are not such a model, and for an attention that this model or machine does not have.
    """
    import torch
    from safetensors import SafetensorError

    check_device(model)
    try:
        base, loading = builder.from_pretrained(
            location.folder,
            dtype=getattr(torch, model.dtype),
            attn_implementation=model.attention,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # of what is fresh; anything else is refused below
            output_loading_info=True,
            trust_remote_code=False,
            **quantization_arguments(model),
            **settings,
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise cannot_load(model, location, error) from error
    misfits = {
        str(key) for entry in loading["mismatched_keys"] for key in [entry[0] if isinstance(entry, tuple) else entry]
    }
    misfits = {key for key in misfits | set(loading["missing_keys"]) if not is_head(key, fresh)}
    if misfits:
        raise UserError(f"model={model.name}: {location.folder.name} lacks or misfits {', '.join(sorted(misfits)[:3])}")
    keep_as_loaded(base)
    found: PreTrainedModel = base
    return found


def cannot_load(model: ModelSpec, location: Location, error: Exception) -> UserError:
    """One line for what transformers says over many."""
    first = str(error).strip().partition("\n")[0]
    if "scaled_dot_product_attention" in first:
        first = f"its architecture has no model.attention={model.attention}; use model.attention=eager"
    return UserError(f"model={model.name}: cannot be loaded from {location.folder.name}: {first}")
