"""What one user's adapter costs to keep, from counts alone: the paper's "1 million personalised models"."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class StateSize:
    """The trained state of one user under LoRA-XS."""

    modules: int
    """Adapted linear layers."""
    rank: int
    value_bytes: int = 4
    """Bytes of a stored number: 4 in fp32, 2 in half precision."""

    @property
    def parameters(self) -> int:
        """modules · r²: the model's width is not in it."""
        return self.modules * self.rank**2

    @property
    def bytes(self) -> int:
        """Bytes of one user's R's."""
        return self.parameters * self.value_bytes


def lora_bytes(shapes: Iterable[tuple[int, int]], rank: int, value_bytes: int = 4) -> int:
    """Bytes of one user's plain LoRA, A [r, in] and B [out, r] of each layer of the given (out, in)."""
    return sum(rank * (out_features + in_features) for out_features, in_features in shapes) * value_bytes


ROBERTA_LARGE = 24 * 4
"""query, value, attention.output.dense, output.dense in 24 layers."""

MISTRAL_7B = 32 * 7
"""q, k, v, o, gate, up, down in 32 layers."""

GPT3 = 96 * 2
"""query and value in GPT-3's 96 layers (width 12,288). At rank 16 in half precision a user has 98,304 bytes = 96 KiB:
this is the setting behind the paper's 96 GB for a million users. A LoRA of the same rank, modules and precision has
144 MiB, 2 d / r = 1,536 times that. (The four attention projections at rank 8 in fp32 come to the same 96 KiB, but
their LoRA to 3,072 times that.)"""

GPT3_WIDTH = 12288

EXAMPLES: tuple[tuple[str, StateSize], ...] = (
    ("RoBERTa-large, r=4", StateSize(ROBERTA_LARGE, 4)),
    ("RoBERTa-large, r=16", StateSize(ROBERTA_LARGE, 16)),
    ("RoBERTa-large, r=25", StateSize(ROBERTA_LARGE, 25)),
    ("Mistral-7B, r=16", StateSize(MISTRAL_7B, 16)),
    ("Mistral-7B, r=64", StateSize(MISTRAL_7B, 64)),
    ("Mistral-7B, r=64, half", StateSize(MISTRAL_7B, 64, 2)),
    ("GPT-3 (q, v), r=16", StateSize(GPT3, 16)),
    ("GPT-3 (q, v), r=16, half", StateSize(GPT3, 16, 2)),
)
"""Models and settings of the paper; its own claim is the last."""
