"""A run of consecutive singular triplets with what is known of them, and its file (safetensors, checksummed)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import xxhash
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

Part = Literal["top", "middle", "bottom"]


class TruncatedSvd(NamedTuple):
    """Singular triplets, descending: `weight ≈ U @ diag(S) @ Vh`. fp32, or fp64 for an fp64 weight."""

    U: Tensor  # [m, r], orthonormal columns
    S: Tensor  # [r]
    Vh: Tensor  # [r, n], orthonormal rows


@dataclass(frozen=True)
class Window:
    """Triplets `first … first + count - 1` of a matrix's k = min(m, n) descending ones."""

    svd: TruncatedSvd
    first: int
    k: int
    sigma_1: float  # the matrix's largest singular value, whether in the window or not
    residual: float  # largest of a triplet, relative to s_1; estimated from random projections

    @property
    def count(self) -> int:
        """Number of triplets held."""
        return self.svd.S.numel()

    def slice(self, first: int, count: int) -> TruncatedSvd:
        """The triplets `first … first + count - 1`, as contiguous copies."""
        rows = slice(first - self.first, first - self.first + count)
        U, S, Vh = self.svd
        return TruncatedSvd(*(t.clone(memory_format=torch.contiguous_format) for t in (U[:, rows], S[rows], Vh[rows])))

    def gap(self, first: int, count: int) -> float | None:
        """Smallest (s_i - s_{i+1}) / s_1 at the ends of `first … first + count - 1`: how well they are set apart.

        By Davis and Kahan their subspace is known to about residual / gap. None where nothing is cut (all k triplets
        are taken) or where the neighbours across the cuts are not held.
        """
        S, low = self.svd.S.double(), first - self.first
        cuts = [cut for cut in (low, low + count) if 0 < cut < self.count]
        if not cuts:
            return None
        return min(float(S[cut - 1] - S[cut]) for cut in cuts) / self.sigma_1 if self.sigma_1 > 0 else 0.0


def part_start(part: Part, rank: int, k: int) -> int:
    """Index of the first of a part's `rank` triplets among k descending ones."""
    return {"top": 0, "middle": (k - rank) // 2, "bottom": k - rank}[part]


def tensor_digest(tensor: Tensor) -> str:
    """32 hex digits (128-bit XXH3) of a tensor's dtype, shape and bytes, whatever its strides and device.

    It tells contents apart at memory speed; it is no defence against one who crafts a collision, and need not be:
    they could write the store itself.
    """
    flat = tensor.detach().cpu().contiguous()
    digest = xxhash.xxh3_128(f"{flat.dtype} {list(flat.shape)}\n".encode())
    digest.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def encode_window(window: Window, identity: Mapping[str, Any]) -> bytes:
    """A window's file. `identity` says whose it is; `read_window` asks for the same."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in window.svd._asdict().items()}
    facts = {"first": window.first, "k": window.k, "sigma_1": window.sigma_1, "residual": window.residual}
    checks = {name: tensor_digest(tensor) for name, tensor in tensors.items()}
    entry = {"identity": dict(identity), "window": facts, "digests": checks}
    return save(tensors, metadata={"lora_xs": json.dumps(entry, sort_keys=True)})


def read_window(path: Path, identity: Mapping[str, Any]) -> Window:
    """The window of `path`, on the CPU.

    Raises FileNotFoundError where there is none, ValueError saying what is wrong where the file is not whole or not
    `identity`'s, OSError where it cannot be read.
    """
    with open(path, "rb"):  # safetensors would turn what the system says of the file into an error of its own
        pass
    try:
        with safe_open(path, framework="pt") as file:
            entry = json.loads((file.metadata() or {})["lora_xs"])
            tensors = {name: file.get_tensor(name) for name in TruncatedSvd._fields}
        window = Window(TruncatedSvd(**tensors), **entry["window"])
        found, digests = entry["identity"], entry["digests"]
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever a foreign file makes the parsers raise
        raise ValueError(f"not a stored truncation: {error!r}") from error
    if found != dict(identity):
        raise ValueError("the truncation of something else")
    if digests != {name: tensor_digest(tensor) for name, tensor in tensors.items()}:
        raise ValueError("its content is damaged")
    return window
