"""LoRA and rsLoRA (arXiv 2312.03732) derived again: y = W x + b + s·B A x with s = alpha / r or alpha / √r."""

from __future__ import annotations

import math

from torch import Tensor


def scale(alpha: float, r: int, rank_stabilised: bool) -> float:
    """s: rsLoRA's keeps the size of the product the same at every rank."""
    return alpha / math.sqrt(r) if rank_stabilised else alpha / r


def forward(x: Tensor, W: Tensor, bias: Tensor, A: Tensor, B: Tensor, s: float) -> Tensor:
    """x [..., in], A [r, in], B [out, r] -> [..., out], one product after the other."""
    return x @ W.T + bias + s * ((x @ A.T) @ B.T)


def gradients(x: Tensor, dy: Tensor, A: Tensor, B: Tensor, s: float) -> tuple[Tensor, Tensor]:
    """dA = s·Bᵀ g and dB = s·g Aᵀ with g = Σ dy xᵀ [out, in], the weight's full gradient."""
    g = dy.reshape(-1, dy.shape[-1]).T @ x.reshape(-1, x.shape[-1])
    return s * B.T @ g, s * g @ A.T
