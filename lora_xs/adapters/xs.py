"""LoRA-XS from a RunSpec: the tuner's config, and what the factors' builders reported."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from lora_xs.adapters.baselines import peft_targets

if TYPE_CHECKING:
    from torch import nn

    from lora_xs.adapters.tuner import LoraXsConfig
    from lora_xs.spec import RunSpec


def lora_xs_config(spec: RunSpec) -> LoraXsConfig:
    """The tuner's config for `spec`: R is `[rank, rank]`, s = alpha / rank."""
    from lora_xs.adapters.tuner import LoraXsConfig

    assert spec.rank is not None
    return LoraXsConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.method.dropout,
        target_modules=peft_targets(spec.target_modules),
        init_weights=spec.init.name,
        part=spec.init.part,
        sigma=spec.init.sigma,
        init_std=spec.init.std,
        kaiming_bounds=spec.init.kaiming_bounds,
        init_seed=spec.init.seed,
        matrix=spec.init.matrix,
        noise=spec.init.noise or 0.0,
        orthonormal=spec.init.orthonormal,
        save_factors=spec.method.save_factors,
    )


def attach_lora_xs(model: nn.Module, spec: RunSpec) -> nn.Module:
    """Adapters of LoRA-XS on the spec's target modules; the factors come from the store where it has them."""
    from peft import get_peft_model

    return get_peft_model(model, lora_xs_config(spec))


def describe_factors(model: nn.Module) -> dict[str, Any] | None:
    """How the frozen factors came to be, for the record; None for a method without any.

    residual: the largest of any module, relative to its σ₁. gap: the smallest singular gap at a cut, likewise.
    cached: modules whose truncation the store had. seconds: spent on all of them. warnings: near-degenerate cuts.
    ratio: smallest, median and largest ‖s·B R A‖ / ‖W‖ of a module at step 0 (Frobenius), where R does not start at
    random.
    """
    modules = getattr(model, "factor_reports", {}).get("default", {})
    if not modules:
        return None
    reports = list(modules.values())
    ratios = [r.ratio for r in reports if r.ratio is not None]
    spread = {"min": min(ratios), "median": median(ratios), "max": max(ratios)} if ratios else None
    return {
        "modules": len(reports),
        "residual": max((r.residual for r in reports if r.residual is not None), default=None),
        "gap": min((r.gap for r in reports if r.gap is not None), default=None),
        "cached": sum(r.cached for r in reports),
        "seconds": round(sum(r.seconds for r in reports), 3),
        "ratio": spread,
        "warnings": [r.warning for r in reports if r.warning],
    }
