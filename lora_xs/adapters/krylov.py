"""Two fast routes to some of a matrix's singular triplets: block Krylov iteration, and eigenvectors of the Gram matrix.

Both take an fp32 matrix A [m, n] on any device and return U [m, count], S [count] descending, Vh [count, n], or None
where they are the wrong tool. `svd.py` chooses between them and checks what they return.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from scipy.linalg import eigh
from torch import Tensor

Triplets = tuple[Tensor, Tensor, Tensor]
Array = Any  # a NumPy array on the CPU, a tensor elsewhere; see `_array`

TARGET = 2e-6  # residual relative to s_1 at which the iteration stops: a fifth of the stated bound
SMALLEST = 1e-5  # triplets below this part of s_1 are left to other routes: their vectors come out of a division
BLOCK = 16  # vectors a step: a large matrix is read from memory once for all of them
CACHED = 8 * 2**20  # bytes of a matrix that stays in the cache, where one vector a step needs the fewest products
SECOND_LOOK = 8  # steps from a second start, where a step is a single vector


def krylov_triplets(A: Tensor, count: int) -> Triplets | None:
    """The `count` leading triplets, out of the span of X, (A A')X, (A A')²X, … for a random block X.

    That span holds them after far fewer products than power iteration needs, above all where the spectrum decays
    slowly (Musco & Musco 2015, arXiv 1504.05477). Of a triplet repeated more often than X has vectors it holds too few
    copies; so a single vector is followed by a second start, which brings up what is missing. None where the span
    outgrows a fair part of the whole space, as it may for flat spectra, or A's numerical rank ends before `count`.
    """
    if A.shape[0] > A.shape[1]:
        turned = krylov_triplets(A.mT, count)
        return None if turned is None else (turned[2].mT, turned[1], turned[0].mT)
    m, n = A.shape
    b = 1 if A.is_cpu and A.nbytes <= CACHED else BLOCK
    width, limit, check_at = 0, m // (3 if b == 1 else 2), 3 * count // 2 + 4 * b + 8
    rate, last = (0.3 if b == 1 else 1.0), None  # decades a step by which the residual falls: a guess, then measured
    generator = torch.Generator().manual_seed(0)  # its own: the global state stays untouched
    starts = _array(torch.randn(2, b, m, generator=generator, dtype=torch.float64).to(A))
    basis = _array(A.new_empty(limit, m))  # [width, m], orthonormal rows
    image = _array(A.new_empty(limit, n))  # [width, n] = basis @ A
    matrix = _array(A)
    ends: list[tuple[slice, Array]] = []  # blocks that A A' leads out of the basis, and the part that is outside
    block, _ = _orthonormal(starts[0], basis[:0])
    while max(width + b, check_at) <= limit:
        new = slice(width, width + b)
        width += b
        basis[new] = block
        image[new] = block @ matrix
        block, outside = _orthonormal(image[new] @ matrix.T, basis[:width])
        if width < check_at:
            continue
        wide = torch.as_tensor(image[:width]).double()
        squares, vectors = torch.linalg.eigh(product(wide, wide.mT))  # Ritz values and vectors of A A' in the basis
        theta = squares[-count:].clamp_min(0).sqrt()  # [count], ascending
        vectors = vectors[:, -count:]  # [width, count]
        if not float(theta[0]) > SMALLEST * float(theta[-1]):
            return None
        left = sum((R @ vectors[rows]).square().sum(dim=0) for rows, R in [*ends, (new, outside)])  # [count]
        residual = float((left.sqrt() / theta).max() / theta[-1])
        if residual > TARGET:
            decades = math.log10(residual / TARGET)  # still to go
            if last is not None:
                rate = max(1e-3, (last[1] - decades) * b / (width - last[0]))
            last = (width, decades)
            steps = max(1, math.ceil(decades / rate - 0.1))
            check_at = width + min(b * steps, width // 4)  # it quickens: what looks far may be near
        elif b == 1 and not ends:
            ends.append((new, outside))
            block, _ = _orthonormal(starts[1], basis[:width])
            last, check_at = None, width + SECOND_LOOK
        else:
            vectors, theta = vectors.flip(1), theta.flip(0)
            X = torch.as_tensor(basis[:width]).mT @ vectors.float()  # [m, count]
            Y = (vectors / theta).mT @ wide  # [count, n]
            return X, theta.float(), Y.float()
    return None


def gram_triplets(A: Tensor, first: int, count: int) -> Triplets:
    """Triplets `first … first + count - 1` of the descending ones, from the eigenvectors of A A' in fp64.

    Squaring costs half the digits, so fp64 leaves 1e-8 of s_1: enough down to triplets of about 1e-8 of s_1 itself.
    """
    if A.shape[0] > A.shape[1]:
        V, S, Uh = gram_triplets(A.mT, first, count)
        return Uh.mT, S, V.mT
    k = A.shape[0]
    wide = A.double().contiguous()  # [k, n]
    gram = product(wide, wide.mT)  # [k, k]
    if A.is_cpu:
        wanted = (k - first - count, k - first - 1)
        vectors = torch.from_numpy(eigh(gram.numpy(), subset_by_index=wanted, check_finite=False)[1])
    else:
        vectors = torch.linalg.eigh(gram).eigenvectors[:, k - first - count : k - first]
    # The SVD within the subspace, so that U and V are orthonormal however small the triplets are.
    Q, R = torch.linalg.qr((vectors.mT @ wide).mT)  # [n, count], [count, count]
    inner_U, S, inner_Vh = torch.linalg.svd(R.mT)
    return (vectors @ inner_U).to(A.dtype), S.to(A.dtype), (inner_Vh @ Q.mT).to(A.dtype)


def product(X: Tensor, A: Tensor) -> Tensor:
    """X @ A. On the CPU by NumPy: its BLAS is 1.2 to 1.5 times as fast on skinny products and does X X' by halves."""
    return torch.as_tensor(_array(X) @ _array(A))


def _array(tensor: Tensor) -> Array:
    """The tensor, or on the CPU a NumPy view of it: its BLAS is faster on skinny products, its calls are cheaper."""
    return tensor.numpy() if tensor.is_cpu else tensor


def _orthonormal(Z: Array, basis: Array) -> tuple[Array, Tensor]:
    """Orthonormal rows [b, m] for the part of Z [b, m] outside the basis's span, and that part's triangle [b, b]."""
    Q, R = _qr(Z - (Z @ basis.T) @ basis)  # the part is R.T @ Q
    # Once more: where the spectrum is steep, little of Z is outside, and the rounding of the rest is in Q.
    return _qr(Q - (Q @ basis.T) @ basis)[0], R.double()


def _qr(Z: Array) -> tuple[Array, Tensor]:
    """Orthonormal rows Q and an upper triangle R with Z = R.T @ Q."""
    if len(Z) == 1:  # not by LAPACK, whose call takes longer than the work
        norm = float((Z @ Z.T)[0, 0]) ** 0.5
        return Z / (norm or 1.0), torch.tensor([[norm]])
    Q, R = torch.linalg.qr(torch.as_tensor(Z).mT)
    return _array(Q.mT), R
