"""Truncated SVD to a stated accuracy: top, middle or bottom singular triplets of one dense matrix.

Stated, and checked before a result is returned: every triplet has |A v - s u| and |A' u - s v| at most 1e-5 s_1, and U
and V are orthonormal to 5e-6. The same weight gives the same bits on the same machine, libraries and threads.

The route is chosen by shape and by how the iteration goes: block Krylov for few leading triplets of a large matrix,
the Gram matrix in fp64 for flat spectra, small matrices and the other parts, LAPACK's full SVD for the rest.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lora_xs.adapters.krylov import Triplets, gram_triplets, krylov_triplets, product
from lora_xs.adapters.window import Part, TruncatedSvd, Window, part_start
from lora_xs.errors import UserError

__all__ = ["Certificate", "Part", "TruncatedSvd", "certify", "decompose", "truncated_svd"]

ALGORITHM = "krylov-gram-1"  # in every stored key: another way of computing factors is another name
RESIDUAL = 1e-5  # the stated bound on every triplet's residual, relative to s_1
ORTHOGONALITY = 5e-6  # the stated bound on every entry of U'U - 1 and V'V - 1
PROBES = 8  # a residual is estimated from this many random projections; see `_probed_residual`
ACCEPTED = RESIDUAL / 2  # by that estimate, which is low by half once in 50 times, by two thirds once in 1,000
KRYLOV_FROM = 384  # smaller sides, and more than a sixth of all triplets, are as fast by the Gram matrix


class Certificate(NamedTuple):
    """How accurate a truncation is, measured on the weight itself."""

    residual: float  # largest |A v - s u| or |A' u - s v| of a triplet, relative to s_1
    orthogonality: float  # largest entry of |U'U - 1| and |V'V - 1|


def truncated_svd(weight: Tensor, rank: int, part: Part = "top", *, name: str = "weight") -> TruncatedSvd:
    """The `rank` singular triplets of `weight` [m, n] that `part` names, on the weight's device.

    "top": the largest; "bottom": the smallest; "middle": those from index (k - rank) // 2 of the k = min(m, n)
    descending ones. Signs: each right vector's sum of entries, weighted as `fix_signs` states, is positive.
    Raises UserError, with `name` in it, where the weight is not a finite, non-empty float matrix or the rank is out of
    range.
    """
    k = check_request(weight, rank, part, name)
    return decompose(weight, part_start(part, rank, k), rank, name=name).svd


def certify(weight: Tensor, svd: TruncatedSvd, sigma_1: float | None = None) -> Certificate:
    """Measure a truncation of `weight` [m, n] in full, in fp64. `sigma_1`: the weight's norm, where it is known."""
    A = weight.detach().double()
    U, S, Vh = (part.double() for part in svd)
    if sigma_1 is None:
        sigma_1 = decompose(weight, 0, 1).sigma_1
    right = (A @ Vh.mT - U * S).norm(dim=0)  # [r]
    left = (A.mT @ U - Vh.mT * S).norm(dim=0)  # [r]
    return Certificate(float(torch.maximum(right, left).max()) / (sigma_1 or 1.0), _skew(U, Vh))


def check_request(weight: Tensor, rank: int, part: str, name: str) -> int:
    """min(m, n) of a weight that can be decomposed at this rank. Raises UserError where it cannot."""
    if weight.dim() != 2 or weight.numel() == 0:
        raise UserError(f"{name}: shape {list(weight.shape)} has no singular vectors; give a non-empty matrix")
    if weight.is_meta:
        raise UserError(f"{name}: the weight is on the meta device and has no values; load the model's weights first")
    if not weight.is_floating_point():
        raise UserError(f"{name}: dtype {weight.dtype} has no singular vectors; dequantise it to a float type first")
    if part not in ("top", "middle", "bottom"):
        raise UserError(f"{name}: unknown part {part!r} of the spectrum; choose top, middle or bottom")
    k = min(weight.shape)
    if not 1 <= rank <= k:
        raise UserError(f"{name}: rank {rank} is not in 1…{k}, the smaller side of {list(weight.shape)}")
    return k


@torch.no_grad()
def decompose(weight: Tensor, first: int, count: int, *, name: str = "weight") -> Window:
    """Triplets `first … first + count - 1` of `weight` [m, n], signs fixed, accuracy checked.

    Raises UserError for a weight that is not finite, RuntimeError where no route reaches the stated accuracy.
    """
    A, scale = _normalised(weight.detach(), name)
    with _full_precision(A.device):
        for route in _routes(A, first, count):
            try:
                found = route()
            except (torch.linalg.LinAlgError, np.linalg.LinAlgError):  # LAPACK gave up
                found = None
            if found is None:
                continue
            triplets, sigma_1 = found
            svd = fix_signs(TruncatedSvd(*triplets))
            residual = _probed_residual(A, svd, sigma_1)
            if residual > ACCEPTED:  # it may be the rounding of the check's own products
                residual = _probed_residual(A.double(), svd, sigma_1)
            if residual <= ACCEPTED and _skew(svd.U, svd.Vh) <= ORTHOGONALITY:
                svd = svd._replace(S=svd.S * scale)
                return Window(svd, first, min(A.shape), sigma_1 * scale, residual)
    raise RuntimeError(f"{name}: no decomposition reached a residual of {RESIDUAL:g}; report this matrix")


Route = Callable[[], tuple[Triplets, float] | None]


def _routes(A: Tensor, first: int, count: int) -> Iterator[Route]:
    """Ways to the triplets and s_1, the likely fastest first; the last ones always apply."""
    k = min(A.shape)

    def krylov() -> tuple[Triplets, float] | None:
        found = krylov_triplets(A, count)
        return None if found is None else (found, float(found[1][0]))

    def gram() -> tuple[Triplets, float]:
        found = gram_triplets(A, first, count)
        if first == 0:
            return found, float(found[1][0])
        largest = krylov_triplets(A, 1)
        return found, float(torch.linalg.matrix_norm(A, ord=2) if largest is None else largest[1][0])

    def full(dtype: torch.dtype) -> tuple[Triplets, float]:
        U, S, Vh = torch.linalg.svd(A.to(dtype), full_matrices=False)
        window = slice(first, first + count)
        return (U[:, window].to(A.dtype), S[window].to(A.dtype), Vh[window].to(A.dtype)), float(S[0])

    if A.dtype == torch.float32:
        if first == 0 and k >= max(KRYLOV_FROM, 6 * count):
            yield krylov
        if count <= k // 4:
            yield gram
        yield lambda: full(torch.float32)
    yield lambda: full(torch.float64)


def fix_signs(svd: TruncatedSvd) -> TruncatedSvd:
    """Flip each triplet so that its right vector v has a positive Σ_i v_i (1 + frac(i φ)), φ = (1 + √5) / 2.

    The weights lie in [1, 2) and repeat no pattern, so the sum is far from zero for a vector on one coordinate, for a
    zero-mean one and for a symmetric one alike, where the plain sum or the largest entry would be left to rounding. A
    perturbation of size e flips a given vector with a chance of about e.
    """
    U, S, Vh = svd
    index = torch.arange(Vh.shape[1], dtype=torch.float64)
    weights = 1 + (index * ((1 + math.sqrt(5)) / 2)).frac()  # [n]
    sign = torch.where(Vh.double() @ weights.to(Vh.device) < 0, -1.0, 1.0).to(S.dtype)  # [r]
    return TruncatedSvd(U * sign, S, Vh * sign[:, None])


@contextlib.contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """fp32 products in fp32, whatever TF32, bf16 or autocast setting the training around has chosen."""
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(chosen)


def _skew(U: Tensor, Vh: Tensor) -> float:
    """Largest entry of |U'U - 1| and |V'V - 1|."""
    one = torch.eye(U.shape[1], dtype=U.dtype, device=U.device)
    return max(float((product - one).abs().max()) for product in (U.mT @ U, Vh @ Vh.mT))


def _normalised(weight: Tensor, name: str) -> tuple[Tensor, float]:
    """The weight in fp32 or fp64, and the power of two divided out of it where its size is extreme."""
    A = weight if weight.dtype == torch.float64 else weight.float()
    low, high = torch.aminmax(A)
    largest = max(-float(low), float(high))
    if not math.isfinite(largest):
        raise UserError(f"{name}: the weight holds NaN or infinite values; check the checkpoint it was loaded from")
    if largest == 0 or 1e-3 < largest < 1e3:  # fourth powers stay well inside fp32
        return A, 1.0
    scale = 2.0 ** min(max(math.frexp(largest)[1], -126), 126)  # itself an fp32 number
    return A / scale, scale


def _probed_residual(A: Tensor, svd: TruncatedSvd, sigma_1: float) -> float:
    """Estimate of the largest |A v - s u| and |A' u - s v|, relative to s_1, from products with 2 × 8 random vectors.

    A Gaussian g has E(g·e)² = |e|², so the mean over g of (g·e)² estimates every residual e without forming any.
    """
    U, S, Vh = (part.to(A.dtype) for part in svd)
    generator = torch.Generator().manual_seed(1)
    g, h = (torch.randn(PROBES, side, generator=generator, dtype=torch.float32).to(A) for side in A.shape)
    right = product(g, A) @ Vh.mT - (g @ U) * S  # [probes, r] = g (A V - U S)
    left = product(h, A.mT) @ U - (h @ Vh.mT) * S  # [probes, r] = h (A' U - V S)
    worst = max(float(side.double().square().mean(dim=0).max()) for side in (right, left))
    return math.sqrt(worst) / (sigma_1 or 1.0)
