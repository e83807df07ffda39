"""Two fast routes to some of a matrix's singular triplets: block Krylov iteration, and eigenvectors of the Gram matrix.

Both take an fp32 matrix A [m, n] on any device and return U [m, count], S [count] descending, Vh [count, n], or None
where they are the wrong tool. `svd.py` chooses between them and checks what they return.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh
from torch import Tensor

Triplets = tuple[Tensor, Tensor, Tensor]
Array = Any  # a NumPy array on the CPU, a tensor elsewhere; see `_array`

TARGET = 2e-6  # residual relative to s_1 at which the iteration stops: a fifth of the stated bound
SMALLEST = 1e-5  # triplets below this part of s_1 are left to other routes: their vectors come out of a division
BLOCK = 16  # vectors a step: a large matrix is read from memory once for all of them
CACHED = 8 * 2**20  # bytes of a matrix that stays in the cache, where one vector a step needs the fewest products
SECOND_LOOK = 6  # steps from a second start, where a step is a single vector


def krylov_triplets(A: Tensor, count: int) -> Triplets | None:
    """The `count` leading triplets, out of the span of X, (A A')X, (A A')²X, … for a random block X.

    That span holds them after far fewer products than power iteration needs, above all where the spectrum decays
    slowly (Musco & Musco 2015, arXiv 1504.05477). Of a triplet repeated more often than X has vectors it holds too few
    copies; so a single vector is followed by a second start, to see whether one is missing. None where it is, where the
    span outgrows a fair part of the whole space, as it may for flat spectra, or A's numerical rank ends before `count`.
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
    image = _array(A.new_empty(limit, n, dtype=torch.float64))  # [width, n] = basis @ A
    gram = A.new_empty(limit, limit, dtype=torch.float64)  # [width, width] = image @ image.T, lower triangle
    known = 0  # rows of it
    matrix = _array(A)
    found: Triplets | None = None
    block, _ = _orthonormal(starts[0], basis[:0])
    while max(width + b, check_at) <= limit:
        new = slice(width, width + b)
        width += b
        basis[new] = block
        W = block @ matrix  # [b, n]
        image[new] = W
        block, outside = _orthonormal(W @ matrix.T, basis[:width])
        if width < check_at:
            continue
        gram[known:width, :width] = torch.as_tensor(image[known:width] @ image[:width].T)
        known = width
        squares, vectors = torch.linalg.eigh(gram[:width, :width])  # Ritz values and vectors of A A' in the basis
        vectors, theta = vectors.flip(1)[:, :count], squares.flip(0)[:count].clamp_min(0).sqrt()  # [width, count]
        if not float(theta[-1]) > SMALLEST * float(theta[0]):
            return None
        if found is not None:  # more of the space can only raise the values, and does where one was missing
            return found if float((theta - found[1]).max()) <= TARGET * float(theta[0]) else None
        # A A' maps all of the basis but its newest block into the basis: what that leaves outside is the residual.
        residual = float(((torch.as_tensor(outside).to(vectors) @ vectors[new]).norm(dim=0) / theta).max() / theta[0])
        if residual > TARGET:
            decades = math.log10(residual / TARGET)  # still to go
            if last is not None:
                rate = max(1e-3, (last[1] - decades) * b / (width - last[0]))
            last = (width, decades)
            steps = max(1, math.ceil(decades / rate - 0.1))
            check_at = width + min(b * steps, width // 4)  # it quickens: what looks far may be near
            continue
        X = torch.as_tensor(basis[:width]).mT @ vectors.float()  # [m, count]
        Y = (vectors / theta).mT @ torch.as_tensor(image[:width])  # [count, n]
        found = X, theta.float(), Y.float()
        if b > 1:
            return found
        block, _ = _orthonormal(starts[1], basis[:width])
        check_at = width + SECOND_LOOK
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


def _orthonormal(Z: Array, basis: Array) -> tuple[Array, Array]:
    """Orthonormal rows [b, m] for the part of Z [b, m] outside the basis's span, and that part's triangle [b, b]."""
    Q, R = _qr(Z - (Z @ basis.T) @ basis)  # the part is R.T @ Q
    # Once more, over the whole basis: where the spectrum is steep, little of Z is outside, and rounding fills Q.
    return _qr(Q - (Q @ basis.T) @ basis)[0], R


def _qr(Z: Array) -> tuple[Array, Array]:
    """Orthonormal rows Q and an upper triangle R with Z = R.T @ Q."""
    if len(Z) == 1:  # not by LAPACK, whose call takes longer than the work
        norm = float(Z[0] @ Z[0]) ** 0.5
        return Z / (norm or 1.0), np.array([[norm]])
    Q, R = torch.linalg.qr(torch.as_tensor(Z).mT)
    return _array(Q.mT), R
