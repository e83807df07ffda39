"""VeRA (arXiv 2310.11454) derived again: y = W x + b + Λ_b B Λ_d A x; A and B are shared, frozen and random.

One layer of [out, in] reads the first `in` columns of A [r, in_max] and the first `out` rows of B [out_max, r].
"""

from __future__ import annotations

import torch
from torch import Tensor


def forward(x: Tensor, W: Tensor, bias: Tensor, A: Tensor, B: Tensor, d: Tensor, b: Tensor) -> Tensor:
    """x [..., in], d [r], b [out] -> [..., out], with the diagonal matrices written out."""
    out_features, in_features = W.shape
    delta = torch.diag(b) @ B[:out_features] @ torch.diag(d) @ A[:, :in_features]  # [out, in]
    return x @ W.T + bias + x @ delta.T


def gradients(x: Tensor, dy: Tensor, A: Tensor, B: Tensor, d: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """∂L/∂d_k = (Bᵀ Λ_b g Aᵀ)_kk and ∂L/∂b_i = (g Aᵀ Λ_d Bᵀ)_ii with g = Σ dy xᵀ [out, in]."""
    g = dy.reshape(-1, dy.shape[-1]).T @ x.reshape(-1, x.shape[-1])
    A, B = A[:, : g.shape[1]], B[: g.shape[0]]
    return (B.T @ torch.diag(b) @ g @ A.T).diag(), (g @ A.T @ torch.diag(d) @ B.T).diag()
