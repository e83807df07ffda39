"""LoRA-XS (arXiv 2405.17604, section 3) derived again, unfused, in the plainest terms; and tiny models to try it on.

Nothing here uses the library's own code for factors, products or gradients.
"""

from __future__ import annotations

import numpy
import torch
from torch import Tensor, nn

ROBERTA_TARGETS = ["attention.self.query", "attention.self.value", "attention.output.dense", "output.dense"]


def factors(W: Tensor, r: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """A = Σ Vᵀ [r, in] and B = U [out, r] of the triplets from `first` on, by LAPACK in fp64; signs arbitrary."""
    U, S, Vh = numpy.linalg.svd(W.detach().double().numpy(), full_matrices=False)
    part = slice(first, first + r)
    return torch.from_numpy(numpy.diag(S[part]) @ Vh[part]), torch.from_numpy(U[:, part].copy())


def forward(x: Tensor, W: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, R: Tensor, s: float) -> Tensor:
    """y = W x + b + s·B R A x, one product after the other, for autograd to differentiate."""
    y = x @ W.T + s * (((x @ A.T) @ R.T) @ B.T)
    return y if bias is None else y + bias


def gradient_of_R(x: Tensor, dy: Tensor, A: Tensor, B: Tensor, s: float) -> Tensor:
    """dR = s·Bᵀ (Σ dy xᵀ) Aᵀ: the weight's full gradient [out, in], projected onto the factors."""
    full = dy.reshape(-1, dy.shape[-1]).T @ x.reshape(-1, x.shape[-1])  # [out, in]
    return s * B.T @ full @ A.T


def merged(W: Tensor, A: Tensor, B: Tensor, R: Tensor, s: float) -> Tensor:
    """W + s·B R A in fp64."""
    return W.double() + s * B.double() @ R.double() @ A.double()


class TwoLayers(nn.Module):
    """x [..., 12] -> `first` -> tanh -> `second` -> [..., 10]: a gradient has to pass through an adapted layer."""

    def __init__(self, dtype: torch.dtype = torch.float32, bias: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(12, 20, bias=bias, dtype=dtype)
        self.second = nn.Linear(20, 10, bias=bias, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = torch.tanh(self.first(x))
        return self.second(hidden)


def two_layers(seed: int = 0, dtype: torch.dtype = torch.float32, bias: bool = True) -> TwoLayers:
    """`TwoLayers` with weights that depend on the seed alone."""
    torch.manual_seed(seed)
    return TwoLayers(torch.float64, bias).to(dtype)


def bert(seed: int = 0) -> nn.Module:
    """A two-layer BERT classifier (hidden 32), in evaluation mode."""
    from transformers import AutoModelForSequenceClassification, BertConfig

    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=32,
    )
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_config(config).eval()


def tokens() -> Tensor:
    """Input ids [3, 7] for `bert` and the other tiny models."""
    return torch.arange(21).view(3, 7) % 50
