"""LoRA-SB (arXiv 2411.19557, section 3) derived again: whole gradients by autograd, LAPACK's whole SVD, plain products.

Nothing here uses the library's own code for gradients, factors or products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor, nn


def gradients(
    model: nn.Module, names: Sequence[str], batches: Sequence[Any], loss: Callable[[nn.Module, Any], Tensor]
) -> dict[str, Tensor]:
    """Σ over batches of ∂loss/∂W [out, in] for the linear layers `names`, each weight's by autograd."""
    weights = {name: model.get_submodule(name).weight for name in names}
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for batch in batches:
        for weight in weights.values():
            weight.requires_grad_(True)
        found = torch.autograd.grad(loss(model, batch), list(weights.values()))
        for name, gradient in zip(weights, found, strict=True):
            sums[name] += gradient
    return sums


def first_step(gradient: Tensor, eta: float) -> Tensor:
    """ΔW = −η·sign(g), by AdamW itself: zero moments, no decay, eps far below any gradient."""
    weight = nn.Parameter(torch.zeros_like(gradient, dtype=torch.float64))
    weight.grad = gradient.double()
    torch.optim.AdamW([weight], lr=eta, eps=1e-300, weight_decay=0.0).step()
    return weight.detach()


def factors(delta: Tensor, r: int, s: float) -> tuple[Tensor, Tensor, Tensor]:
    """A = V_rᵀ [r, in], B = U_r [out, r], R = Σ_r / s [r, r] in fp64; the signs of the vectors are arbitrary."""
    U, S, Vh = numpy.linalg.svd(delta.detach().double().numpy(), full_matrices=False)
    return torch.from_numpy(Vh[:r].copy()), torch.from_numpy(U[:, :r].copy()), torch.diag(torch.from_numpy(S[:r])) / s


def start(W: Tensor, delta: Tensor, r: int) -> Tensor:
    """Where training starts: W + ΔW's best rank-r approximation, [out, in], fp64; no scale is left in it."""
    A, B, R = factors(delta, r, 1.0)
    return W.detach().double() + B @ R @ A
