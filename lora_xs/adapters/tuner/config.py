"""LoraXsConfig: settings of one LoRA-XS adapter, named as PEFT names them, refused where they mean nothing."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peft import PeftConfig
from peft.utils.other import get_pattern_key
from torch import Tensor

from lora_xs.adapters.factors import Bounds, Matrix, Recipe
from lora_xs.adapters.svd import Part
from lora_xs.errors import UserError

if TYPE_CHECKING:
    from lora_xs.adapters.first_step import UpdateEstimate


class LoraXsType(enum.StrEnum):
    """The method's name in PEFT's mappings: PEFT's own enum is closed, but its mappings are keyed by string enums."""

    LORA_XS = "LORA_XS"


@dataclass
class LoraXsConfig(PeftConfig):
    """Settings of a LoRA-XS adapter: y = W x + s·B R A x, s = lora_alpha / r, only R [r, r] trains.

    Raises UserError for a value that means nothing, before any weight is read.
    """

    r: int = 16
    """Rank."""
    lora_alpha: float = 16
    """The scale is s = lora_alpha / r."""
    lora_dropout: float = 0.0
    """Dropout on the adapter's input, in training only."""
    target_modules: list[str] | str | None = None
    """A list matches whole path parts from the end: `output.dense` matches `….attention.output.dense` and
    `….layer.0.output.dense`, not `….my_output.dense`. A string is a regular expression for the full path, which is the
    way to take one of these: `.*layer\\.\\d+\\.output\\.dense` is the FFN's alone. `all-linear`: every linear layer
    but the head."""
    exclude_modules: list[str] | str | None = None
    """Modules left out although targeted; same two forms."""
    modules_to_save: list[str] | None = None
    """Further modules trained in full and stored with the adapter (PEFT adds a sequence classifier's head itself)."""
    layers_to_transform: list[int] | int | None = None
    """Only these layers, by index; with a list of target modules."""
    layers_pattern: list[str] | str | None = None
    """Name of the layer list that `layers_to_transform` counts, where it is not the first number in the path."""
    rank_pattern: dict[str, int] = field(default_factory=dict)
    """Rank by module: a key is the end of a path or a regular expression."""
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    """lora_alpha by module, keys as in `rank_pattern`."""
    init_weights: str = "svd_w"
    """How A and B are made: `svd_w`, `svd_random`, `random` or `update` (lora_xs.adapters.factors). `update` is
    LoRA-SB: before the adapter is attached, `config.update = lora_xs.adapters.update.estimate_update(…)`."""
    part: Part = "top"
    """Part of the spectrum that SVD factors take: `top`, `middle` or `bottom`."""
    sigma: bool = True
    """SVD factors of `svd_w` and `svd_random`: A = Σ_r V_rᵀ; False: A = V_rᵀ."""
    matrix: Matrix = "update"
    """What `update` decomposes: `update`, `update_noise` or `kaiming` (see Recipe)."""
    noise: float = 0.0
    """Standard deviation of the noise of `matrix="update_noise"`."""
    orthonormal: bool = True
    """Of `update`: B = U_r, s·R = Σ_r. False: B = U_r Σ_r, s·R = 1."""
    kaiming_bounds: Bounds = "official"
    """Bounds of `random` factors: `official` or `fan_in` (see Recipe)."""
    init_seed: int = 0
    """Seed of random factors. R's own start is drawn from torch's global generator."""
    init_std: float = 1e-5
    """R starts from N(0, init_std²); 0 makes the start the base model exactly."""
    save_factors: bool | None = None
    """Store A and B with R, for machines that cannot rebuild them. None: as `init_weights` needs, true for `update`,
    whose factors follow from data and not from the weight, else false."""
    factors_in_checkpoint: bool = False
    """Set in a saved configuration by `save_factors`: A and B are read from the file, nothing is computed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = LoraXsType.LORA_XS
        self.target_modules = _sorted_names(self.target_modules)
        self.exclude_modules = _sorted_names(self.exclude_modules)
        self.recipe(self.r)
        needs_data = self.init_weights == "update" and self.matrix != "kaiming"
        if self.save_factors is None:
            self.save_factors = needs_data
        self.update: UpdateEstimate | None = None  # no field: it is used up by attaching, never saved
        if not isinstance(self.init_std, (int, float)) or not 0 <= self.init_std < float("inf"):
            raise UserError(f"init_std={self.init_std!r} is not a spread; give a number of at least 0")
        if not 0.0 <= self.lora_dropout < 1.0:
            raise UserError(f"lora_dropout={self.lora_dropout!r} is not a probability below 1; give 0 for none")
        for name in ("sigma", "orthonormal", "save_factors"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name}={getattr(self, name)!r} is neither true nor false")
        for name in ("target_modules", "exclude_modules"):
            _check_regex(name, getattr(self, name))
        if isinstance(self.target_modules, str) and self.layers_to_transform is not None:
            raise UserError("layers_to_transform needs a list of target_modules; or name layers in the pattern")
        if self.layers_pattern and self.layers_to_transform is None:
            raise UserError("layers_pattern is given without layers_to_transform; name the layers too")
        if needs_data and not self.save_factors:
            raise UserError(
                "save_factors=False with init_weights='update': its factors cannot be rebuilt, leave it out"
            )
        for rank in self.rank_pattern.values():
            self.recipe(rank)
        for alpha in (self.lora_alpha, *self.alpha_pattern.values()):
            if not isinstance(alpha, (int, float)) or not 0 < alpha < float("inf"):
                raise UserError(f"lora_alpha={alpha!r} is not a scale; give a number above 0")

    def recipe(self, r: int) -> Recipe:
        """How factors of rank r are made under these settings."""
        return Recipe(
            self.init_weights,
            r,
            self.part,
            self.sigma,
            self.kaiming_bounds,
            self.init_seed,
            self.matrix,
            self.noise,
            self.orthonormal,
        )

    def first_step(self, module: str) -> Tensor | None:
        """ΔW [out, in] of the module for factors that are made from it, taken out of `update`; None for all others.

        Raises UserError where it is needed and there is no estimate, or none of this module.
        """
        if self.init_weights != "update" or self.matrix == "kaiming":
            return None
        if self.update is None:
            raise UserError(
                "init_weights='update' needs an estimate of the first step: "
                "config.update = estimate_update(model, config, batches, eta=…) before the adapter is attached"
            )
        return self.update.take(module)

    def rank_of(self, module: str) -> int:
        """Rank of the module of this name."""
        return self.rank_pattern.get(get_pattern_key(list(self.rank_pattern), module), self.r)

    def alpha_of(self, module: str) -> float:
        """lora_alpha of the module of this name."""
        return self.alpha_pattern.get(get_pattern_key(list(self.alpha_pattern), module), self.lora_alpha)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values; sets, which PEFT may put in, sorted: the same adapter writes the same file."""
        return {name: sorted(value) if isinstance(value, set) else value for name, value in super().to_dict().items()}

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Write adapter_config.json; it tells the loader when the factors lie beside it."""
        built_here, self.factors_in_checkpoint = self.factors_in_checkpoint, bool(self.save_factors)
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            self.factors_in_checkpoint = built_here


def _sorted_names(names: Any) -> Any:
    return sorted(set(names)) if isinstance(names, (list, tuple, set, frozenset)) else names


def _check_regex(field_name: str, pattern: list[str] | str | None) -> None:
    if isinstance(pattern, str):
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"{field_name}={pattern!r} is not a regular expression: {error}") from None
