"""LoRA-SB's estimate of the first full fine-tuning step, for the adapted weights alone (arXiv 2411.19557, section 3).

AdamW's first step is −η·sign(G), G the gradient of the loss. A weight's G is Σ dyᵀ x over tokens, x the layer's input
and dy its output's gradient, so it is formed from those two, and the weight itself never needs a gradient: the base may
be frozen, quantised or checkpointed, and no parameter's `.grad` is touched.
"""

from __future__ import annotations

import copy
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, _maybe_include_all_linear_layers, check_target_module_exists
from torch import Tensor, nn

from lora_xs.adapters.first_step import UpdateEstimate
from lora_xs.adapters.ranks import sum_over_ranks, world
from lora_xs.adapters.tuner.config import LoraXsConfig
from lora_xs.adapters.tuner.targets import check_targets, linear_shape
from lora_xs.adapters.weight_gradients import frozen, mode, quantised_as_they_are, watched
from lora_xs.environment import peak_memory_mib
from lora_xs.errors import UserError

__all__ = ["UpdateEstimate", "estimate_update", "on_device"]

Loss = Callable[[nn.Module, Any], Tensor]


def estimate_update(
    model: nn.Module,
    config: LoraXsConfig,
    batches: Iterable[Any],
    *,
    eta: float,
    sign: bool = True,
    dropout: bool = True,
    seed: int = 0,
    loss: Loss | None = None,
) -> UpdateEstimate:
    """Estimate the first full fine-tuning step of the weights that `config` targets, before any adapter is on `model`.

        config = LoraXsConfig(r=16, lora_alpha=16, init_weights="update", target_modules=["query", "value"])
        config.update = estimate_update(model, config, batches, eta=1e-5)
        model = get_peft_model(model, config)  # starts at W + ΔW's best rank-16 approximation

    batches: what `loss(model, batch)` takes; its default is `model(**batch).loss`, tensors moved to the model's device.
    G is the sum of the losses' gradients, so a loss may carry a weight. eta: the step's rate; the paper's is
    lr / (warm-up ratio · steps). dropout: whether the model's dropout is active (training mode, as in the official
    code; without it the model is in evaluation mode, in which transformers does not checkpoint activations either).
    seed: of the dropout; a batch's masks depend on it and on the batch's position alone.

    Where torch.distributed runs, batch i is computed by process i modulo their number, and all end with the same sums.
    G is accumulated in fp32 on the CPU; per batch and layer one [out, in] matrix more is needed on a GPU. The model's
    weights, modes, `requires_grad` flags and torch's global generators are left as they were. Raises UserError where
    nothing is targeted or reached, and for a model that carries adapters.
    """
    began, before = time.perf_counter(), _memory_in_use()
    layers = _target_layers(model, config)
    gradients = {name: _zeros(layer) for name, layer in layers.items()}
    rank, ranks = world()
    count, reached = 0, True
    with ExitStack() as stack:
        stack.enter_context(frozen(model))
        stack.enter_context(mode(model, training=dropout))
        stack.enter_context(quantised_as_they_are(model))
        stack.enter_context(torch.random.fork_rng(devices=_gpus(model)))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(watched(model, layers, gradients))
        for index, batch in enumerate(batches):
            count += 1
            if index % ranks == rank:
                torch.manual_seed(_batch_seed(seed, index))
                value = (loss or _own_loss)(model, batch)
                reached = reached and value.requires_grad
                if reached:
                    value.backward()
    if count == 0:
        raise UserError("the estimate of the first step was given no batches; give at least one")
    if not reached:
        raise UserError(f"the loss does not depend on {next(iter(layers))} or any other target; check target_modules")
    sum_over_ranks(gradients)
    size = sum(gradient.nbytes for gradient in gradients.values())
    peak = max(0, int(peak_memory_mib() * 2**20) - before)
    return UpdateEstimate(gradients, eta, sign, count, time.perf_counter() - began, size, peak)


def _target_layers(model: nn.Module, config: LoraXsConfig) -> dict[str, nn.Module]:
    """The linear layers that an adapter of `config` would go to, by name."""
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise UserError("the model carries adapters; estimate the first step on the base model, before any is attached")
    own = copy.copy(config)  # PEFT writes into it
    _maybe_include_all_linear_layers(own, model)
    names = check_targets(model, own, lambda name: bool(check_target_module_exists(own, name)))
    return {name: model.get_submodule(name) for name in names}


def _zeros(layer: Any) -> Tensor:
    """The sum's start, [out, in]: fp32 on the CPU, fp64 for a layer in fp64."""
    dtype = torch.float64 if layer.weight.dtype == torch.float64 else torch.float32
    return torch.zeros(*linear_shape(layer), dtype=dtype, device="cpu")


def _own_loss(model: nn.Module, batch: Any) -> Tensor:
    """The model's own loss of a mapping of inputs, labels among them."""
    loss = model(**on_device(batch, model)).loss
    if loss is None:
        raise UserError("the model returns no loss for these batches; put `labels` into them, or give a loss")
    return loss


def on_device(batch: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """The batch with its tensors where the model's parameters lie."""
    device = next(model.parameters()).device
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}


def _gpus(model: nn.Module) -> list[int]:
    return sorted({p.device.index for p in model.parameters() if p.is_cuda and p.device.index is not None})


def _memory_in_use() -> int:
    """Bytes: allocated on the GPU where there is one, else resident in RAM."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux: only the peak so far is known
        return int(peak_memory_mib() * 2**20)


def _batch_seed(seed: int, index: int) -> int:
    return int.from_bytes(hashlib.sha256(f"update:{seed}:{index}".encode()).digest()[:8], "little") >> 1
