"""Two fast routes to some of a matrix's singular triplets: block Krylov iteration, and eigenvectors of the Gram matrix.

Both take an fp32 matrix A [m, n] on any device and return U [m, count], S [count] descending, Vh [count, n], or None
where they are the wrong tool. `svd.py` chooses between them and checks what they return.
"""

from __future__ import annotations

import math

import torch
from scipy.linalg import eigh
from torch import Tensor

Triplets = tuple[Tensor, Tensor, Tensor]

TARGET = 2e-6  # residual relative to s_1 at which the iteration stops: a fifth of the stated bound
BLOCK = 16  # narrower blocks need fewer vectors but run at memory speed, wider ones need more vectors
SMALLEST = 1e-5  # triplets below this part of s_1 are left to other routes: their vectors come out of a division


def krylov_triplets(A: Tensor, count: int) -> Triplets | None:
    """The `count` leading triplets, out of the span of X, (A A')X, (A A')²X, … for a random block X.

    That span holds them after far fewer products than power iteration needs, above all where the spectrum decays
    slowly (Musco & Musco 2015, arXiv 1504.05477). Every basis is fully orthogonalised, so triplets that repeat up to
    BLOCK times are all found. None where the span would outgrow half of the whole space, as it does for flat spectra,
    or where A's numerical rank ends before `count`.
    """
    if A.shape[0] > A.shape[1]:
        return _transposed(krylov_triplets(A.mT, count))
    m, n = A.shape
    K, limit, check_at, last = 0, m // 2, 2 * count + 4 * BLOCK, None
    if check_at > limit:
        return None
    basis = A.new_empty(limit, m)  # [K, m], orthonormal rows
    image = A.new_empty(limit, n, dtype=torch.float64)  # [K, n] = basis @ A
    gram = A.new_empty(limit, limit, dtype=torch.float64)  # [K, K] = image @ image.T, lower triangle
    generator = torch.Generator().manual_seed(0)  # its own: the global state stays untouched
    block = torch.linalg.qr(torch.randn(BLOCK, m, generator=generator).to(A).mT).Q.mT
    while K + BLOCK <= limit:
        new = slice(K, K + BLOCK)
        K += BLOCK
        basis[new] = block
        W = _product(block, A)  # [b, n]
        image[new] = W
        gram[new, :K] = image[new] @ image[:K].mT
        Z = _product(W, A.mT)  # [b, m]
        Z -= (Z @ basis[:K].mT) @ basis[:K]
        Q, R = torch.linalg.qr(Z.mT)  # Z = R.T @ Q.T
        block = Q.mT - (Q.mT @ basis[:K].mT) @ basis[:K]  # a second pass: the first leaves what rounding puts back
        if K < check_at:
            continue
        squares, vectors = torch.linalg.eigh(gram[:K, :K])  # reads the lower triangle only
        theta = squares[-count:].flip(0).clamp_min(0).sqrt()  # [count]
        vectors = vectors[:, -count:].flip(1)  # [K, count]
        if not float(theta[-1]) > SMALLEST * float(theta[0]):
            return None
        # A A' maps all but the newest block into the basis, so the Ritz vectors' residual is what that block leaves.
        residual = float(((R.double() @ vectors[-BLOCK:]).norm(dim=0) / theta).max() / theta[0])
        if residual <= TARGET:
            X = (vectors.mT.to(A.dtype) @ basis[:K]).mT  # [m, count]
            Y = (vectors / theta).mT @ image[:K]  # [count, n]
            return X, theta.to(A.dtype), Y.to(A.dtype)
        decades = math.log10(residual / TARGET)  # still to go
        rate = 1.0 if last is None else max(1e-3, (last[1] - decades) * BLOCK / (K - last[0]))  # decades a block
        last = (K, decades)
        check_at = K + BLOCK * max(1, math.ceil(decades / rate - 0.1))
        if check_at > limit:
            return None
    return None


def gram_triplets(A: Tensor, first: int, count: int) -> Triplets:
    """Triplets `first … first + count - 1` of the descending ones, from the eigenvectors of A A' in fp64.

    Squaring costs half the digits, so fp64 leaves 1e-8 of s_1: enough down to triplets of about 1e-8 of s_1 itself.
    """
    if A.shape[0] > A.shape[1]:
        return _transposed(gram_triplets(A.mT, first, count))
    k = A.shape[0]
    wide = A.double().contiguous()  # [k, n]
    gram = _product(wide, wide.mT)  # [k, k]
    if A.is_cpu:
        wanted = (k - first - count, k - first - 1)
        vectors = torch.from_numpy(eigh(gram.numpy(), subset_by_index=wanted, check_finite=False)[1])
    else:
        vectors = torch.linalg.eigh(gram).eigenvectors[:, k - first - count : k - first]
    # The SVD within the subspace, so that U and V are orthonormal however small the triplets are.
    Q, R = torch.linalg.qr((vectors.mT @ wide).mT)  # [n, count], [count, count]
    inner_U, S, inner_Vh = torch.linalg.svd(R.mT)
    return (vectors @ inner_U).to(A.dtype), S.to(A.dtype), (inner_Vh @ Q.mT).to(A.dtype)


def _transposed(found: Triplets | None) -> Triplets | None:
    """The triplets of A' made those of A."""
    return None if found is None else (found[2].mT, found[1], found[0].mT)


def _product(X: Tensor, A: Tensor) -> Tensor:
    """X @ A: on the CPU by NumPy, whose BLAS runs skinny products 1.2 to 1.5 times as fast as torch's and halves X X'."""
    return torch.from_numpy(X.numpy() @ A.numpy()) if X.is_cpu else X @ A
