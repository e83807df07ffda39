"""Truncated SVD to a stated accuracy: top, middle or bottom singular triplets of one dense matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lora_xs.errors import UserError

Part = Literal["top", "middle", "bottom"]

ALGORITHM = "svd-1"  # names how factors are computed: a change of the numbers beyond the accuracy is a new name
RESIDUAL = 1e-5  # stated accuracy: |A v - s u| and |A' u - s v| of every triplet, relative to s_1
ORTHOGONALITY = 1e-5  # stated accuracy: largest entry of |U'U - 1| and |V'V - 1|


class TruncatedSvd(NamedTuple):
    """Singular triplets, descending: `weight ≈ U @ diag(S) @ Vh`. fp32, or fp64 for an fp64 weight."""

    U: Tensor  # [m, r], orthonormal columns
    S: Tensor  # [r]
    Vh: Tensor  # [r, n], orthonormal rows


class Certificate(NamedTuple):
    """How accurate a truncation is, measured on the weight itself."""

    residual: float  # largest |A v - s u| or |A' u - s v| of a triplet, relative to s_1
    orthogonality: float  # largest entry of |U'U - 1| and |V'V - 1|


@dataclass(frozen=True)
class Window:
    """Triplets `first … first + count - 1` of a matrix's k = min(m, n) descending ones, with what is known of them."""

    svd: TruncatedSvd
    first: int
    k: int
    sigma_1: float
    residual: float

    @property
    def count(self) -> int:
        """Number of triplets held."""
        return self.svd.S.numel()

    def covers(self, first: int, count: int) -> bool:
        """Whether the triplets `first … first + count - 1` are all held."""
        return self.first <= first and first + count <= self.first + self.count

    def slice(self, first: int, count: int) -> TruncatedSvd:
        """The triplets `first … first + count - 1`, as contiguous copies."""
        low, high = first - self.first, first - self.first + count
        U, S, Vh = self.svd
        return TruncatedSvd(U[:, low:high].contiguous(), S[low:high].clone(), Vh[low:high].contiguous())

    def gap(self, first: int, count: int) -> float | None:
        """Smallest gap (s_i - s_{i+1}) / s_1 at the ends of `first … first + count - 1`: how well the subspace is defined.

        None where nothing is cut (all k triplets are taken), or where the neighbour across the cut is not held.
        """
        S, low, high = self.svd.S, first - self.first, first - self.first + count
        cuts = [cut for cut in (low, high) if 0 < cut < self.count]
        if not cuts or self.sigma_1 == 0:
            return None if not cuts else 0.0
        return min(float(S[cut - 1].double() - S[cut].double()) for cut in cuts) / self.sigma_1


def truncated_svd(weight: Tensor, rank: int, part: Part = "top", *, name: str = "weight") -> TruncatedSvd:
    """The `rank` singular triplets of `weight` [m, n] that `part` names.

    "top": the largest; "bottom": the smallest; "middle": those starting at (k - rank) // 2 of the k = min(m, n).
    Every triplet's residual is at most 1e-5 of the largest singular value. Same weight, same machine: same bits.
    Raises UserError, with `name` in it, where the weight is not a finite, non-empty float matrix or the rank is out
    of range.
    """
    k = check_request(weight, rank, part, name)
    first = part_start(part, rank, k)
    return decompose(weight, first, rank, name=name).svd


def part_start(part: Part, rank: int, k: int) -> int:
    """Index of the first of `rank` triplets of a part, of k descending ones."""
    return {"top": 0, "middle": (k - rank) // 2, "bottom": k - rank}[part]


def check_request(weight: Tensor, rank: int, part: str, name: str) -> int:
    """min(m, n) of a weight that can be decomposed at this rank. Raises UserError where it cannot."""
    if weight.dim() != 2 or weight.numel() == 0:
        raise UserError(f"{name}: shape {list(weight.shape)} has no singular vectors; give a non-empty matrix [out, in]")
    if not weight.is_floating_point():
        raise UserError(f"{name}: dtype {weight.dtype} has no singular vectors; dequantise it to a float type first")
    if part not in ("top", "middle", "bottom"):
        raise UserError(f"{name}: unknown part {part!r} of the spectrum; choose top, middle or bottom")
    k = min(weight.shape)
    if not 1 <= rank <= k:
        raise UserError(f"{name}: rank {rank} is outside 1…{k}, the smaller side of {list(weight.shape)}; lower the rank")
    return k


def decompose(weight: Tensor, first: int, count: int, *, name: str = "weight") -> Window:
    """Triplets `first … first + count - 1` of `weight` [m, n], signs fixed, residual measured.

    Raises UserError for a weight that is not finite.
    """
    A, scale = _normalised(weight.detach(), name)
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    svd = _fix_signs(TruncatedSvd(U[:, first : first + count], S[first : first + count], Vh[first : first + count]))
    sigma_1 = float(S[0])
    residual = _certify(A, svd, sigma_1).residual
    return Window(svd._replace(S=svd.S * scale), first, min(A.shape), sigma_1 * scale, residual)


def certify(weight: Tensor, svd: TruncatedSvd, sigma_1: float | None = None) -> Certificate:
    """Measure a truncation of `weight` [m, n]. `sigma_1` is the weight's norm; found from the weight when not given."""
    sigma_1 = decompose(weight, 0, 1).sigma_1 if sigma_1 is None else sigma_1
    A, scale = _normalised(weight.detach(), "weight")
    return _certify(A, svd._replace(S=svd.S / scale), sigma_1 / scale)


def _certify(A: Tensor, svd: TruncatedSvd, sigma_1: float) -> Certificate:
    U, S, Vh = (part.to(A.dtype) for part in svd)
    right = (A @ Vh.mT - U * S).norm(dim=0)  # [r]
    left = (A.mT @ U - Vh.mT * S).norm(dim=0)  # [r]
    identity = torch.eye(S.numel(), dtype=S.dtype, device=S.device)
    skew = max(float((G - identity).abs().max()) for G in (U.mT @ U, Vh @ Vh.mT))
    worst = float(torch.maximum(right, left).max())
    return Certificate(worst / sigma_1 if sigma_1 > 0 else worst, skew)


def _normalised(weight: Tensor, name: str) -> tuple[Tensor, float]:
    """The weight in fp32 or fp64 and a power of two that was divided out where its size is extreme."""
    A = weight if weight.dtype == torch.float64 else weight.float()
    low, high = torch.aminmax(A)
    largest = max(abs(float(low)), abs(float(high)))
    if not math.isfinite(largest):
        raise UserError(f"{name}: the weight holds NaN or infinite values; no factors can be made of it")
    if largest == 0 or 1e-8 < largest < 1e8:
        return A, 1.0
    scale = 2.0 ** math.frexp(largest)[1]
    return A / scale, scale


def _fix_signs(svd: TruncatedSvd) -> TruncatedSvd:
    """Make every right singular vector's weighted sum positive, weights 1 + frac(i φ) with φ the golden ratio."""
    U, S, Vh = svd
    index = torch.arange(Vh.shape[1], dtype=torch.float64)
    weights = 1 + (index * ((1 + math.sqrt(5)) / 2)).frac()  # [n]
    sign = torch.where(Vh.double() @ weights.to(Vh.device) < 0, -1.0, 1.0).to(S.dtype)  # [r]
    return TruncatedSvd(U * sign, S, Vh * sign[:, None])
