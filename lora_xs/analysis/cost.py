"""Multiply-accumulates of a forward pass and trainable parameters, counted from architectures; no weights, no torch.

Two readings of a row's operations: LoRA-SB's Table 6 counts the linear layers, the language model's head and each
adapter's two long factors, and leaves out attention's scores and R; `everything` has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from lora_xs.errors import UserError
from lora_xs.models.architecture import Architecture, architecture_of
from lora_xs.spec.bind import bind
from lora_xs.spec.sections import ModelSpec
from lora_xs.sweeps.parameters import XS, adapter_parameters

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "model"


@dataclass(frozen=True)
class Operations:
    """Multiply-accumulates (MACs; each is two floating-point operations) of a forward pass.

    A token: linear layers; adapter: its A and B; squares: its R; words: the language model's head (0 for an encoder);
    scores: attention, for each token of the row it stands in. A row: head, of an encoder's pooler and classifier.
    """

    linear: int
    adapter: int
    squares: int
    words: int
    scores: int
    head: int

    @property
    def token(self) -> int:
        """Of a token, as LoRA-SB's Table 6 counts: without attention's scores and R."""
        return self.linear + self.adapter + self.words

    def row(self, length: int) -> int:
        """Of a row of `length` tokens, counted likewise."""
        return self.token * length

    def everything(self, length: int) -> int:
        """Of a row of `length` tokens, all of it: also what a causal mask hides."""
        return (self.token + self.squares + self.scores * length) * length + self.head


@cache
def model_spec(name: str) -> ModelSpec:
    """A model's config by its name, or by the papers' (`mistral-7b-v0.1`). Raises UserError for an unknown one."""
    file = CONFIGS / f"{name.removesuffix('-v0.1')}.yaml"
    if not file.is_file():
        raise UserError(
            f"model={name} is unknown; choose one of {', '.join(sorted(f.stem for f in CONFIGS.glob('*')))}"
        )
    return bind(ModelSpec, yaml.safe_load(file.read_text(encoding="utf-8")), "model")


def operations_of(model: ModelSpec, method: str, rank: int) -> Operations:
    """Of `model` with adapters of `rank` on its target modules: LoRA's pair, or LoRA-XS's with R between."""
    shape = architecture_of(model)
    targets = shape.targets(model.target_modules)
    return Operations(
        linear=sum(layer.weights for layer in shape.linears()),
        adapter=adapter_parameters("lora", targets, rank),
        squares=adapter_parameters(method, targets, rank) if method in XS else 0,
        words=0 if shape.encoder else shape.hidden_size * shape.vocab_size,
        scores=2 * shape.num_attention_heads * shape.head_dim * shape.num_hidden_layers,
        head=shape.head_parameters(2, ("classifier", "pooler")) if shape.encoder else 0,
    )


@dataclass(frozen=True)
class Trained:
    """Trainable parameters of the adapters of one model at one rank, see `adapter_parameters`."""

    model: str
    modules: int
    rank: int
    lora: int
    vera: int
    lora_xs: int

    @property
    def bytes(self) -> int:
        """Of LoRA-XS's R in fp32."""
        return 4 * self.lora_xs

    @property
    def ratio(self) -> float:
        """LoRA's over LoRA-XS's at equal rank: 2n / r for square modules of side n."""
        return self.lora / self.lora_xs


def trained_parameters(model: str, shape: Architecture, targets: tuple[str, ...], rank: int) -> Trained:
    """The counts of one model and rank."""
    layers = shape.targets(targets)
    return Trained(
        model=model,
        modules=len(layers),
        rank=rank,
        lora=adapter_parameters("lora", layers, rank),
        vera=adapter_parameters("vera", layers, rank),
        lora_xs=adapter_parameters("lora_xs", layers, rank),
    )


def parameter_table() -> list[Trained]:
    """All models of the configs: encoders at the ranks of the papers' GLUE tables, decoders at those of the others."""
    rows = []
    for file in sorted(CONFIGS.glob("*.yaml")):
        model = model_spec(file.stem)
        shape = architecture_of(model)
        ranks = (4, 8, 16, 25) if shape.encoder else (16, 32, 64, 96, 128)
        rows += [trained_parameters(model.name, shape, model.target_modules, rank) for rank in ranks]
    return rows
