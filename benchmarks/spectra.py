"""Matrices with known singular vectors and the decay of real weights: what the factors' time depends on.

`spectra.json` holds the singular values of MiniLM's adapted weights (side 384), measured. A larger matrix gets the same
values at the same index for the leading quarter, and the rest stretched: SmolLM2's weights (side 576) start like
MiniLM's at the same index, not at the same fraction of the side (σ_25 / σ_1 of queries: 0.60 and 0.54 on average; of
attention outputs: 0.67 and 0.67).
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

LAYERS = 6  # of MiniLM
ALIKE = 96  # leading values taken as they are


class Known(NamedTuple):
    """A matrix [m, n], m ≤ n, fp32, and its leading right singular vectors [up to 128, n], fp64."""

    matrix: Tensor
    V: Tensor


def like_minilm(kind: str, m: int, n: int, seed: int) -> Known:
    """A matrix with the decay of a `kind` of MiniLM's weights ("query", "value", "attention_output", "output")."""
    return rotated(stretched(kind, seed % LAYERS, min(m, n)), m, n, seed)


def power_law(m: int, n: int, exponent: float, seed: int = 0) -> Known:
    """A matrix with singular values i^-exponent."""
    return rotated(torch.arange(1, min(m, n) + 1, dtype=torch.float64) ** -exponent, m, n, seed)


def stretched(kind: str, layer: int, count: int) -> Tensor:
    """`count` singular values, the largest 1, of MiniLM's layer: as they are up to ALIKE, then read at even steps."""
    index, values = _measured()["index"], _measured()[kind][layer]
    head = torch.arange(min(ALIKE, count), dtype=torch.float64)
    tail = torch.linspace(ALIKE, index[-1], count - len(head), dtype=torch.float64)
    knots, heights = torch.tensor(index, dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
    place = torch.cat([head, tail])
    right = torch.searchsorted(knots, place).clamp(1, len(index) - 1)
    share = (place - knots[right - 1]) / (knots[right] - knots[right - 1])
    return heights[right - 1] * (1 - share) + heights[right] * share


def rotated(values: Tensor, m: int, n: int, seed: int) -> Known:
    """A matrix [m, n], m ≤ n, with these singular values [m] and random singular vectors."""
    left, right = _rotation(m, 2 * seed + 1), _rotation(n, 2 * seed + 2)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:m]
    rows = right[0].shape[0], right[1].shape[0]
    V = (right[0][:, order // rows[1]][:, None] * right[1][:, order % rows[1]][None]).reshape(n, m)  # [n, m]
    scaled = (V * values).mT.float().reshape(left[0].shape[0], left[1].shape[0], n)  # [m1, m2, n]
    turned = torch.einsum("ab,bcn->acn", left[0].float(), scaled)
    matrix = torch.matmul(left[1].float(), turned).reshape(m, n)
    return Known(matrix, V[:, :128].mT.contiguous())


def sine(exact: Tensor, found: Tensor) -> float:
    """Sine of the largest principal angle between the spans of two sets of orthonormal rows [r, n]."""
    found = found.double()
    return float(torch.linalg.matrix_norm(exact - (exact @ found.mT) @ found, ord=2))


@cache
def _measured() -> dict[str, list]:
    return json.loads(Path(__file__).with_suffix(".json").read_text())


def _rotation(side: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two orthogonal matrices whose Kronecker product is a random rotation of `side` dimensions, cheap to apply."""
    inner = next(d for d in range(int(side**0.5), 0, -1) if side % d == 0)
    generator = torch.Generator().manual_seed(seed)
    one, other = (torch.randn(d, d, generator=generator, dtype=torch.float64) for d in (side // inner, inner))
    return torch.linalg.qr(one).Q, torch.linalg.qr(other).Q
