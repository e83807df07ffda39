"""Inference in which each row of a batch uses its own user's adapter.

The factors are the same for all users of a bundle, so a batch needs them once, and only the small matrix differs:

    h = A x        once for the batch              [rows, tokens, r]
    g = R_row h    one product a row, r × r        [rows, tokens, r]
    y = W x + s·B g   once for the batch           [rows, tokens, out]

A plain LoRA has no such form: there each row brings an A and a B of its own, d / r times the bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from lora_xs.adapters.bundle import Bundle
from lora_xs.adapters.rowwise import Forward, Rows, rowwise_adapter, rowwise_linear
from lora_xs.adapters.trainable import PEFT_PREFIX
from lora_xs.adapters.tuner import LoraXsLayer, LoraXsModel
from lora_xs.errors import UserError

CACHE_BYTES = 256 * 2**20


def attach_bundle(base: nn.Module, bundle: Bundle, adapter_name: str = "default") -> PeftModel:
    """`base` with the bundle's factors on it and R = 0, in evaluation mode: what `PerRow` needs.

    Factors come from the store, are computed, or are read from the bundle where it embeds them. Raises UserError, as
    loading an adapter does, where the base model is not the one the bundle's users trained on.
    """
    config = replace(bundle.family.peft_config, init_std=0.0)
    config.inference_mode = True
    model = get_peft_model(base, config, adapter_name=adapter_name)
    entries = bundle.entries(None)
    _check_factors(model, adapter_name, entries)
    model.load_state_dict({f"{key}.{adapter_name}": tensor for key, tensor in entries.items()}, strict=False)
    return model.eval()


class PerRow:
    """Runs a model whose LoRA-XS layers take row i of a batch through user i's R.

        per_row = PerRow(attach_bundle(base, bundle), bundle)
        with per_row(["ada", "bob", None, "ada"]):
            model(**batch)                                   # four rows; the third without an adapter

    `model` is any PeftModel with a LoRA-XS adapter `adapter_name` on the bundle's factors; its own R is not used, the
    scale is the bundle's. Where the bundle keeps heads each row has its user's head too (heads=False: the model's own;
    a row of None always has that), as long as the head is made of nn.Linear. Users are read from the bundle when they
    first appear and kept, up to `cache_bytes` on the CPU, least recently used first to go. One thread at a time.

    Inference only: gradients are off inside, and a model in training mode is refused. Raises UserError, with the
    tuner's own words, where the model's factors are not the bundle's.
    """

    def __init__(
        self,
        model: PeftModel,
        bundle: Bundle,
        *,
        adapter_name: str = "default",
        heads: bool = True,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.model, self.bundle = model, bundle
        found = (module for module in model.modules() if isinstance(module, LoraXsLayer))
        self._layers = {layer.module_name: layer for layer in found if adapter_name in layer.scaling}
        if not self._layers:
            raise UserError(f"the model has no LoRA-XS adapter {adapter_name!r}; make it with attach_bundle")
        _check_factors(model, adapter_name, bundle.entries(None))
        for name, layer in self._layers.items():
            layer.require_factors(adapter_name)
            if "experts" in name.split("."):
                raise UserError(f"{name}: an expert sees routed tokens, not rows; leave experts out of the targets")
        self._adapter_name = adapter_name
        self._head = _head_linears(model, bundle, adapter_name) if heads and bundle.family.head else {}
        self._states = _StateCache(bundle, bool(self._head), cache_bytes)
        self._inside = False

    @property
    def cached_bytes(self) -> int:
        """Bytes of users' states held in memory at present; never above `cache_bytes`."""
        return self._states.held

    @contextmanager
    def __call__(self, users: Sequence[str | None], copies: int = 1) -> Iterator[None]:
        """Within the block, row i of every batch is `users[i]`'s; None is the base model's row.

        copies: rows that generate makes of each, one behind the other: max(num_beams, num_return_sequences). Memory:
        len(users) states on the model's device. Raises UserError for an unknown user, and within the block for a batch
        of another number of rows.
        """
        self._check_ready(users, copies)
        forwards = self._forwards(users, Rows(len(users), copies))
        previous = {module: module.__dict__.get("forward") for module in forwards}
        self._inside = True
        try:
            for module, forward in forwards.items():
                module.__dict__["forward"] = forward
            with torch.no_grad():
                yield
        finally:
            self._inside = False
            for module, former in previous.items():
                del module.__dict__["forward"]
                if former is not None:
                    module.__dict__["forward"] = former

    def _check_ready(self, users: Sequence[str | None], copies: int) -> None:
        if isinstance(users, str) or not users or copies < 1:
            raise UserError(f"users={users!r}, copies={copies}: list each row's user, and at least 1 copy")
        if self.model.training:
            raise UserError("the model is in training mode; adapters by row are for inference: call model.eval()")
        if self._inside:
            raise UserError("users are set already; leave the block of the former batch first")
        merged = [name for name, layer in self._layers.items() if layer.merged]
        if merged:
            raise UserError(f"{merged[0]}: an adapter is merged into the weight; unmerge it first")

    def _forwards(self, users: Sequence[str | None], rows: Rows) -> dict[nn.Module, Forward]:
        family = self.bundle.family
        if len(set(users)) == 1:
            users = users[:1]  # one matrix for all rows
        flat = torch.stack([self._states.R(user) for user in users])  # [rows, Σ r²]
        placed: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}
        found: dict[nn.Module, Forward] = {}
        for module in family.modules:
            layer = self._layers[module.name]
            A = layer.lora_A[self._adapter_name]
            where = (A.device, A.dtype)
            if where not in placed:
                placed[where] = family.split_R(flat.to(*where))
            R = placed[where][module.name]  # [rows, r, r]
            found[layer] = rowwise_adapter(layer, self._adapter_name, R, family.scaling(module), rows)
        return found | self._head_forwards(users, rows)

    def _head_forwards(self, users: Sequence[str | None], rows: Rows) -> dict[nn.Module, Forward]:
        if not self._head:
            return {}
        family = self.bundle.family
        found: dict[nn.Module, Forward] = {}
        own = torch.cat([parameter.detach().reshape(-1).float().cpu() for parameter in self._own_head()])
        flat = torch.stack([own if user is None else self._states.head(user) for user in users])  # [rows, entries]
        values = {tensor.key: value for tensor, value in family.split_head(flat)}
        for module, keys in self._head.items():
            held = {part: values[key].to(module.weight) for part, key in keys.items()}
            name = keys["weight"].rpartition(".")[0]
            bias = held.get("bias", None if module.bias is None else module.bias[None])
            found[module] = rowwise_linear(module, name, held["weight"], bias, rows)
        return found

    def _own_head(self) -> list[Tensor]:
        by_key = {key: getattr(module, part) for module, keys in self._head.items() for part, key in keys.items()}
        return [by_key[tensor.key] for tensor in self.bundle.family.head]


class _StateCache:
    """Users' states read from a bundle, the least recently used forgotten beyond `limit` bytes."""

    def __init__(self, bundle: Bundle, heads: bool, limit: int) -> None:
        self.bundle, self.heads, self.limit, self.held = bundle, heads, limit, 0
        self._kept: OrderedDict[tuple[str, str], Tensor] = OrderedDict()

    def R(self, user: str | None) -> Tensor:
        """[Σ r²]; zeros for None."""
        if user is None:
            return torch.zeros(self.bundle.family.R_numel, dtype=self.bundle.dtype)
        return self._get("R", user)

    def head(self, user: str) -> Tensor:
        """[entries] fp32."""
        return self._get("head", user)

    def _get(self, kind: str, user: str) -> Tensor:
        key = (kind, user)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        state = self.bundle.R(user) if kind == "R" else self.bundle.head(user)
        if state.nbytes <= self.limit:
            while self.held + state.nbytes > self.limit:
                self.held -= self._kept.popitem(last=False)[1].nbytes
            self._kept[key] = state
            self.held += state.nbytes
        return state


def _check_factors(model: PeftModel, adapter_name: str, entries: Mapping[str, Tensor]) -> None:
    """The tuner's own check of a checkpoint, changing nothing: same modules, ranks and factors, or a UserError."""
    config = model.peft_config.get(adapter_name)
    LoraXsModel._remap_adapter_state_dict_for_load(model, config, adapter_name, dict(entries))


def _head_linears(model: PeftModel, bundle: Bundle, adapter_name: str) -> dict[nn.Linear, dict[str, str]]:
    """The modules of the model that the bundle's heads belong to, with the keys of their `weight` and `bias`.

    Raises UserError where the model has no such module, of another shape, or it is no nn.Linear.
    """
    found: dict[nn.Linear, dict[str, str]] = {}
    for tensor in bundle.family.head:
        path, _, part = tensor.key.removeprefix(PEFT_PREFIX).rpartition(".")
        module: Any = model.get_base_model()
        for name in path.split("."):
            module = getattr(module, name, None)
            if isinstance(module, ModulesToSaveWrapper):
                known = adapter_name in module.modules_to_save
                module = module.modules_to_save[adapter_name] if known else module.original_module
        if type(module) is not nn.Linear or part not in ("weight", "bias"):
            raise UserError(
                f"{tensor.key}: heads by row must be linear layers of the model; use PerRow(…, heads=False)"
            )
        own = getattr(module, part)
        if own is None or tuple(own.shape) != tensor.shape:
            has = "none" if own is None else list(own.shape)
            raise UserError(
                f"{tensor.key}: the bundle's is {list(tensor.shape)}, the model's {has}; load it with its labels"
            )
        found.setdefault(module, {})[part] = tensor.key
    for keys in found.values():
        if "weight" not in keys:
            raise UserError(f"{keys['bias']}: a head of a bias without its weight; use PerRow(…, heads=False)")
    return found
