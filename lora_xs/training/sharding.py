"""What a checkpoint or an adapter needs of a model that FSDP2 has sharded: its trained tensors whole, and back again.

A sharded parameter is a DTensor. Only trained tensors are ever gathered, one at a time, and only the first process
keeps them (on the CPU); the frozen base stays where it is, and factors that are buffers are whole everywhere. Tested on
two CPU processes, through accelerate's own FSDP2 path; not run here: GPUs, `trainer.compile` of a sharded model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from lora_xs.processes import first


def layers_to_shard(model: Any) -> list[str]:
    """Names of the classes of layers that are gathered one at a time: the library's, without one that holds the input
    embedding, which accelerate shards apart; sharding a module after its parent fails."""
    embedding = model.get_input_embeddings()
    holds = {type(module).__name__ for module in model.modules() if embedding in module.modules()}
    present = {type(module).__name__ for module in model.modules()}
    return [name for name in model._no_split_modules or () if name in present - holds]


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, sharded ones gathered: whole in the first process, empty in the others, which all call this."""
    return {name: _gathered(t) if isinstance(t, DTensor) else t for name, t in tensors.items()}


def fill(tensor: Tensor, value: Tensor) -> None:
    """Copy a whole `value` into `tensor`, or each process's part of it into its shard."""
    with torch.no_grad():
        tensor.copy_(as_sharded(value, tensor))


def as_sharded(value: Tensor, like: Tensor) -> Tensor:
    """A whole `value` laid out as `like` is: every process has it and keeps its part, nothing is sent."""
    if not isinstance(like, DTensor):
        return value
    local = value.to(like.to_local().device)
    return distribute_tensor(local, like.device_mesh, like.placements, src_data_rank=None)


@contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Meanwhile the first process's `model` has whole trained parameters, on the CPU, where it had shards.

    For saving, not for computing: nothing may pass through the model. All processes enter and leave.
    """
    swapped: list[tuple[nn.Module, str, nn.Parameter]] = []
    made: dict[int, nn.Parameter] = {}  # a tied parameter stays tied
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # what an evaluation has left gathered, the first `state_dict` would shard again
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is None or not parameter.requires_grad or not isinstance(parameter, DTensor):
                continue
            if id(parameter) not in made:
                made[id(parameter)] = nn.Parameter(_gathered(parameter))
            swapped.append((module, name, parameter))
    try:
        if first():
            for module, name, parameter in swapped:
                module._parameters[name] = made[id(parameter)]
        yield
    finally:
        for module, name, parameter in swapped:
            module._parameters[name] = parameter


def _gathered(tensor: DTensor) -> Tensor:
    full = tensor.full_tensor().detach()
    return full.cpu() if first() else full.new_empty(0, device="cpu")
