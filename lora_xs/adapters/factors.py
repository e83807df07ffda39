"""The initialisations: what the frozen factors A [r, in] and B [out, r] of a weight W [out, in] are, by name.

A recipe says how factors were made, in so few words that they can be made again: from the weight, or from a seed and
the module's name. That is why a checkpoint need not hold them. The exception is `update` (LoRA-SB): its factors come
from data too, and a checkpoint holds them.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lora_xs.adapters.ranks import from_first_rank
from lora_xs.adapters.store import FactorStore
from lora_xs.adapters.svd import Part, decompose
from lora_xs.adapters.window import tensor_digest
from lora_xs.errors import UserError

Bounds = Literal["official", "fan_in"]
Matrix = Literal["update", "update_noise", "kaiming"]


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
    matrix: Matrix = "update"
    """What `update` decomposes (LoRA-SB, Table 4). `update`: the estimated first step ΔW. `update_noise`: ΔW + N(0,
    noise²). `kaiming`: a Kaiming-uniform (a = √5) matrix of W's shape, no estimate at all."""
    noise: float = 0.0
    """Standard deviation of `update_noise`; the paper's are 1e-2 … 1e-5."""
    orthonormal: bool = True
    """Of `update`: True: A = V_rᵀ, B = U_r, s·R = Σ_r. False (Figure 3): A = V_rᵀ, B = U_r Σ_r, s·R = 1. The product
    s·B R A, and so the start, is the same."""

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
        if self.matrix not in ("update", "update_noise", "kaiming"):
            raise UserError(f"matrix={self.matrix!r} is unknown; choose update, update_noise or kaiming")
        if not isinstance(self.noise, (int, float)) or not 0 <= self.noise < math.inf:
            raise UserError(f"noise={self.noise!r} is not a spread; give a number of at least 0")

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
    ratio: float | None = None  # ‖s·B R A‖ / ‖W‖ at the start (Frobenius); None where R's start is random and tiny


class Factors(NamedTuple):
    """A module's frozen factors, in the weight's dtype and on its device."""

    A: Tensor  # [r, in]
    B: Tensor  # [out, r]
    R0: Tensor | None  # [r, r], what s·R starts from; None: R starts from N(0, init_std²)
    digest: str  # 32 hex digits of the weight
    report: FactorReport


Builder = Callable[[Tensor, Recipe, str, FactorStore, Tensor | None], Factors]


@dataclass(frozen=True)
class Init:
    """One initialisation: its builder, and the recipe's fields (beside `init` and `r`) its factors depend on."""

    build: Builder
    reads: tuple[str, ...]


def build_factors(
    weight: Tensor, recipe: Recipe, *, name: str, store: FactorStore | None = None, update: Tensor | None = None
) -> Factors:
    """The factors of `weight` [out, in] (any float dtype and device) that `recipe` describes.

    `name` is the module's name in the base model: it seeds random factors and names the module in errors. Truncations
    go through `store` (the default store where None). `update` is ΔW [out, in], for recipes that decompose it. Raises
    UserError for a weight that is not finite, or a rank above one of its dimensions.
    """
    if recipe.r > min(weight.shape):
        raise UserError(f"{name}: rank {recipe.r} is above its smaller dimension {min(weight.shape)}; lower r")
    with torch.no_grad():
        store = FactorStore() if store is None else store
        return INITS[recipe.init].build(weight.detach(), recipe, name, store, update)


def _svd_of_weight(weight: Tensor, recipe: Recipe, name: str, store: FactorStore, _: Tensor | None) -> Factors:
    """LoRA-XS (section 3): W ≈ U Σ Vᵀ, A = Σ_r V_rᵀ, B = U_r."""
    return _truncated(weight, weight, recipe, name, store)


def _svd_of_random(weight: Tensor, recipe: Recipe, name: str, store: FactorStore, _: Tensor | None) -> Factors:
    """The SVD of a Kaiming-uniform (a = √5) matrix of W's shape: the ablation of W's own directions."""
    return _truncated(_kaiming(weight, recipe, name), weight, recipe, name, store)


def _random(weight: Tensor, recipe: Recipe, name: str, store: FactorStore, _: Tensor | None) -> Factors:
    """Kaiming-uniform A and B without any SVD."""
    out_features, in_features = weight.shape
    r = recipe.r
    fan_a, fan_b = (r, out_features) if recipe.kaiming_bounds == "official" else (in_features, r)
    A = _uniform((r, in_features), 1 / math.sqrt(fan_a), recipe.seed, name, "A")
    B = _uniform((out_features, r), 1 / math.sqrt(fan_b), recipe.seed, name, "B")
    report = FactorReport(residual=None, gap=None, warning=None, cached=False, seconds=0.0)
    return Factors(A.to(weight), B.to(weight), None, tensor_digest(weight), report)


def _svd_of_update(weight: Tensor, recipe: Recipe, name: str, _: FactorStore, update: Tensor | None) -> Factors:
    """LoRA-SB (section 3): ΔW ≈ U Σ Vᵀ, A = V_rᵀ, B = U_r, R = Σ_r / s, so that s·B R A is ΔW's best rank-r part.

    The store is left out: ΔW depends on data and seed, so no other run would ask for its factors again.
    """
    began = time.perf_counter()
    matrix = _first_matrix(weight, recipe, name, update)  # [out, in]
    window = decompose(matrix, 0, recipe.r, name=name)
    U, S, Vh = window.svd
    B, R0 = (U, S.diag()) if recipe.orthonormal else (U * S, torch.eye(recipe.r).to(S))
    norm = float(weight.double().norm())
    ratio = float(S.double().norm()) / norm if norm else None
    A, B, R0 = (from_first_rank(factor) for factor in (Vh.to(weight), B.to(weight), R0))
    warning = None if S[0] else f"{name}: no gradient reached it during the estimate; its R starts at zero"
    report = FactorReport(window.residual, None, warning, False, time.perf_counter() - began, ratio)
    return Factors(A.contiguous(), B.contiguous(), R0, tensor_digest(weight), report)


def _first_matrix(weight: Tensor, recipe: Recipe, name: str, update: Tensor | None) -> Tensor:
    """What `update` decomposes, [out, in], on the weight's device, fp32 or (as ΔW) fp64."""
    if recipe.matrix == "kaiming":
        return _kaiming(weight, recipe, name)
    if update is None or update.shape != weight.shape:
        given = "none was" if update is None else f"one of {list(update.shape)} was"
        raise UserError(f"{name}: factors of the first step need an update of {list(weight.shape)}; {given} given")
    if recipe.matrix == "update_noise":
        noise = torch.randn(*update.shape, generator=_generator(recipe.seed, name, "noise", update.shape))
        update = update + recipe.noise * noise
    return update.to(weight.device)


def _kaiming(weight: Tensor, recipe: Recipe, name: str) -> Tensor:
    """A Kaiming-uniform (a = √5) matrix of the weight's shape, fp32, on its device."""
    return _uniform(weight.shape, 1 / math.sqrt(weight.shape[1]), recipe.seed, name, "W").to(weight.device)


def _truncated(matrix: Tensor, weight: Tensor, recipe: Recipe, name: str, store: FactorStore) -> Factors:
    """Factors of `weight` from the truncated SVD of `matrix` [out, in]."""
    stored = store.truncation(matrix, recipe.r, recipe.part, name=name)
    U, S, Vh = stored.svd
    A = S[:, None] * Vh if recipe.sigma else Vh  # [r, in]
    digest = stored.digest if matrix is weight else tensor_digest(weight)
    report = FactorReport(stored.residual, stored.gap, stored.warning, stored.cached, stored.seconds)
    return Factors(A.to(weight).contiguous(), U.to(weight).contiguous(), None, digest, report)


def _uniform(shape: tuple[int, ...] | torch.Size, bound: float, seed: int, name: str, role: str) -> Tensor:
    """U(±bound) in fp32 on the CPU, from a generator of its own: the same whatever was drawn before or elsewhere."""
    generator = _generator(seed, name, role, shape)
    return torch.empty(*shape, device="cpu", dtype=torch.float32).uniform_(-bound, bound, generator=generator)


def _generator(seed: int, name: str, role: str, shape: tuple[int, ...] | torch.Size) -> torch.Generator:
    key = hashlib.sha256(json.dumps([seed, name, role, list(shape)]).encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(key[:8], "big") >> 1)


INITS: Mapping[str, Init] = MappingProxyType(
    {
        "svd_w": Init(_svd_of_weight, ("part", "sigma")),
        "svd_random": Init(_svd_of_random, ("part", "sigma", "seed")),
        "random": Init(_random, ("kaiming_bounds", "seed")),
        "update": Init(_svd_of_update, ("matrix", "noise", "orthonormal", "seed")),
    }
)
