"""Content-addressed store of truncated SVDs on disk: each weight is decomposed once on a machine."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash
from torch import Tensor

from lora_xs.adapters.svd import Part, TruncatedSvd, check_request, decompose, part_start

logger = logging.getLogger(__name__)

BUCKET = 32
NEAR_DEGENERATE = 1e-5


@dataclass(frozen=True)
class StoredTruncation:
    """A truncation and what a record wants to know of it."""

    svd: TruncatedSvd
    digest: str  # of the weight
    residual: float  # relative to s_1
    gap: float | None  # relative to s_1, at this rank's cut; None where nothing is cut
    warning: str | None  # where the gap is too small for the subspace to be well defined
    cached: bool
    seconds: float


def weight_digest(weight: Tensor) -> str:
    """32 hex digits (128-bit XXH3) of a tensor's dtype, shape and bytes, whatever its strides or device."""
    flat = weight.detach().cpu().contiguous()
    digest = xxhash.xxh3_128(f"{flat.dtype} {list(flat.shape)}\n".encode())
    digest.update(flat.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class FactorStore:
    """Truncations by weight digest, part and algorithm."""

    def __init__(self, root: Path | None = None, max_bytes: int | None = None) -> None:
        self.root = root
        self.max_bytes = max_bytes

    @classmethod
    def disabled(cls) -> FactorStore:
        """A store that computes every truncation and keeps none."""
        return cls()

    def truncation(self, weight: Tensor, rank: int, part: Part = "top", *, name: str = "weight") -> StoredTruncation:
        """The truncation of `weight` [m, n] at `rank`, from the store where it holds it."""
        began = time.perf_counter()
        k = check_request(weight, rank, part, name)
        first = part_start(part, rank, k)
        low, high = max(first - 1, 0), min(first + rank + 1, k)
        window = decompose(weight, low, high - low, name=name)
        gap = window.gap(first, rank)
        warning = None
        if gap is not None and gap < NEAR_DEGENERATE:
            warning = f"{name}: singular values are near-degenerate at the cut (gap {gap:.1e} of the largest)"
        return StoredTruncation(
            window.slice(first, rank), weight_digest(weight), window.residual, gap, warning, False,
            time.perf_counter() - began,
        )
