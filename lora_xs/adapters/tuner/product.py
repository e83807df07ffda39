"""The adapted product y = W x + b + s·B R (A x): forward and backward in one function that keeps A x and nothing else.

A frozen linear layer keeps nothing of its input for backward, and R's gradient needs only h = A x, [tokens, r]:
dR = s·(Bᵀ dy)ᵀ h and dx = Wᵀ dy + s·Aᵀ Rᵀ Bᵀ dy. Autograd on the unfused formula would keep B's and R's inputs as well.
A and B hang on the context instead of being saved: they are constants, so hooks that count, pack or offload what is
kept see only W, R and h.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.nn.functional import linear


class Frozen(NamedTuple):
    """What does not train in the product: W [out, in], bias [out], A [r, in], B [out, r] and the scale s."""

    W: Tensor
    bias: Tensor | None
    A: Tensor
    B: Tensor
    s: float


def adapted_linear(x: Tensor, R: Tensor, frozen: Frozen) -> Tensor:
    """W x + bias + s·B R A x over a frozen base, the adapter accumulated into the base product in place.

    x [..., in], R [r, r] -> [..., out] in x's dtype. Gradients go to x and R only. Operands of another dtype are cast
    to x's; R's gradient is computed in R's own dtype.
    """
    y: Tensor = _AdaptedLinear.apply(x, R, frozen)
    return y


def add_adapter(y: Tensor, x: Tensor, A: Tensor, B: Tensor, R: Tensor, s: float) -> Tensor:
    """y + s·B R A x over any base whose output is y [..., out], in y's dtype; shapes as in `adapted_linear`.

    Gradients go to y, x and R; only A x is kept.
    """
    out: Tensor = _AddAdapter.apply(y, x, A, B, R, s)
    return out


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype autocast gives to products on x's device, None where it is off."""
    if x.is_meta:
        return None
    device_type = x.device.type
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """A context in which products on x's device keep the dtype of their operands."""
    return nullcontext() if autocast_dtype(x) is None else torch.autocast(x.device.type, enabled=False)


class _AdaptedLinear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, R: Tensor, frozen: Frozen) -> Tensor:
        W, bias, A, B, s = frozen
        shape, dtype = x.shape, x.dtype
        rows = x if len(shape) == 2 else x.reshape(-1, shape[-1])  # [tokens, in]
        y = linear(rows, _as(W, dtype), None if bias is None else _as(bias, dtype))  # [tokens, out]
        h = linear(rows, _as(A, dtype))  # [tokens, r]
        y.addmm_(linear(h, _as(R, dtype)), _as(B, dtype).t(), alpha=s)
        ctx.save_for_backward(W, R, h if ctx.needs_input_grad[1] else None)
        ctx.A, ctx.B, ctx.s, ctx.x_shape = A, B, s, shape
        return y if len(shape) == 2 else y.view(*shape[:-1], W.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        with without_autocast(dy):
            return _gradients(ctx, dy)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    W, R, h = ctx.saved_tensors
    shape, dtype, s = ctx.x_shape, dy.dtype, ctx.s
    g = dy if len(shape) == 2 else dy.reshape(-1, dy.shape[-1])  # [tokens, out]
    u = g.mm(_as(ctx.B, dtype))  # [tokens, r]
    dR = None if h is None else _core_gradient(u, h, R, s)
    if not ctx.needs_input_grad[0]:
        return None, dR, None
    dx = g.mm(_as(W, dtype))  # [tokens, in]
    dx.addmm_(u.mm(_as(R, dtype)), _as(ctx.A, dtype), alpha=s)
    return dx if len(shape) == 2 else dx.view(shape), dR, None


class _AddAdapter(Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, A: Tensor, B: Tensor, R: Tensor, s: float) -> Tensor:
        dtype = y.dtype
        with without_autocast(y):
            h = linear(_as(x.reshape(-1, x.shape[-1]), dtype), _as(A, dtype))  # [tokens, r]
            rows = y.reshape(-1, y.shape[-1])  # [tokens, out]
            out = torch.addmm(rows, linear(h, _as(R, dtype)), _as(B, dtype).t(), alpha=s)
        ctx.save_for_backward(R, h if ctx.needs_input_grad[4] else None)
        ctx.A, ctx.B, ctx.s, ctx.x_shape, ctx.x_dtype = A, B, s, x.shape, x.dtype
        return out.view(y.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        R, h = ctx.saved_tensors
        with without_autocast(dy):
            g = dy.reshape(-1, dy.shape[-1])  # [tokens, out]
            u = g.mm(_as(ctx.B, g.dtype))  # [tokens, r]
            dR = None if h is None else _core_gradient(u, h, R, ctx.s)
            dx = None
            if ctx.needs_input_grad[1]:
                dx = u.mm(_as(R, u.dtype)).mul_(ctx.s).mm(_as(ctx.A, u.dtype))  # [tokens, in]
                dx = _as(dx.view(ctx.x_shape), ctx.x_dtype)
        return dy, dx, None, None, dR, None


def _core_gradient(u: Tensor, h: Tensor, R: Tensor, s: float) -> Tensor:
    """dR = s·uᵀ h [r, r] in R's dtype, u = dy B [tokens, r]: a half-precision sum over tokens loses small terms."""
    return torch.addmm(R, _as(u, R.dtype).t(), _as(h, R.dtype), beta=0, alpha=s)


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)
