"""The initialisations: what the frozen factors A [r, in] and B [out, r] of a weight W [out, in] are, by name.

A recipe says how factors were made, in so few words that they can be made again: from the weight, or from a seed and
the module's name. That is why a checkpoint need not hold them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lora_xs.adapters.store import FactorStore, weight_digest
from lora_xs.adapters.svd import Part
from lora_xs.errors import UserError

Bounds = Literal["official", "fan_in"]


@dataclass(frozen=True)
class Recipe:
    """How a module's factors are made. Raises UserError for a value that no initialisation knows."""

    init: str = "svd_w"
    """A name in `INITS`."""
    r: int = 16
    """Rank: A is [r, in], B is [out, r]."""
    part: Part = "top"
    """Which singular triplets of the decomposed matrix: `top`, `middle` or `bottom`."""
    sigma: bool = True
    """True: A = Σ_r V_rᵀ (the paper's). False: A = V_rᵀ. B = U_r either way."""
    kaiming_bounds: Bounds = "official"
    """`official`: A ~ U(±1/√r), B ~ U(±1/√out), as the official code's bounds come out. `fan_in`: A ~ U(±1/√in),
    B ~ U(±1/√r), Kaiming-uniform with a = √5 of A and B as they are used."""
    seed: int = 0
    """Of random factors; with the module's name and the shape it fixes every entry."""

    def __post_init__(self) -> None:
        if self.init not in INITS:
            raise UserError(f"init_weights={self.init!r} is not an initialisation; choose one of {', '.join(INITS)}")
        if isinstance(self.r, bool) or not isinstance(self.r, int) or self.r < 1:
            raise UserError(f"r={self.r!r} is not a rank; give a whole number of at least 1")
        if self.part not in ("top", "middle", "bottom"):
            raise UserError(f"part={self.part!r} is no part of a spectrum; choose top, middle or bottom")
        if self.kaiming_bounds not in ("official", "fan_in"):
            raise UserError(f"kaiming_bounds={self.kaiming_bounds!r} is unknown; choose official or fan_in")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise UserError(f"init_seed={self.seed!r} is not a seed; give a whole number")

    def json(self) -> str:
        """Canonical JSON of the fields this initialisation reads: equal text, equal factors."""
        fields = {"init": self.init, "r": self.r, **{name: getattr(self, name) for name in INITS[self.init].reads}}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class FactorReport:
    """What a run's record says about one module's factors."""

    residual: float | None  # largest ‖W v − σ u‖, ‖Wᵀ u − σ v‖ relative to σ₁; None for factors without an SVD
    gap: float | None  # singular gap at the cut, relative to σ₁
    warning: str | None
    cached: bool
    seconds: float


class Factors(NamedTuple):
    """A module's frozen factors, in the weight's dtype and on its device."""

    A: Tensor  # [r, in]
    B: Tensor  # [out, r]
    R0: Tensor | None  # [r, r], what s·R starts from; None: R starts from N(0, init_std²)
    digest: str  # 32 hex digits of the weight
    report: FactorReport


Builder = Callable[[Tensor, Recipe, str, FactorStore], Factors]


@dataclass(frozen=True)
class Init:
    """One initialisation: its builder, and the recipe's fields (beside `init` and `r`) its factors depend on."""

    build: Builder
    reads: tuple[str, ...]


def build_factors(weight: Tensor, recipe: Recipe, *, name: str, store: FactorStore | None = None) -> Factors:
    """The factors of `weight` [out, in] (any float dtype and device) that `recipe` describes.

    `name` is the module's name in the base model: it seeds random factors and names the module in errors. Truncations
    go through `store` (the default store where None). Raises UserError for a weight that is not finite, or a rank
    above one of its dimensions.
    """
    if recipe.r > min(weight.shape):
        raise UserError(f"{name}: rank {recipe.r} is above its smaller dimension {min(weight.shape)}; lower r")
    with torch.no_grad():
        return INITS[recipe.init].build(weight.detach(), recipe, name, FactorStore() if store is None else store)


def _svd_of_weight(weight: Tensor, recipe: Recipe, name: str, store: FactorStore) -> Factors:
    """LoRA-XS (section 3): W ≈ U Σ Vᵀ, A = Σ_r V_rᵀ, B = U_r."""
    return _truncated(weight, weight, recipe, name, store)


def _svd_of_random(weight: Tensor, recipe: Recipe, name: str, store: FactorStore) -> Factors:
    """The SVD of a Kaiming-uniform (a = √5) matrix of W's shape: the ablation of W's own directions."""
    matrix = _uniform(weight.shape, 1 / math.sqrt(weight.shape[1]), recipe.seed, name, "W")  # [out, in]
    return _truncated(matrix.to(weight.device), weight, recipe, name, store)


def _random(weight: Tensor, recipe: Recipe, name: str, store: FactorStore) -> Factors:
    """Kaiming-uniform A and B without any SVD."""
    out_features, in_features = weight.shape
    r = recipe.r
    fan_a, fan_b = (r, out_features) if recipe.kaiming_bounds == "official" else (in_features, r)
    A = _uniform((r, in_features), 1 / math.sqrt(fan_a), recipe.seed, name, "A")
    B = _uniform((out_features, r), 1 / math.sqrt(fan_b), recipe.seed, name, "B")
    report = FactorReport(residual=None, gap=None, warning=None, cached=False, seconds=0.0)
    return Factors(A.to(weight), B.to(weight), None, weight_digest(weight), report)


def _truncated(matrix: Tensor, weight: Tensor, recipe: Recipe, name: str, store: FactorStore) -> Factors:
    """Factors of `weight` from the truncated SVD of `matrix` [out, in]."""
    stored = store.truncation(matrix, recipe.r, recipe.part, name=name)
    U, S, Vh = stored.svd
    A = S[:, None] * Vh if recipe.sigma else Vh  # [r, in]
    digest = stored.digest if matrix is weight else weight_digest(weight)
    report = FactorReport(stored.residual, stored.gap, stored.warning, stored.cached, stored.seconds)
    return Factors(A.to(weight).contiguous(), U.to(weight).contiguous(), None, digest, report)


def _uniform(shape: tuple[int, ...] | torch.Size, bound: float, seed: int, name: str, role: str) -> Tensor:
    """U(±bound) in fp32 on the CPU, from a generator of its own: the same whatever was drawn before or elsewhere."""
    key = hashlib.sha256(json.dumps([seed, name, role, list(shape)]).encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(key[:8], "big") >> 1)
    return torch.empty(*shape, device="cpu", dtype=torch.float32).uniform_(-bound, bound, generator=generator)


INITS: Mapping[str, Init] = MappingProxyType(
    {
        "svd_w": Init(_svd_of_weight, ("part", "sigma")),
        "svd_random": Init(_svd_of_random, ("part", "sigma", "seed")),
        "random": Init(_random, ("kaiming_bounds", "seed")),
    }
)
