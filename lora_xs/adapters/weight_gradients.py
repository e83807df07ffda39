"""Weight gradients of layers that do not train: dyᵀ x, where a layer's input x and its output's gradient dy meet.

The contexts here are what a backward pass needs that must leave a model as it was: LoRA-SB's estimate is made inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable


@contextmanager
def watched(model: nn.Module, layers: Mapping[str, nn.Module], gradients: Mapping[str, Tensor]) -> Iterator[None]:
    """Hooks on the targets alone that add each one's dyᵀ x to its sum; gone when the block ends."""
    root = torch.zeros((), requires_grad=True)
    handles = []

    def watch(total: Tensor) -> Callable[..., Tensor]:
        def add(dy: Tensor, x: Tensor) -> None:
            g = dy.reshape(-1, dy.shape[-1]).to(total.dtype)  # [tokens, out]
            h = x.reshape(-1, x.shape[-1]).to(total.dtype)  # [tokens, in]
            total.addmm_(g.t(), h) if g.device == total.device else total.add_((g.t() @ h).to(total.device))

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y: Tensor) -> Tensor:
            x = args[0] if args else next(iter(kwargs.values()))
            return _Watch.apply(y, x.detach(), root, add)

        return hook

    try:
        for name, layer in layers.items():
            handles.append(layer.register_forward_hook(watch(gradients[name]), with_kwargs=True))
        if getattr(model, "is_activation_checkpointing", False):
            embeddings: nn.Module = cast(Any, model).get_input_embeddings()
            handles.append(embeddings.register_forward_hook(lambda _, args, y: _Root.apply(y, root)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient meanwhile: none is computed, none is kept."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Training or evaluation mode meanwhile; each module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train(training)
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def quantised_as_they_are(model: nn.Module) -> Iterator[None]:
    """Leave bitsandbytes layers as they are.

    A first product takes the scales from an int8 layer's weight, and a later `.to`, as the trainer's, loses them:
    undone afterwards. On a CPU with bf16 instructions a product outside training stores a four-bit layer anew, rounded
    (as `models.quantised.keep_as_loaded` says): forbidden meanwhile.
    """
    layers: list[Any] = [m for m in model.modules() if getattr(getattr(m, "weight", None), "CB", None) is not None]
    storing: list[Any] = [m for m in model.modules() if getattr(m, "support_avx512bf16_for_cpu", False)]
    for layer in storing:
        layer.support_avx512bf16_for_cpu = False
    try:
        yield
    finally:
        for layer in storing:
            layer.support_avx512bf16_for_cpu = True
        for layer in layers:
            if layer.weight.CB is None and layer.state.CB is not None:
                layer.weight.CB, layer.weight.SCB = layer.state.CB, layer.state.SCB
                layer.state.CB = layer.state.SCB = None


class _Watch(Function):
    """y as it is, whose gradient dy meets the layer's input x on its way back.

    x is saved the way autograd saves tensors, not in a closure: under activation checkpointing it is dropped and comes
    from the recomputed forward, and a forward that is recomputed still counts once. `root` requires a gradient and
    never gets one: it makes a graph where nothing trains.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, root: Tensor, add: Callable[[Tensor, Tensor], None]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.add = add
        return y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        ctx.add(dy, x)
        return dy, None, None, None


class _Root(Function):
    """y as it is, with a gradient to be had: reentrant checkpointing builds no graph from inputs without one."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, root: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, None]:
        return None, None
