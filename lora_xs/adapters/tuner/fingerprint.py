"""What a checkpoint holds in place of the factors: the weight and recipe that made them, four numbers of what came out.

Stored beside every R as a uint8 tensor: 16 bytes of the weight's digest, four little-endian fp32 of the sketch, the
recipe's canonical JSON.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_xs.errors import UserError

TOLERANCE = 1e-3
"""How far a sketch may be off, relative to the factor's Frobenius norm. Rebuilding on other hardware moves factors by
1e-7 to 1e-4 (more where singular values nearly coincide); a flipped sign or a rotated pair moves them by 1e-1."""

_DIGEST_BYTES = 16
_SKETCH = struct.Struct("<4f")
_HEAD_BYTES = _DIGEST_BYTES + _SKETCH.size


@dataclass(frozen=True)
class Fingerprint:
    """The identity of one module's factors."""

    digest: str
    """32 hex digits of the base weight."""
    sketch: tuple[float, float, float, float]
    """pᵢᵀ A qᵢ for i = 0, 1 and pᵢᵀ B qᵢ for i = 2, 3, fixed vectors of ±1."""
    recipe: str
    """Canonical JSON of the recipe."""

    def to_tensor(self) -> Tensor:
        """The bytes, uint8 [n] on the CPU."""
        data = bytes.fromhex(self.digest)[:_DIGEST_BYTES] + _SKETCH.pack(*self.sketch) + self.recipe.encode()
        return torch.frombuffer(bytearray(data), dtype=torch.uint8)

    @classmethod
    def from_tensor(cls, tensor: Tensor, where: str) -> Fingerprint:
        """Read the bytes back. Raises UserError, naming `where`, when they are no fingerprint."""
        data = bytes(tensor.detach().cpu().reshape(-1).tolist()) if tensor.dtype == torch.uint8 else b""
        try:
            digest, sketch = data[:_DIGEST_BYTES], _SKETCH.unpack(data[_DIGEST_BYTES:_HEAD_BYTES])
            return cls(digest.hex(), sketch, data[_HEAD_BYTES:].decode())
        except (struct.error, UnicodeDecodeError):
            raise UserError(f"{where}: the checkpoint's fingerprint is damaged; take an intact copy") from None

    def difference(self, saved: Fingerprint, norms: tuple[float, float], tolerance: float = TOLERANCE) -> str | None:
        """What sets a checkpoint's factors apart from these, with the mend; None where they are the same.

        `norms` are the Frobenius norms of these A and B, `tolerance` is what sketches may differ by relative to them.
        """
        if saved.recipe != self.recipe:
            return (
                f"the checkpoint's factors were made by {saved.recipe}, this model's by {self.recipe}: "
                "attach the adapter with the checkpoint's settings"
            )
        if saved.digest != self.digest:
            return (
                f"the checkpoint is for another base weight (digest {saved.digest[:8]}…, not {self.digest[:8]}…): "
                "load it onto the base model it was trained on, in the same dtype, or save it with save_factors=True"
            )
        off = sketch_distance(self.sketch, saved.sketch, norms)
        if not off <= tolerance:
            return (
                f"the factors differ numerically from the checkpoint's (by {off:.1e}, tolerance {tolerance:.0e}): "
                "save the adapter with save_factors=True on the machine that trained it"
            )
        return None


def sketch_factors(A: Tensor, B: Tensor) -> tuple[float, float, float, float]:
    """Two projections of A [r, in] and two of B [out, r] onto fixed ±1 vectors, computed in fp64, rounded to fp32."""
    A, B = A.detach().cpu().double(), B.detach().cpu().double()
    values = [float(_signs(X.shape[0], 2 * i) @ X @ _signs(X.shape[1], 2 * i + 1)) for i, X in enumerate((A, A, B, B))]
    a0, a1, b0, b1 = _SKETCH.unpack(_SKETCH.pack(*values))
    return a0, a1, b0, b1


def sketch_distance(
    one: tuple[float, float, float, float], other: tuple[float, float, float, float], norms: tuple[float, float]
) -> float:
    """Largest difference of two sketches relative to the norms of A and B; infinite where a value is not finite.

    For random signs the difference has the size of ‖A − A'‖ in the Frobenius norm.
    """
    scales = (norms[0], norms[0], norms[1], norms[1])
    offs = [abs(a - b) / scale if scale > 0 else abs(a - b) for a, b, scale in zip(one, other, scales, strict=True)]
    return max(offs) if all(map(math.isfinite, offs)) else math.inf


def _signs(n: int, stream: int) -> Tensor:
    """n pseudo-random ±1 in fp64 from integer hashing alone: no library's generator may change them."""
    mask = 0xFFFFFFFF
    z = (torch.arange(1, n + 1, dtype=torch.int64, device="cpu") * 0x9E3779B1 + stream * 0x7F4A7C15) & mask
    for factor in (0x045D9F3B, 0x119DE1F3):
        z = ((z ^ (z >> 16)) * factor) & mask
    return ((z >> 15) & 1).double().mul_(2).sub_(1)
