"""LoraXsModel: LoRA-XS as a PEFT tuner, and what PEFT would let pass in silence made an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, _maybe_include_all_linear_layers
from torch import Tensor, nn

from lora_xs.adapters.factors import FactorReport
from lora_xs.adapters.store import FactorStore
from lora_xs.adapters.trainable import PEFT_PREFIX
from lora_xs.adapters.tuner.config import LoraXsConfig
from lora_xs.adapters.tuner.layer import LoraXsLayer
from lora_xs.adapters.tuner.linear import LoraXsLinear
from lora_xs.adapters.tuner.targets import check_targets
from lora_xs.errors import UserError

PREFIX = "lora_"


class LoraXsModel(BaseTuner):
    """A model whose targeted linear layers carry LoRA-XS adapters. Made by `peft.get_peft_model`.

    Raises UserError, before anything is changed, where no module matches, a rank is above a dimension, or a matched
    module is not a linear layer.
    """

    prefix: str = PREFIX
    tuner_layer_cls = LoraXsLayer
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    @property
    def factor_reports(self) -> dict[str, dict[str, FactorReport]]:
        """By adapter and module: residual, singular gap, warning, seconds, and whether the store had the factors."""
        reports: dict[str, dict[str, FactorReport]] = self.__dict__.setdefault("_factor_reports", {})
        return reports

    @property
    def _ddp_params_and_buffers_to_ignore(self) -> list[str]:
        """Read by DistributedDataParallel, which would otherwise broadcast the frozen factors at every forward.

        Names as seen from a PeftModel and from this model, whichever is wrapped.
        """
        buffers = [
            f"{layer_name}.{holder}.{name}"
            for layer_name, layer in self.model.named_modules()
            if isinstance(layer, LoraXsLayer)
            for holder in ("lora_A", "lora_B", "lora_fingerprint")
            for name in getattr(layer, holder)
        ]
        ignored = buffers + list(getattr(self.model, "_ddp_params_and_buffers_to_ignore", ()))
        return [prefix + name for prefix in (PEFT_PREFIX, "model.") for name in ignored]

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter and its reports."""
        super().delete_adapter(adapter_name)
        self.factor_reports.pop(adapter_name, None)

    def _prepare_adapter_config(self, peft_config: LoraXsConfig, model_config: dict[str, Any]) -> LoraXsConfig:
        if not peft_config.target_modules:
            raise UserError("target_modules is empty; name the linear modules to adapt, for example ['query', 'value']")
        return peft_config

    def _prepare_model(self, peft_config: LoraXsConfig, model: nn.Module) -> None:
        adapter_name = next(name for name, config in self.peft_config.items() if config is peft_config)
        if "." in adapter_name:
            raise UserError(f"adapter name {adapter_name!r} has a dot, which separates modules in a path; leave it out")
        _maybe_include_all_linear_layers(peft_config, model)
        check_targets(model, peft_config, lambda name: bool(self._check_target_module_exists(peft_config, name)))
        self._store = FactorStore()

    def _create_and_replace(
        self,
        peft_config: LoraXsConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        layer = target
        if not isinstance(layer, LoraXsLinear):
            layer = LoraXsLinear(target, current_key, adapter_name)
        report = layer.update_layer(adapter_name, peft_config, self._store)
        if report is not None:
            self.factor_reports.setdefault(adapter_name, {})[current_key] = report
        setattr(parent, target_name, layer)

    def _post_injection_hook(self, model: nn.Module, config: LoraXsConfig, adapter_name: str) -> None:
        config.update = None  # its gradients went into the factors

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Nothing to cast: R is fp32 already, and A and B belong in the dtype of the base's products."""

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Called around every forward of a PeftModel, which drops `adapter_names` unread where a tuner ignores it."""
        if kwargs.get("adapter_names") is not None:
            raise UserError("adapter_names is not supported: split the batch by adapter and use set_adapter")
        yield

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """PEFT's hook before it loads a checkpoint, non-strictly: here the checkpoint is checked as a whole."""
        entries: dict[str, Tensor] = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        if not any(key.rpartition(".")[2] == "lora_R" for key in state_dict):
            raise UserError(
                f"adapter {adapter_name!r}: the checkpoint holds no lora_R, so it is not of LoRA-XS "
                f"(it holds {', '.join(sorted(state_dict)[:2]) or 'nothing'}); give a LoRA-XS adapter"
            )
        layers = {
            name.replace("_fsdp_wrapped_module.", ""): module
            for name, module in model.named_modules()
            if isinstance(module, LoraXsLayer) and adapter_name in module.scaling
        }
        missing = [
            layer.module_name for name, layer in layers.items() if f"{name}.lora_R.{adapter_name}" not in entries
        ]
        if missing:
            raise UserError(
                f"adapter {adapter_name!r}: the checkpoint has no R for {len(missing)} of {len(layers)} modules, "
                f"for example {missing[0]}; attach the adapter with the checkpoint's target_modules"
            )
        unplaced = [key for key in entries if key.rpartition(".")[2] == "lora_R"]
        if unplaced:
            raise UserError(
                f"adapter {adapter_name!r}: the checkpoint adapts {len(unplaced)} modules that this model does not, "
                f"for example {unplaced[0].removesuffix('.lora_R')}; load it onto the model it was trained on"
            )
        for name, layer in layers.items():
            layer.check_checkpoint(adapter_name, entries, f"{name}.")
        return entries
