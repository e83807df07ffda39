"""PiSSA (arXiv 2404.02948): a LoRA that starts from W's top singular triplets while the base keeps the residual.

PEFT's layers and PEFT's algebra, A = √(Σ_r / s) V_rᵀ, B = U_r √(Σ_r / s), W ← W − s·B A, with the factors of our
truncated SVD: PEFT's fast one does not oversample and is several percent off on flat spectra, its exact one takes
minutes on a large model. On disk a PiSSA adapter is a plain LoRA of rank 2r against the unmodified base.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from lora_xs.adapters.baselines import inject, peft_targets
from lora_xs.adapters.factors import FactorReport
from lora_xs.adapters.store import FactorStore
from lora_xs.adapters.trainable import PEFT_PREFIX
from lora_xs.adapters.tuner.targets import is_quantised
from lora_xs.errors import UserError

if TYPE_CHECKING:
    from lora_xs.spec import RunSpec

SAME_START = 1e-4
"""Relative Frobenius distance of two start products B₀ A₀ below which a saved adapter belongs to this base: ten times
what two certified truncations of one matrix may differ by."""


class PissaStart(NamedTuple):
    """What a module's factors started from, kept on the CPU: saving needs it, training does not."""

    A: Tensor  # [r, in]
    B: Tensor  # [out, r]


@dataclass
class PissaConfig(LoraConfig):
    """LoRA's settings while PiSSA trains at rank r; what it writes to disk are those of the plain LoRA of rank 2r."""

    def plain(self) -> LoraConfig:
        """The settings under which the saved tensors are a LoRA of the unmodified base: rank 2r, the same scale."""
        doubled = copy.copy(self)
        doubled.r, doubled.lora_alpha, doubled.init_lora_weights = 2 * self.r, 2 * self.lora_alpha, True
        return doubled

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Write adapter_config.json of the plain LoRA."""
        LoraConfig.save_pretrained(self.plain(), save_directory, **kwargs)


def pissa(model: nn.Module, spec: RunSpec) -> nn.Module:
    """PiSSA on the spec's targets, s = alpha / r. The base's weights there become the residual, in place.

    On the meta device the model is only counted. Raises UserError when no module matches, a base is quantised or a
    rank is above a dimension.
    """
    config = PissaConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.method.dropout,
        target_modules=peft_targets(spec.target_modules),
        init_lora_weights=False,
        bias="none",
    )
    adapted = inject(model, config, spec)
    store, starts, reports = FactorStore(), {}, {}
    for name, layer in adapted.get_base_model().named_modules():
        if isinstance(layer, LoraLayer) and not layer.get_base_layer().weight.is_meta:
            starts[name], reports[name] = _start(layer, name, store)
    adapted.pissa_start, adapted.factor_reports = starts, {"default": reports}
    return adapted


def starts_of(model: nn.Module) -> dict[str, PissaStart]:
    """What each module of a PiSSA model started from, by its name in the base model; empty for other models."""
    found: dict[str, PissaStart] = getattr(model, "pissa_start", {})
    return found


def plain_lora_state(model: PeftModel) -> dict[str, Tensor]:
    """A trained PiSSA as plain LoRA, s·B A − s·B₀ A₀ = s·[B, −B₀] [A; A₀], in the names PEFT's saving expects.

    lora_A is [2r, in], lora_B is [out, 2r]. Exact over an fp32 base; over a half-precision one the residual was
    rounded to its dtype, and the unmodified base lacks that rounding.
    """
    state = dict(model.state_dict())
    for name, start in starts_of(model).items():
        for factor, first, dim in (("lora_A", start.A, 0), ("lora_B", -start.B, 1)):
            key = f"{PEFT_PREFIX}{name}.{factor}.default.weight"
            state[key] = torch.cat([state[key], first.to(state[key])], dim=dim).contiguous()
    return get_peft_model_state_dict(model, state_dict=state, save_embedding_layers=False)


def trained_part(model: nn.Module, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trained factors A [r, in] and B [out, r] of an adapter saved by `plain_lora_state`.

    Raises UserError where its second half is not what this model started from: another base, or a plain LoRA.
    """
    found = dict(entries)
    for name, start in starts_of(model).items():
        key_a, key_b = (f"{PEFT_PREFIX}{name}.{factor}.weight" for factor in ("lora_A", "lora_B"))
        if key_a not in found or key_b not in found:
            continue  # the caller names what is missing
        rank = start.A.shape[0]
        A, B = found[key_a], found[key_b]
        if A.shape != (2 * rank, start.A.shape[1]) or B.shape != (start.B.shape[0], 2 * rank):
            raise UserError(f"{name}: {list(A.shape)} and {list(B.shape)} are not a PiSSA of rank {rank} for this base")
        own = start.B @ start.A
        off = float((own + (B[:, rank:] @ A[rank:]).to(own)).norm() / own.norm().clamp_min(1e-30))
        if not off <= SAME_START:
            raise UserError(
                f"{name}: the adapter did not start from this base's singular triplets (off by {off:.1e}, tolerance "
                f"{SAME_START:.0e}): it is a plain LoRA, or of another base model"
            )
        found[key_a], found[key_b] = A[:rank].contiguous(), B[:, :rank].contiguous()
    return found


@torch.no_grad()
def _start(layer: LoraLayer, name: str, store: FactorStore) -> tuple[PissaStart, FactorReport]:
    """Move the top r triplets of one module's weight from the base into its adapter."""
    base: Any = layer.get_base_layer()
    if is_quantised(base) or not isinstance(base, nn.Linear):
        raise UserError(f"{name}: PiSSA changes the base's weight, which needs an unquantised nn.Linear")
    rank, scale = layer.r["default"], layer.scaling["default"]
    weight = base.weight.detach()  # [out, in]
    truncation = store.truncation(weight, rank, name=name)
    U, S, Vh = truncation.svd
    root = (S / scale).sqrt()
    A, B = root[:, None] * Vh, U * root  # [r, in], [out, r]
    base.weight.copy_(weight.to(A.dtype) - scale * (B @ A))
    trained: Any = layer
    trained.lora_A["default"].weight.copy_(A)
    trained.lora_B["default"].weight.copy_(B)
    report = FactorReport(
        truncation.residual, truncation.gap, truncation.warning, truncation.cached, truncation.seconds
    )
    return PissaStart(A.cpu(), B.cpu()), report
