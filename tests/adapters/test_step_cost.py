"""What a training step costs beyond the frozen model's, counted on a whole encoder: bytes kept, operations."""

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import RobertaConfig, RobertaModel

from lora_xs import LoraXsConfig

HIDDEN, INNER, LAYERS, RANK = 32, 64, 2, 4
ROWS, LENGTH = 3, 10
TOKENS = ROWS * LENGTH
TARGETS = ["query", "value", "attention.output.dense", "output.dense"]
MODULES = [(HIDDEN, HIDDEN)] * 3 + [(HIDDEN, INNER)]  # [out, in] of a layer's


def encoder() -> RobertaModel:
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=50,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=INNER,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return RobertaModel(config, add_pooling_layer=False).requires_grad_(False).train()


def floor() -> nn.Module:
    """Nothing trains; gradients are computed from the first adapted outputs on."""
    model = encoder()
    attention = model.encoder.layer[0].attention.self
    for first in (attention.query, attention.value):
        first.register_forward_hook(lambda module, given, found: found.requires_grad_())
    return model


def lora_xs() -> nn.Module:
    config = LoraXsConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS, init_weights="random")
    return get_peft_model(encoder(), config)


def lora() -> nn.Module:
    return get_peft_model(encoder(), LoraConfig(r=RANK, target_modules=TARGETS))


def hidden(model: nn.Module) -> Tensor:
    return model(torch.arange(TOKENS).reshape(ROWS, LENGTH) + 3).last_hidden_state


def kept_bytes(model: nn.Module) -> int:
    """Bytes packed for backward, each memory once, the model's own left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.setdefault(tensor.untyped_storage().data_ptr(), tensor) is None or tensor, lambda t: t
    ):
        found = hidden(model)
    del found
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)


def operations(model: nn.Module) -> int:
    """Floating-point operations of a step's products, forward and backward."""
    in_place = {torch.ops.aten.addmm_: lambda y, a, b, **kwargs: 2 * a[0] * a[1] * b[1]}  # torch's counter has none
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        hidden(model).sum().backward()
    return counter.get_total_flops()


def test_a_module_keeps_tokens_times_r_numbers_beyond_the_frozen_model():
    assert kept_bytes(lora_xs()) - kept_bytes(floor()) <= LAYERS * len(MODULES) * TOKENS * RANK * 4


def test_lora_keeps_many_times_as_much():
    base = kept_bytes(floor())
    assert kept_bytes(lora()) - base > 5 * (kept_bytes(lora_xs()) - base)


def test_a_step_s_products_beyond_the_frozen_model_are_those_of_the_formula():
    """Forward h = A x, R h, B (R h); backward u = Bᵀ dy, dR = uᵀ h, Rᵀ u, Aᵀ (Rᵀ u); no dx before the first layer."""
    forward = sum(RANK * (n + RANK + m) for m, n in MODULES)
    backward = sum(RANK * (m + RANK + RANK + n) for m, n in MODULES)
    first = 2 * RANK * (RANK + HIDDEN)  # of query and value in the first layer, whose input needs no gradient
    expected = 2 * TOKENS * (LAYERS * (forward + backward) - first)
    assert operations(lora_xs()) - operations(floor()) == expected
