"""A frozen encoder of RoBERTa-large's shape and what can be trained in it: the sides of the questions about steps.

All sides of a question share one model's frozen weights, so that no side has them in a luckier place of memory.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import RobertaConfig, RobertaForSequenceClassification

from lora_xs import LoraXsConfig

TARGETS = ["attention.self.query", "attention.self.value", "attention.output.dense", "output.dense"]
LONG, SHORT = (8, 128), (32, 16)


@dataclass(frozen=True)
class Arm:
    """A model, a batch, and AdamW over what trains: only the head where nothing else does."""

    model: nn.Module
    ids: Tensor  # [rows, tokens]
    labels: Tensor  # [rows]
    optimizer: torch.optim.Optimizer

    def step(self) -> None:
        """A training step: forward, backward, update."""
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def loss(self) -> Tensor:
        """The forward pass."""
        return self.model(input_ids=self.ids, labels=self.labels).loss

    def kept_bytes(self) -> int:
        """Bytes that a forward pass keeps for backward, each memory once, the model's own left out."""
        own = {tensor.untyped_storage().data_ptr() for tensor in (*self.model.parameters(), *self.model.buffers())}
        kept: dict[int, Tensor] = {}

        def pack(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self.loss()
        del loss
        return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)


def encoder(layers: int = 4) -> RobertaForSequenceClassification:
    """RoBERTa-large's shape with random weights, frozen but for its head, no dropout, a small vocabulary."""
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=1000,
        hidden_size=1024,
        num_hidden_layers=layers,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=514,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = RobertaForSequenceClassification(config).train()
    model.roberta.requires_grad_(False)
    return model


def twin(model: RobertaForSequenceClassification) -> RobertaForSequenceClassification:
    """The same modules anew over the same parameters."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in model.parameters()})


def floor(model: RobertaForSequenceClassification) -> nn.Module:
    """Nothing trains below the head, yet gradients reach the first adapted layer: no adapter can cost less."""
    model = twin(model)

    def start(module: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> Tensor:
        return found.requires_grad_() if torch.is_grad_enabled() else found

    attention = model.roberta.encoder.layer[0].attention.self
    for first in (attention.query, attention.value):
        first.register_forward_hook(start)
    return model


def ours(model: RobertaForSequenceClassification, r: int = 16) -> nn.Module:
    """LoRA-XS with random factors, which cost in a step what others do."""
    config = LoraXsConfig(r=r, lora_alpha=r, target_modules=TARGETS, init_weights="random")
    return with_head(get_peft_model(twin(model), config))


def lora(model: RobertaForSequenceClassification, r: int = 16) -> nn.Module:
    """PEFT's LoRA."""
    return with_head(get_peft_model(twin(model), LoraConfig(r=r, lora_alpha=r, target_modules=TARGETS)))


def eigentune(model: RobertaForSequenceClassification, r: int = 16) -> nn.Module:
    """The packaged tuner's R between singular vectors. Raises ImportError where it is not installed."""
    from eigentune import EigenTuneConfig, get_eigentune_model

    config = EigenTuneConfig(rank=r, target_modules=TARGETS, method="spectral_core", svd_backend="lowrank", svd_niter=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights have no gap in their singular values
        return with_head(get_eigentune_model(twin(model), config))


def with_head(model: nn.Module) -> nn.Module:
    """The model with its classifier trained."""
    for name, parameter in model.named_parameters():
        if "classifier" in name:
            parameter.requires_grad_(True)
    return model


def arm(model: nn.Module, batch: tuple[int, int]) -> Arm:
    """The model on a seeded batch of (rows, tokens)."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 1000, batch, generator=generator)
    labels = torch.randint(0, 2, batch[:1], generator=generator)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return Arm(model, ids, labels, torch.optim.AdamW(trained, lr=1e-5))
