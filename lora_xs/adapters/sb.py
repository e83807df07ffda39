"""LoRA-SB from a RunSpec: the estimate over the run's rows, the adapter made from it, what the record says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_xs.adapters.estimation import EstimationRows, Portion
from lora_xs.adapters.files import ADAPTER, load_adapter, save_adapter
from lora_xs.adapters.ranks import world
from lora_xs.adapters.xs import describe_factors, lora_xs_config
from lora_xs.atomic import write_json
from lora_xs.errors import UserError
from lora_xs.processes import told

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lora_xs.adapters.tuner import LoraXsConfig
    from lora_xs.adapters.update import UpdateEstimate
    from lora_xs.spec import RunSpec


def attach_lora_sb(model: nn.Module, spec: RunSpec, rows: EstimationRows | None) -> nn.Module:
    """Adapters of LoRA-SB on the spec's target modules: the model starts at W + the first step's best rank-r part.

    The estimate's loss is the task's own, through the head as it stands: fresh and random, as in the official code. The
    factors come from `rows`, or from `rows.kept` where a former attempt of this run left them, or with R from
    `start_from` (which the caller loads). Fills `rows.report`. On the meta device, to count, no rows are needed.
    """
    from peft import get_peft_model

    config = lora_xs_config(spec)
    if next(model.parameters()).is_meta:
        return get_peft_model(model, config)
    if spec.start_from.run:
        config.factors_in_checkpoint = True
        return get_peft_model(model, config)
    if rows is None:
        raise UserError("method=lora_sb makes its factors from training rows; hand them to attach")
    if rows.kept is not None and told((rows.kept / ADAPTER).is_file):
        return _as_before(model, config, rows, rows.kept)
    _to_gpu(model)
    estimate = None if spec.init.matrix == "kaiming" else _estimate(model, config, spec, rows)
    config.update = estimate
    adapted = get_peft_model(model, config)
    rows.report = _describe(adapted, rows, estimate)
    if rows.kept is not None and world()[0] == 0:
        write_json(_report_beside(rows.kept), rows.report)
        save_adapter(adapted, rows.kept, head=())
    return adapted


def _estimate(model: Any, config: LoraXsConfig, spec: RunSpec, rows: EstimationRows) -> UpdateEstimate:
    from lora_xs.adapters.update import estimate_update

    checkpointed = spec.trainer.gradient_checkpointing
    if checkpointed:
        model.activation_checkpointing_enable({"use_reentrant": False})
    try:
        return estimate_update(
            model,
            config,
            rows,
            eta=rows.step()[0],
            sign=spec.init.sign,
            dropout=spec.init.dropout,
            seed=spec.seed,
            loss=_weighted_loss,
        )
    finally:
        if checkpointed:
            model.activation_checkpointing_disable()  # the trainer turns it on again


def _weighted_loss(model: nn.Module, portion: Portion) -> Tensor:
    from lora_xs.adapters.update import on_device
    from lora_xs.losses import response_loss

    inputs = on_device(portion.inputs, model)
    if "label_weights" in inputs:
        return response_loss(model, inputs)
    loss: Tensor = model(**inputs).loss
    return loss * portion.weight


def _as_before(model: nn.Module, config: LoraXsConfig, rows: EstimationRows, kept: Path) -> nn.Module:
    """The adapter as a former attempt of this run started it, to the bit."""
    from peft import get_peft_model

    report = json.loads(_report_beside(kept).read_text(encoding="utf-8"))
    if report["update"]["digest"] not in (None, rows.digest()):
        raise UserError(f"{kept.parent.parent}: its rows changed since its factors were made; start it with force=true")
    config.factors_in_checkpoint = True
    adapted = get_peft_model(model, config)
    load_adapter(adapted, kept, head=False)
    rows.report = report
    return adapted


def _describe(adapted: nn.Module, rows: EstimationRows, estimate: UpdateEstimate | None) -> dict[str, Any]:
    """The record's `factors` block: `describe_factors`, and under `update` what the factors were made from.

    indices: of the training rows, in order; digest: SHA-256 of their content. eta: the step's rate, by `steps` steps
    as `init.eta` counts them. gradient_bytes: of the sums on the CPU. peak_extra_bytes: see `UpdateEstimate`.
    factors_in_adapter: the saved adapters hold A and B. All None where nothing was estimated.
    """
    eta, steps = rows.step()
    seen: dict[str, Any] = dict.fromkeys(
        ("samples", "indices", "digest", "eta", "steps", "portions", "seconds", "gradient_bytes", "peak_extra_bytes")
    )
    if estimate is not None:
        seen |= {
            "samples": len(rows.indices),
            "indices": rows.indices,
            "digest": rows.digest(),
            "eta": eta,
            "steps": steps,
            "portions": estimate.batches,
            "seconds": round(estimate.seconds, 3),
            "gradient_bytes": estimate.bytes,
            "peak_extra_bytes": estimate.peak_bytes,
        }
    config: Any = adapted.peft_config["default"]  # type: ignore[index]
    described = describe_factors(adapted) or {}
    return described | {"update": seen | {"factors_in_adapter": bool(config.save_factors)}}


def _report_beside(kept: Path) -> Path:
    return kept.with_name(f"{kept.name}.json")


def _to_gpu(model: Any) -> None:
    """Onto this process's GPU where there is one: the trainer would move it there next, and the estimate is compute."""
    import torch

    if torch.cuda.is_available() and model.device.type == "cpu":
        model.to(torch.device("cuda", torch.cuda.current_device()))
