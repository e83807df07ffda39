"""A base model's shapes and parameter counts in plain Python, from its config alone: planning imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lora_xs.errors import UserError
from lora_xs.spec.sections import ModelSpec
from lora_xs.spec.targets import pattern_of

ENCODERS = ("bert", "roberta")
BIASED_QKV = ("qwen2",)
FOUR_NORMS = ("gemma2",)


@dataclass(frozen=True)
class Linear:
    """A linear layer of the backbone: its whole path, its sides, and whether it has a bias."""

    name: str
    out_features: int
    in_features: int
    bias: bool

    @property
    def weights(self) -> int:
        """Numbers in its matrix."""
        return self.out_features * self.in_features

    @property
    def parameters(self) -> int:
        """Matrix and bias."""
        return self.weights + (self.out_features if self.bias else 0)


@dataclass(frozen=True)
class Architecture:
    """What of a transformer decides its costs; the fields are named as transformers names them."""

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    type_vocab_size: int
    tie_word_embeddings: bool

    @property
    def encoder(self) -> bool:
        """Whether it is a BERT or RoBERTa with a classification head, else a decoder with a language model's."""
        return self.model_type in ENCODERS

    def linears(self) -> tuple[Linear, ...]:
        """Every linear layer of the backbone; heads, pooler and embeddings are none of them."""
        return _linears(self)

    def behind_last_attention(self) -> tuple[Linear, ...]:
        """Of an encoder's linear layers, those that work on one token a row where none is computed for padding."""
        block = f"{self.model_type}.encoder.layer.{self.num_hidden_layers - 1}."
        names = [block + name for name in ("attention.output.dense", "intermediate.dense", "output.dense")]
        return tuple(layer for layer in self.linears() if layer.name in names)

    def targets(self, target_modules: Sequence[str]) -> tuple[Linear, ...]:
        """The layers that an adapter goes to. Raises UserError where the names match none.

        target_modules: suffixes of whole path parts, or a single regular expression, as PEFT reads them.
        """
        pattern = pattern_of(target_modules)
        if pattern is not None:
            found = tuple(layer for layer in self.linears() if re.fullmatch(pattern, layer.name))
        else:
            ends = tuple(f".{name}" for name in target_modules)
            found = tuple(layer for layer in self.linears() if f".{layer.name}".endswith(ends))
        if not found:
            raise UserError(f"method.target_modules={list(target_modules)} matches no layer of a {self.model_type}")
        return found

    def head_parameters(self, labels: int, head: Sequence[str]) -> int:
        """Parameters of the modules trained whole: BERT's `classifier` is one layer, RoBERTa's two; its pooler one."""
        square = self.hidden_size**2 + self.hidden_size
        modules = {"classifier": self.hidden_size * labels + labels}
        if self.model_type == "roberta":
            modules["classifier"] += square
        else:
            modules["pooler"] = square
        return sum(modules.get(name, 0) for name in head) if self.encoder else 0

    def parameters(self, labels: int) -> int:
        """All parameters of the base model with its head: for labels of an encoder, for words of a decoder."""
        hidden, layers = self.hidden_size, self.num_hidden_layers
        total = sum(layer.parameters for layer in self.linears()) + self.vocab_size * hidden
        if self.encoder:
            total += (self.max_position_embeddings + self.type_vocab_size) * hidden + 2 * hidden  # their norm
            total += layers * 2 * 2 * hidden
            return total + hidden * hidden + hidden + hidden * labels + labels  # pooler or dense, then the answer
        total += (layers * (4 if self.model_type in FOUR_NORMS else 2) + 1) * hidden
        return total + (0 if self.tie_word_embeddings else self.vocab_size * hidden)


def architecture_of(model: ModelSpec) -> Architecture:
    """The architecture of `model`: of the folder `model.path` where it has a config.json, else the config's own.

    Raises UserError where neither says enough.
    """
    shape: Mapping[str, Any] = model.architecture
    file = Path(model.path) / "config.json" if model.path else None
    if file is not None and file.is_file():
        try:
            shape = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: not a model's config ({error})") from error
    try:
        heads, hidden = int(shape["num_attention_heads"]), int(shape["hidden_size"])
        return Architecture(
            model_type=str(shape["model_type"]),
            hidden_size=hidden,
            num_hidden_layers=int(shape["num_hidden_layers"]),
            num_attention_heads=heads,
            num_key_value_heads=int(shape.get("num_key_value_heads") or heads),
            head_dim=int(shape.get("head_dim") or hidden // heads),
            intermediate_size=int(shape["intermediate_size"]),
            vocab_size=int(shape["vocab_size"]),
            max_position_embeddings=int(shape.get("max_position_embeddings") or 0),
            type_vocab_size=int(shape.get("type_vocab_size") or 0),
            tie_word_embeddings=bool(shape.get("tie_word_embeddings", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"model={model.name}: its architecture lacks {error}; add it to configs/model/{model.name}.yaml "
            "(model.architecture), its costs follow from it"
        ) from error


@cache
def _linears(shape: Architecture) -> tuple[Linear, ...]:
    return tuple(_each_linear(shape))


def _each_linear(shape: Architecture) -> Iterator[Linear]:
    hidden, inner = shape.hidden_size, shape.intermediate_size
    queries, keys = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    for layer in range(shape.num_hidden_layers):
        if shape.encoder:
            block = f"{shape.model_type}.encoder.layer.{layer}"
            for name in ("query", "key", "value"):
                yield Linear(f"{block}.attention.self.{name}", hidden, hidden, True)
            yield Linear(f"{block}.attention.output.dense", hidden, hidden, True)
            yield Linear(f"{block}.intermediate.dense", inner, hidden, True)
            yield Linear(f"{block}.output.dense", hidden, inner, True)
        else:
            block, bias = f"model.layers.{layer}", shape.model_type in BIASED_QKV
            yield Linear(f"{block}.self_attn.q_proj", queries, hidden, bias)
            yield Linear(f"{block}.self_attn.k_proj", keys, hidden, bias)
            yield Linear(f"{block}.self_attn.v_proj", keys, hidden, bias)
            yield Linear(f"{block}.self_attn.o_proj", hidden, queries, False)
            yield Linear(f"{block}.mlp.gate_proj", inner, hidden, False)
            yield Linear(f"{block}.mlp.up_proj", inner, hidden, False)
            yield Linear(f"{block}.mlp.down_proj", hidden, inner, False)
