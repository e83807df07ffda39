"""Sums over the processes of a run, and values that all of them must share bit for bit; alone, nothing happens."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch import distributed as dist


def world() -> tuple[int, int]:
    """(this process's number, how many there are); (0, 1) outside torch.distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def sum_over_ranks(tensors: Mapping[str, Tensor]) -> None:
    """Replace each tensor by its sum over all processes, one at a time; every process ends with the same bits."""
    if world()[1] == 1:
        return
    for name in sorted(tensors):  # the same order everywhere
        shared = _on_wire(tensors[name])
        dist.all_reduce(shared)
        tensors[name].copy_(shared)


def from_first_rank(tensor: Tensor) -> Tensor:
    """Process 0's copy of `tensor`, on the tensor's own device: what is computed twice may differ in its last bit."""
    if world()[1] == 1:
        return tensor
    shared = _on_wire(tensor.contiguous())
    dist.broadcast(shared, src=0)
    return shared.to(tensor.device)


def share_start(model: nn.Module) -> None:
    """Give every process the first one's trainable parameters and buffers (the frozen factors), bit for bit.

    On machines of different kinds the same decomposition may differ in its last bit.
    """
    if world()[1] == 1:
        return
    for tensor in (*(p for p in model.parameters() if p.requires_grad), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data.copy_(from_first_rank(tensor.data))


def _on_wire(tensor: Tensor) -> Tensor:
    """The tensor where the backend can reach it: NCCL knows GPUs only."""
    return tensor.to(torch.device("cuda", torch.cuda.current_device())) if dist.get_backend() == "nccl" else tensor
