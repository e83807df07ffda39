"""Floating-point operations of a run: two a multiplied weight and token, forward and backward. No torch.

Every score of a row with itself is counted, also those a causal mask hides. Norms, activations, embeddings and the
optimiser are not: of the models here they are below one percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lora_xs.models.architecture import Architecture, Linear
from lora_xs.spec import RunSpec
from lora_xs.sweeps.parameters import XS, Parameters, labels_of
from lora_xs.sweeps.workload import Workload

SVD_PRODUCTS = 20
"""Products of a weight with rank + 16 vectors that its truncated SVD takes; a stored truncation takes none. Assumed."""


@dataclass(frozen=True)
class Flops:
    """Operations of one run, by what they are for."""

    training: float
    evaluation: float
    start: float
    prefill: float
    decoding: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.training + self.evaluation + self.start + self.prefill + self.decoding


def flops_of(spec: RunSpec, shape: Architecture, counts: Parameters, work: Workload) -> Flops:
    """The operations of `spec`, whose shapes, parameters and workload are given."""
    pass_ = _Pass(spec, shape, counts, unpadded=work.unpadded)
    rows = work.rows * work.epochs
    width, share = work.mean_width, work.response_share
    training = pass_.forward(work.tokens, width, share, rows) + pass_.backward(work.tokens, width, share, rows)
    if spec.trainer.gradient_checkpointing:
        training += pass_.forward(work.tokens, width, 0.0, 0.0)
    evaluation = work.evaluations * pass_.forward(work.validation, width, share, 0.0)
    tests = work.answering
    return Flops(
        training=training,
        evaluation=evaluation,
        start=_start(spec, shape, counts, work),
        prefill=sum(
            pass_.forward(test.prefill + test.scored, (test.prefill + test.scored) / test.questions, 0.0, 0.0)
            for test in tests
        ),
        decoding=sum(pass_.forward(test.steps * test.width, test.cached / test.width, 1.0, 0.0) for test in tests),
    )


def _start(spec: RunSpec, shape: Architecture, counts: Parameters, work: Workload) -> float:
    """Truncated SVDs, and LoRA-SB's estimate: every weight's gradient of a few rows."""
    if spec.method.name not in (*XS, "pissa") or spec.init.name == "random":
        return 0.0
    products = SVD_PRODUCTS * sum(2 * layer.weights for layer in counts.targets) * ((spec.rank or 0) + 16)
    linear = 2 * sum(layer.weights for layer in shape.linears())
    return float(products + 3 * linear * work.estimate_tokens)


class _Pass:
    """One way through the model, forward or backward. unpadded: see `Workload`."""

    def __init__(self, spec: RunSpec, shape: Architecture, counts: Parameters, *, unpadded: bool = False) -> None:
        self.spec, self.shape, self.counts = spec, shape, counts
        behind = shape.behind_last_attention() if unpadded else ()
        self.each = self._products([layer for layer in shape.linears() if layer not in behind])  # of a token
        self.first = self._products(behind)  # of a row's first token
        per_row = shape.head_parameters(labels_of(spec), ("classifier", "pooler"))
        self.head = 2 * per_row if shape.encoder else 0  # a row
        self.words = 0 if shape.encoder else 2 * shape.hidden_size * shape.vocab_size  # a token with logits

    def _products(self, layers: Sequence[Linear]) -> tuple[float, float]:
        """(forward, backward) of a token in these layers and their adapters."""
        method, rank = self.spec.method.name, self.spec.rank or 0
        adapted = [layer for layer in self.counts.targets if layer in layers]
        linear = 2 * sum(layer.weights for layer in layers)
        adapter = sum(2 * rank * (layer.in_features + layer.out_features) for layer in adapted)
        squares = 2 * rank**2 * len(adapted) if method in XS else 0
        trained = adapter * (2 if method in ("lora", "rslora", "pissa") else 1) + 2 * squares
        return linear + adapter + squares, (2 if method == "full_ft" else 1) * linear + trained

    def attention(self, width: float) -> float:
        """Scores and their sums of values, a token of a row of `width` tokens."""
        shape = self.shape
        return 4 * width * shape.num_attention_heads * shape.head_dim * shape.num_hidden_layers

    def forward(self, tokens: float, width: float, share: float, rows: float) -> float:
        """`tokens` in rows of `width`, a `share` of them with logits; the head on `rows`."""
        a_token = self.each[0] + self.first[0] / width + self.attention(width) + self.words * share
        return tokens * a_token + rows * self.head

    def backward(self, tokens: float, width: float, share: float, rows: float) -> float:
        """Gradients of inputs for every frozen weight, of weights too where they train."""
        if self.spec.method.name == "head_only":
            return rows * 2 * self.head
        words = self.words * share * (2 if self.spec.method.name == "full_ft" else 1)
        a_token = self.each[1] + self.first[1] / width + 2 * self.attention(width) + words
        return tokens * a_token + rows * 2 * self.head
