"""A run's peak memory on each of its devices, in bytes and plain Python: weights, optimiser, what backward keeps.

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

GATHERED = 3
"""Layers that a sharded model has whole at a time: the one at work, the next, and one's gradients. Assumed."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one device at the peak, by what they are. generation: keys and values, and the logits of a step.

    weights: while training. whole: of a model that was sharded and is put to the tests, or estimates LoRA-SB's update,
    by one process; else the same.
    """

    weights: float
    whole: float
    states: float
    activations: float
    logits: float
    generation: float
    context: float

    @property
    def peak(self) -> float:
        """The higher of training's and generation's."""
        training = self.weights + FRAGMENTS * (self.activations + self.logits)
        return max(training, self.whole + FRAGMENTS * self.generation) + self.states + self.context

    @property
    def gib(self) -> float:
        """The peak in GiB."""
        return self.peak / 2**30


def memory_of(spec: RunSpec, shape: Architecture, counts: Parameters, work: Workload, *, gpu: bool) -> Memory:
    """The memory of `spec` on a GPU or a CPU, each of them where it has several."""
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
    weights = _sharded(spec, shape, counts) if spec.trainer.sharding == "fsdp" else _weights(spec, shape, counts)
    whole = weights
    if spec.trainer.sharding == "fsdp" and (work.answering or spec.method.name == "lora_sb"):
        whole = _weights(spec, shape, counts) + _stored(spec) * counts.base / spec.trainer.processes
    return Memory(
        weights=weights,
        whole=whole,
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
    stored = _stored(spec)
    linear = sum(layer.weights for layer in shape.linears())
    a_weight = {"nf4": NF4, "int8": INT8, "none": float(stored)}[spec.model.quantization]
    weights = linear * a_weight + (counts.base - linear) * stored + counts.frozen * stored
    copies = stored == 4 and computed_bytes(spec) == 2
    return weights + (2 * linear if copies else 0)


def _sharded(spec: RunSpec, shape: Architecture, counts: Parameters) -> float:
    """A device's part of a base in full precision or half, what is gathered of it for a while, and factors, which every
    device has whole."""
    stored = _stored(spec)
    linear = sum(layer.weights for layer in shape.linears())
    a_layer = linear / shape.num_hidden_layers
    parts = stored * counts.base / spec.trainer.processes
    gathered = stored * (counts.base - linear + GATHERED * a_layer)
    copies = 2 * (a_layer if spec.trainer.gradient_checkpointing else linear)
    return parts + gathered + (copies if stored == 4 and computed_bytes(spec) == 2 else 0) + stored * counts.frozen


def _stored(spec: RunSpec) -> int:
    """Bytes of a number of the base as it is kept."""
    return 4 if spec.model.dtype == "float32" or spec.method.name == "full_ft" else 2


def _states(spec: RunSpec, counts: Parameters) -> float:
    """Gradients and AdamW's two moments in fp32, and the fp32 weights of adapters and heads themselves; a device's part
    where they are sharded. Else several processes (DDP) have the gradients again in what they send."""
    trainer = spec.trainer
    states = (12 if spec.method.name == "full_ft" else 16) * counts.trainable
    if trainer.sharding == "fsdp":
        return states / trainer.processes
    return states + (4 * counts.trainable if trainer.processes > 1 else 0)


def _generation(spec: RunSpec, shape: Architecture, work: Workload, width: int) -> float:
    if not work.answering:
        return 0.0
    a_token = 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim * width
    copies = 2 if (spec.evaluation.beams or 1) > 1 else 1  # beams change places
    return max(test.cached * a_token * copies + test.width * shape.vocab_size * 8 for test in work.answering)
