"""The adapted linear layer: its forward, and merging R into the base weight and out again."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from peft.tuners.tuners_utils import check_adapters_to_merge
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lora_xs.adapters.tuner.layer import LoraXsLayer
from lora_xs.adapters.tuner.product import Frozen, adapted_linear, add_adapter, autocast_dtype, without_autocast
from lora_xs.adapters.tuner.targets import is_quantised
from lora_xs.errors import UserError

_PLAIN_BASES = (nn.Linear, Conv1D)


class LoraXsLinear(LoraXsLayer):
    """y = W x + b + Σ s·B R A x over the active adapters; W of nn.Linear, Conv1D or a bitsandbytes layer."""

    def __init__(self, base_layer: nn.Module, module_name: str, adapter_name: str) -> None:
        super().__init__(base_layer, module_name, adapter_name)
        self._unmerged: Tensor | None = None  # the base weight as it was, on the CPU, while adapters are merged

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x [..., in] -> [..., out]."""
        if self._disable_adapters or self.merged_adapters:
            if self._disable_adapters and self.merged_adapters:
                self.unmerge()
            return self.base_layer(x, *args, **kwargs)
        names = [name for name in self._active_adapter if name in self.scaling]
        if self._awaiting:
            for name in names:
                self.require_factors(name)
        if len(names) == 1 and not args and not kwargs:
            y = self._fused(x, names[0])
            if y is not None:
                return y
        y = self.base_layer(x, *args, **kwargs)
        for name in names:
            dropped = self.lora_dropout[name](x) if name in self.lora_dropout else x
            y = add_adapter(y, dropped, self.lora_A[name], self.lora_B[name], self.lora_R[name], self.scaling[name])
        return y

    def _fused(self, x: Tensor, name: str) -> Tensor | None:
        """The whole product in one function; None where the base must be called: it trains, is quantised or hooked."""
        modules: Any = self._modules  # read directly: nn.Module's attribute lookup costs as much as a small product
        base = modules["base_layer"]
        W = base._parameters.get("weight")
        bias = base._parameters.get("bias")
        if (
            type(base) not in _PLAIN_BASES
            or type(W) is not nn.Parameter
            or W.requires_grad
            or (bias is not None and bias.requires_grad)
            or base._forward_hooks
            or base._forward_pre_hooks
            or base._backward_hooks
            or base._backward_pre_hooks
            or "forward" in base.__dict__  # replaced on the instance: offloading, tracing
            or (self.training and name in self.lora_dropout)
        ):
            return None
        if type(base) is Conv1D:
            W = W.t()
        A, B = modules["lora_A"]._buffers[name], modules["lora_B"]._buffers[name]
        frozen = Frozen(W, bias, A, B, self.scaling[name])
        dtype = autocast_dtype(x)
        if dtype is None:
            return adapted_linear(x, self.lora_R[name], frozen) if x.dtype == W.dtype else None
        if torch.float64 in (x.dtype, W.dtype):
            return None  # autocast leaves fp64 alone
        with without_autocast(x):
            return adapted_linear(x.to(dtype), self.lora_R[name], frozen)

    def get_delta_weight(self, adapter: str) -> Tensor:
        """s·B R A in the shape of the base's stored weight and in R's dtype."""
        self.require_factors(adapter)
        R = self.lora_R[adapter].detach()
        A, B = self.lora_A[adapter].to(R.dtype), self.lora_B[adapter].to(R.dtype)
        delta = self.scaling[adapter] * (B @ R) @ A  # [out, in]
        return delta.t() if isinstance(self.base, Conv1D) else delta

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """The adapter is W + ΔW, so PEFT may convert it (`export_lora` does so without loss)."""
        return True

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the adapters (default: the active ones) to the base weight, computed in fp32 and rounded once.

        Unmerging restores the weight bit for bit: a copy of it stays on the CPU meanwhile. `safe_merge` refuses a
        result that is not finite. Raises UserError then, and over a quantised weight.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.scaling]
        if not names:
            return
        base = self.base
        if is_quantised(base):
            raise UserError(
                f"{self.module_name}: the weight is quantised, rounding would lose the adapter; "
                "load the base model unquantised to merge, or keep the adapter beside it (export_lora)"
            )
        merged = base.weight
        for name in names:
            delta = self.get_delta_weight(name)
            merged = merged.to(delta.dtype) + delta
        merged = merged.to(base.weight.dtype)
        if safe_merge and not torch.isfinite(merged).all():
            raise UserError(
                f"{self.module_name}: merging {', '.join(names)} gives a weight that is not finite; train it again"
            )
        if self._unmerged is None:
            self._unmerged = base.weight.detach().to("cpu", copy=True)
        base.weight.copy_(merged)
        self.merged_adapters.extend(names)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the base weight back as it was before merging, bit for bit."""
        if self._unmerged is None:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        self.base.weight.copy_(self._unmerged)
        self._unmerged = None
        self.merged_adapters.clear()
