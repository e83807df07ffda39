"""A run's peak memory on its device, in bytes and plain Python: weights, optimiser, what the backward pass keeps.

What a layer keeps was found by watching autograd save tensors (tests/sweeps/test_cost.py repeats it): a frozen linear
layer keeps nothing, so LoRA-XS is left with what norms, activation functions and attention need.
"""

from __future__ import annotations

from dataclasses import dataclass

from lora_xs.models.architecture import Architecture
from lora_xs.spec import RunSpec
from lora_xs.sweeps.devices import numbers_of
from lora_xs.sweeps.parameters import LORA, XS, Parameters
from lora_xs.sweeps.workload import Workload

CONTEXT_GPU, CONTEXT_CPU = 0.9 * 2**30, 0.85 * 2**30
"""Bytes of the CUDA context and workspaces; of Python and its libraries, resident."""

FRAGMENTS = 1.1
"""What the allocator cannot use of what it holds, on top of activations and caches."""

NF4, INT8 = 0.53, 1.02
"""Bytes a weight with its scales."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak, by what they are. generation: keys and values, and the logits of a step."""

    weights: float
    states: float
    activations: float
    logits: float
    generation: float
    context: float

    @property
    def peak(self) -> float:
        """The higher of training's and generation's."""
        moving = max(self.activations + self.logits, self.generation)
        return self.weights + self.states + FRAGMENTS * moving + self.context

    @property
    def gib(self) -> float:
        """The peak in GiB."""
        return self.peak / 2**30


def memory_of(spec: RunSpec, shape: Architecture, counts: Parameters, work: Workload, *, gpu: bool) -> Memory:
    """The memory of `spec` on a GPU or a CPU, whose shapes, parameters and workload are given."""
    width = computed_bytes(spec)
    tokens = work.held
    if spec.method.name == "head_only":
        activations = tokens * shape.hidden_size * width * 4  # nothing is kept, but a layer works
    else:
        kept = layer_bytes(spec, shape, counts, work.longest, gpu=gpu)
        layers = shape.num_hidden_layers
        if spec.trainer.gradient_checkpointing:
            activations = tokens * (layers * shape.hidden_size * width + kept)
        else:
            activations = tokens * layers * kept
    # a language model's logits, their fp32 softmax and its gradient
    logits = 0.0 if shape.encoder else tokens * min(1.0, 1.2 * work.response_share) * shape.vocab_size * (width + 8)
    return Memory(
        weights=_weights(spec, shape, counts),
        states=_states(spec, counts),
        activations=activations,
        logits=logits,
        generation=_generation(spec, shape, work, width),
        context=CONTEXT_GPU if gpu else CONTEXT_CPU,
    )


def computed_bytes(spec: RunSpec) -> int:
    """Bytes of a number in the forward pass."""
    return 2 if numbers_of(spec) == "half precision" else 4


def layer_bytes(spec: RunSpec, shape: Architecture, counts: Parameters, length: float, *, gpu: bool) -> float:
    """Bytes that one layer keeps of one token for the backward pass. length: tokens of its row."""
    hidden, inner, width = shape.hidden_size, shape.intermediate_size, computed_bytes(spec)
    scores = length * shape.num_attention_heads
    layers = shape.num_hidden_layers
    if shape.encoder:
        kept: float = (
            width * (inner + 4 * hidden) + 4 * 2 * hidden + 2 * hidden
        )  # GELU, attention, norms, dropout's masks
        if not gpu or spec.model.attention == "eager":  # attention's dropout needs its scores there
            kept += width * (hidden + 2 * scores) + scores
        inputs = 3 * hidden + inner
    else:
        queries, keys = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
        kept = width * (3 * inner + 2 * queries + 2 * keys) + 4 * 2 * hidden  # SwiGLU, attention, norms in fp32
        if spec.model.attention == "eager":
            kept += (2 * width + 4) * scores
        inputs = 2 * hidden + inner
    method, rank = spec.method.name, spec.rank or 0
    sides = sum(layer.in_features for layer in counts.targets) / layers
    if method == "full_ft":
        kept += width * inputs + (0 if shape.encoder else 4 * 2 * hidden)
    elif method in LORA:  # each adapted layer's input for A's gradient, in fp32 a copy each over a half-precision base
        kept += 4 * sides if width == 2 else 4 * min(sides, inputs)
        kept += 4 * rank * len(counts.targets) / layers
    elif method in XS:
        kept += width * rank * len(counts.targets) / layers
    elif method == "vera":
        kept += 4 * (sum(layer.out_features for layer in counts.targets) + rank * len(counts.targets)) / layers
    return kept


def _weights(spec: RunSpec, shape: Architecture, counts: Parameters) -> float:
    """The base, an adapter's frozen factors, and what autocast keeps of fp32 weights in half precision."""
    stored = 4 if spec.model.dtype == "float32" or spec.method.name == "full_ft" else 2
    linear = sum(layer.weights for layer in shape.linears())
    a_weight = {"nf4": NF4, "int8": INT8, "none": float(stored)}[spec.model.quantization]
    weights = linear * a_weight + (counts.base - linear) * stored + counts.frozen * stored
    copies = stored == 4 and computed_bytes(spec) == 2
    return weights + (2 * linear if copies else 0)


def _states(spec: RunSpec, counts: Parameters) -> float:
    """Gradients and AdamW's two moments in fp32, and the fp32 weights of adapters and heads themselves."""
    moments = 12 * counts.trainable
    return moments + (0 if spec.method.name == "full_ft" else 4 * counts.trainable)


def _generation(spec: RunSpec, shape: Architecture, work: Workload, width: int) -> float:
    if not work.answering:
        return 0.0
    a_token = 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim * width
    copies = 2 if (spec.evaluation.beams or 1) > 1 else 1  # beams change places
    return max(test.cached * a_token * copies + test.width * shape.vocab_size * 8 for test in work.answering)
