"""The adapters of one module: A and B as frozen buffers, R as the one parameter, and the guard of what is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, BufferDict
from torch import Tensor, nn

from lora_xs.adapters.factors import FactorReport, build_factors
from lora_xs.adapters.store import FactorStore
from lora_xs.adapters.tuner.config import LoraXsConfig
from lora_xs.adapters.tuner.fingerprint import TOLERANCE, Fingerprint, sketch_factors
from lora_xs.adapters.tuner.targets import float_weight, linear_shape
from lora_xs.errors import UserError


class LoraXsLayer(nn.Module, BaseTunerLayer):
    """State of the adapters on one base layer, by adapter name.

    `lora_R` holds the parameters, fp32 (fp64 over an fp64 base) whatever is done to the model's dtype. `lora_A` [r, in]
    and `lora_B` [out, r] are buffers in the base's compute dtype, outside the state dict unless `save_factors`.
    `lora_fingerprint` (uint8) is in the state dict: a checkpoint is R and the fingerprint.
    """

    adapter_layer_names = ("lora_R",)
    other_param_names = ("lora_A", "lora_B", "lora_fingerprint", "lora_dropout", "r", "lora_alpha", "scaling")

    def __init__(self, base_layer: nn.Module, module_name: str, adapter_name: str) -> None:
        """Wrap `base_layer`, of path `module_name` in the base model; `adapter_name` becomes the active adapter."""
        super().__init__()
        self.base_layer = base_layer
        self.module_name = module_name
        self.out_features, self.in_features = linear_shape(self.base)
        self.lora_R = nn.ParameterDict()
        self.lora_A = BufferDict()
        self.lora_B = BufferDict()
        self.lora_fingerprint = BufferDict(persistent=True)
        self.lora_dropout = nn.ModuleDict()
        self.r: dict[str, int] = {}
        self.lora_alpha: dict[str, float] = {}
        self.scaling: dict[str, float] = {}
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._active_adapter: list[str] = [adapter_name]
        self._recipes: dict[str, str] = {}
        self._fingerprints: dict[str, Fingerprint] = {}
        self._awaiting: set[str] = set()  # adapters whose factors a checkpoint has yet to bring

    @property
    def base(self) -> Any:
        """The innermost base layer: nn.Linear, Conv1D or a bitsandbytes layer."""
        return BaseTunerLayer.get_base_layer(self)

    def update_layer(self, adapter_name: str, config: LoraXsConfig, store: FactorStore) -> FactorReport | None:
        """Add an adapter; its report, or None where nothing was built (meta device, factors in the checkpoint).

        Raises UserError while adapters are merged, and what `build_factors` raises.
        """
        if self.merged:
            raise UserError(f"{self.module_name}: adapters are merged; unmerge them before adding {adapter_name!r}")
        r, alpha = config.rank_of(self.module_name), config.alpha_of(self.module_name)
        recipe = config.recipe(r)
        weight = self.base.weight
        device, dtype = weight.device, self._compute_dtype()
        report, R0 = None, None
        if weight.is_meta or config.factors_in_checkpoint:
            A = torch.empty(r, self.in_features, dtype=dtype, device=device)
            B = torch.empty(self.out_features, r, dtype=dtype, device=device)
            fingerprint = Fingerprint("00" * 16, (0.0, 0.0, 0.0, 0.0), recipe.json())
            if not weight.is_meta:
                self._awaiting.add(adapter_name)
        else:
            update = config.first_step(self.module_name)
            factors = build_factors(float_weight(self.base), recipe, name=self.module_name, store=store, update=update)
            A, B, R0, report = factors.A.to(dtype), factors.B.to(dtype), factors.R0, factors.report
            fingerprint = Fingerprint(factors.digest, sketch_factors(A, B), recipe.json())
            self._fingerprints[adapter_name] = fingerprint
        self.r[adapter_name], self.lora_alpha[adapter_name], self.scaling[adapter_name] = r, alpha, alpha / r
        if config.lora_dropout > 0:
            self.lora_dropout[adapter_name] = nn.Dropout(config.lora_dropout)
        R = self._first_R(r, config.init_std) if R0 is None else R0 / self.scaling[adapter_name]
        self.lora_R[adapter_name] = nn.Parameter(R.to(device=device, dtype=_master_dtype(dtype)))
        self.lora_A.register_buffer(adapter_name, A, persistent=bool(config.save_factors))
        self.lora_B.register_buffer(adapter_name, B, persistent=bool(config.save_factors))
        self.lora_fingerprint[adapter_name] = fingerprint.to_tensor().to(device)
        self._recipes[adapter_name] = recipe.json()
        BaseTunerLayer.set_adapter(self, self._active_adapter, inference_mode=config.inference_mode)
        return report

    def delete_adapter(self, adapter_name: str) -> None:
        """Forget an adapter; another becomes active if it was the active one."""
        super().delete_adapter(adapter_name)
        self._recipes.pop(adapter_name, None)
        self._fingerprints.pop(adapter_name, None)
        self._awaiting.discard(adapter_name)

    def require_factors(self, adapter_name: str) -> None:
        """Raise UserError while the adapter's factors are still to come from its checkpoint."""
        if adapter_name in self._awaiting:
            raise UserError(
                f"{self.module_name}: adapter {adapter_name!r} has no factors yet: load its checkpoint "
                "(PeftModel.from_pretrained), or set factors_in_checkpoint=False in its configuration to compute them"
            )

    def check_checkpoint(self, adapter_name: str, entries: Mapping[str, Tensor], prefix: str) -> None:
        """Raise UserError unless what `entries` holds for this adapter, under `prefix`, belongs to its factors.

        Passes where nothing is held for it. Changes nothing.
        """
        R = entries.get(f"{prefix}lora_R.{adapter_name}")
        if R is None or self.base.weight.is_meta:
            return
        rank = self.r[adapter_name]
        if tuple(R.shape) != (rank, rank):
            raise UserError(
                f"{self.module_name}: the checkpoint's R is {list(R.shape)}, the rank is {rank}; use its rank"
            )
        saved = self._saved_fingerprint(adapter_name, entries, prefix)
        if adapter_name in self._awaiting:
            A, B = self._saved_factors(adapter_name, entries, prefix)
            built = Fingerprint(saved.digest, sketch_factors(A, B), self._recipes[adapter_name])
            # A file written over a half-precision base holds rounded factors and the sketch of the exact ones.
            tolerance = max(TOLERANCE, 4 * torch.finfo(A.dtype).eps)
        else:
            A, B, built = self.lora_A[adapter_name], self.lora_B[adapter_name], self._fingerprints[adapter_name]
            tolerance = TOLERANCE
        difference = built.difference(saved, (float(A.double().norm()), float(B.double().norm())), tolerance)
        if difference is not None:
            raise UserError(f"{self.module_name}: {difference}")

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for name in self.scaling:
            self.check_checkpoint(name, state_dict, prefix)
            if name in self._awaiting and f"{prefix}lora_R.{name}" in state_dict:
                self._fingerprints[name] = self._saved_fingerprint(name, state_dict, prefix)
                self._awaiting.discard(name)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _saved_fingerprint(self, adapter_name: str, entries: Mapping[str, Tensor], prefix: str) -> Fingerprint:
        data = entries.get(f"{prefix}lora_fingerprint.{adapter_name}")
        if data is None:
            raise UserError(f"{self.module_name}: R has no lora_fingerprint beside it; save the adapter again")
        return Fingerprint.from_tensor(data, self.module_name)

    def _saved_factors(self, adapter_name: str, entries: Mapping[str, Tensor], prefix: str) -> tuple[Tensor, Tensor]:
        """A [r, in] and B [out, r] of a checkpoint that embeds them."""
        found = []
        for factor, own in (("lora_A", self.lora_A[adapter_name]), ("lora_B", self.lora_B[adapter_name])):
            saved = entries.get(f"{prefix}{factor}.{adapter_name}")
            if saved is None or saved.shape != own.shape:
                held = "no" if saved is None else f"a {list(saved.shape)}"
                raise UserError(
                    f"{self.module_name}: the configuration promises factors in the file, it holds {held} {factor} "
                    f"where {list(own.shape)} belongs; save the adapter again with save_factors=True"
                )
            found.append(saved)
        return found[0], found[1]

    def _first_R(self, r: int, std: float) -> Tensor:
        """R ~ N(0, std²), [r, r], drawn in fp32 on the CPU from torch's global generator; no draw where std is 0."""
        if std == 0 or self.base.weight.is_meta:
            return torch.zeros(r, r, device="cpu")
        return torch.randn(r, r, dtype=torch.float32, device="cpu") * std

    def _compute_dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.base.weight.dtype
        if dtype.is_floating_point:
            return dtype
        return getattr(self.base, "compute_dtype", None) or torch.float32  # bitsandbytes' 4-bit layers have one

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """PEFT's hook after loading; its own would cast R to the base's dtype."""
        if adapter_name not in self.scaling:
            return
        device = self.base.weight.device if device is None else device
        R, dtype = self.lora_R[adapter_name], self._compute_dtype()
        if not R.is_meta:
            R.data = R.data.to(device=device, dtype=_master_dtype(dtype))
        for factor in (self.lora_A, self.lora_B):
            factor.get_buffer(adapter_name).data = factor[adapter_name].to(device=device, dtype=dtype)
        self.lora_fingerprint.get_buffer(adapter_name).data = self.lora_fingerprint[adapter_name].to(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LoraXsLayer:
        """`.to`, `.half`, `.cuda` …: R keeps fp32 and its bits where the model is cast to half precision."""
        masters = {name: R.data for name, R in self.lora_R.items()}
        counted = {name for name, A in self.lora_A.items() if A.is_meta}
        super()._apply(fn, recurse)
        for name, R in self.lora_R.items():
            if R.dtype in (torch.float16, torch.bfloat16):
                R.data = masters[name].to(R.device)
        # Factors that were only counted on the meta device hold nothing once memory is given to them.
        self._awaiting |= {name for name in counted if not self.lora_A[name].is_meta}
        return self


def _master_dtype(dtype: torch.dtype) -> torch.dtype:
    """Dtype of R over a base that computes in `dtype`: never below fp32."""
    return torch.promote_types(dtype, torch.float32)


def fingerprints(model: nn.Module) -> dict[str, Tensor]:
    """The fingerprints (uint8) of all factors in `model`, by their names in its state dict."""
    return {name: buffer for name, buffer in model.named_buffers() if is_fingerprint(name)}


def is_fingerprint(name: str) -> bool:
    """Whether an entry of a state dict is a fingerprint of factors."""
    return ".lora_fingerprint." in name


def check_factors(model: nn.Module, entries: Mapping[str, Tensor]) -> None:
    """Raise UserError for the first R in `entries` whose fingerprint there is not of the factors that `model` has."""
    for name, layer in model.named_modules():
        if isinstance(layer, LoraXsLayer):
            for adapter_name in layer.scaling:
                layer.check_checkpoint(adapter_name, entries, f"{name}.")
