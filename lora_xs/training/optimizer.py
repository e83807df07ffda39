"""AdamW with the adapter's and the head's learning rates, and the schedules the papers use."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from lora_xs.adapters.trainable import trainable
from lora_xs.head import is_head
from lora_xs.spec.sections import TrainerSpec


def parameter_groups(model: nn.Module, trainer: TrainerSpec, head: tuple[str, ...]) -> list[dict[str, object]]:
    """Up to four groups: adapter and head, each with and without weight decay (vectors never decay).

    `head_learning_rate` of None gives the head the adapter's rate.
    """
    sorted_out: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in trainable(model):
        sorted_out.setdefault((is_head(name, head), parameter.ndim >= 2), []).append(parameter)
    head_rate = trainer.learning_rate if trainer.head_learning_rate is None else trainer.head_learning_rate
    return [
        {
            "params": parameters,
            "lr": head_rate if in_head else trainer.learning_rate,
            "weight_decay": trainer.weight_decay if decays else 0.0,
            "name": f"{'head' if in_head else 'adapter'}{'' if decays else ' (no decay)'}",
        }
        for (in_head, decays), parameters in sorted(sorted_out.items(), key=lambda item: item[0])
    ]


def build_optimizer(model: nn.Module, trainer: TrainerSpec, head: tuple[str, ...]) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`; the fused kernel where the parameters lie on a GPU."""
    groups = parameter_groups(model, trainer, head)
    on_gpu = all(p.is_cuda for _, p in trainable(model))
    return torch.optim.AdamW(groups, betas=trainer.betas, eps=trainer.eps, fused=on_gpu or None)


def build_schedule(optimizer: torch.optim.Optimizer, trainer: TrainerSpec, steps: int) -> LRScheduler:
    """Linear warm-up over `warmup_steps`, else ⌈ratio · steps⌉, then linear or cosine decay to zero, or a constant
    rate."""
    from transformers import get_scheduler

    name = "constant_with_warmup" if trainer.schedule == "constant" else trainer.schedule
    ratio = math.ceil(trainer.warmup_ratio * steps)
    warmup = ratio if trainer.warmup_steps is None else trainer.warmup_steps
    return get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
