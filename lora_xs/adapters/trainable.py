"""Which parameters train, which of them are the head's, and how many there are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lora_xs.head import is_head

PEFT_PREFIX = "base_model.model."
"""What PEFT puts before the names of the model that it wraps."""


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters. `adapter` is what the papers call trainable parameters: the head is counted apart."""

    adapter: int
    head: int
    total: int

    @property
    def trainable(self) -> int:
        """Everything the optimiser changes."""
        return self.adapter + self.head


def thaw_head(model: nn.Module, head: Sequence[str]) -> None:
    """Let the head train, in fp32; over a half-precision base it takes its input in fp32 too."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in head and any(p.dtype != torch.float32 for p in module.parameters()):
            module.register_forward_pre_hook(_in_fp32)
    for name, parameter in model.named_parameters():
        if is_head(name, head):
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)


def _in_fp32(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters that require a gradient, in the model's order."""
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Detached contiguous tensors of all trainable parameters by name: what a checkpoint must hold."""
    return {name: p.detach().contiguous() for name, p in trainable(model)}


def head_state(model: nn.Module, head: Sequence[str]) -> dict[str, Tensor]:
    """The trained head's tensors by their name in the base model, e.g. `classifier.dense.weight`."""
    found = {}
    for name, parameter in trainable(model):
        if is_head(name, head):
            found[name.removeprefix(PEFT_PREFIX)] = parameter.detach().contiguous()
    return found


def count(model: nn.Module, head: Sequence[str]) -> Counts:
    """Count parameters, on the meta device too. A quantised weight counts as the numbers it stands for."""
    in_adapter = in_head = total = 0
    for name, parameter in model.named_parameters():
        total += _stands_for(parameter)
        if parameter.requires_grad:
            if is_head(name, head):
                in_head += parameter.numel()
            else:
                in_adapter += parameter.numel()
    return Counts(in_adapter, in_head, total)


def _stands_for(parameter: nn.Parameter) -> int:
    """Numbers a parameter holds: bitsandbytes packs two four-bit ones into each byte of its storage."""
    if type(parameter).__name__ != "Params4bit":  # by name, so that bitsandbytes is not imported to count
        return parameter.numel()
    state = getattr(parameter, "quant_state", None)  # None: not quantised yet, the weight is whole
    return parameter.numel() if state is None else math.prod(state.shape)
