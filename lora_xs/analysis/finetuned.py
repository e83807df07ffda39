"""A finished full fine-tuning run, rebuilt from its folder and base, to be scored with some of its weights changed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_xs.errors import UserError
from lora_xs.ingredients import Ingredients
from lora_xs.records import Record, read_record
from lora_xs.spec import RunSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

MODULES = ("query", "value", "key", "attention.output.dense", "intermediate.dense", "output.dense")
"""The kinds of modules of an encoder's layer, in the order of LoRA-XS's Tables 8 to 10."""
KIND = re.compile(r"\.layer\.\d+\.(?:attention\.self\.)?(?P<kind>.+)$")
PRECISIONS = {"bf16": "bfloat16", "fp16": "float16"}


@dataclass
class FineTuned:
    """model: with the fine-tuned weights, in evaluation mode. base: W `[out, in]` of every matrix of a layer, as it was
    before, on the CPU. batches: the validation rows as the run scored them. inputs: the identities of what went in.
    kinds: the matrices' names by kind, see `kinds_of`."""

    spec: RunSpec
    model: nn.Module
    base: Mapping[str, Tensor]
    batches: list[dict[str, Tensor]]
    inputs: dict[str, Any]
    device: Any
    kinds: Mapping[str, list[str]]

    def weight(self, name: str) -> Tensor:
        """The model's own W' `[out, in]` of the module `name`, not a copy."""
        return self.model.get_parameter(f"{name}.weight").data

    def scores(self) -> dict[str, Any]:
        """The task's metrics in points, the mean loss and whether all answers were the same, as the run scored itself.

        None stands for a number that is not finite.
        """
        import torch
        from transformers import EvalPrediction

        from lora_xs.training.labels import scorer

        logits, labels = [], []
        with torch.no_grad(), self._autocast():
            for batch in self.batches:
                inputs = {name: tensor.to(self.device) for name, tensor in batch.items() if name != "labels"}
                logits.append(self.model(**inputs).logits.float().cpu())  # [rows, labels]
                labels.append(batch["labels"])
        answered = EvalPrediction(torch.cat(logits).numpy(), torch.cat(labels).numpy())
        found = scorer(self.spec)(answered)
        return {key: value if math.isfinite(value) else None for key, value in found.items()}

    @contextmanager
    def replaced(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """While the block lasts these modules have other weights; afterwards their own, bit for bit."""
        own = {name: self.weight(name).clone() for name in weights}
        try:
            for name, weight in weights.items():
                self.weight(name).copy_(weight)
            yield
        finally:
            for name, weight in own.items():
                self.weight(name).copy_(weight)

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        name = PRECISIONS.get(self.spec.trainer.precision)
        return torch.autocast(self.device.type, getattr(torch, name)) if name else nullcontext()


def finished_run(folder: Path) -> tuple[Record, RunSpec]:
    """Record and spec of a finished full fine-tuning run. Raises UserError saying what is missing or otherwise."""
    record = read_record(folder)
    if record is None:
        what = "is not finished; `train.py` goes on with it" if (folder / "spec.json").is_file() else "holds no run"
        raise UserError(f"{folder}: {what}; give the folder of a finished run with method=full_ft")
    if record.status != "finished":
        raise UserError(f"{folder}: this run diverged, its weights are no result; give a finished one")
    method, kind = record.run["spec"]["method"]["name"], record.run["spec"]["task"]["kind"]
    if method != "full_ft":
        raise UserError(f"{folder}: method={method}; the analyses are of all weights: give a run with method=full_ft")
    if kind == "instruction":
        raise UserError(f"{folder}: an instruction task; the analyses score labelled texts, give a run of such a task")
    try:
        spec = RunSpec.from_json(json.loads((folder / "spec.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}/spec.json: {error}; copy the run's whole folder") from error
    return record, spec


def rebuild(
    folder: Path, record: Record, spec: RunSpec, *, which: str, rows: int | None, data: str | None
) -> FineTuned:
    """The run's model with the weights of its `which` adapter, and its validation rows.

    rows: only so many of them, None for all. data: where the rows lie now, None for where they lay. Raises UserError
    for weights or rows that are missing or are not those the run saw.
    """
    adapter = folder / "adapter" / which
    if not (adapter / "model.safetensors").is_file():
        raise UserError(f"{adapter}: no model.safetensors; git keeps no weights: copy the run's folder, or train again")
    if data is not None:
        spec = spec.replace(data=replace(spec.data, root=data))
    ingredients = Ingredients()
    location = ingredients.location(spec)
    found = ingredients.rows(spec)
    _check_same(folder, record, {"model": location.identity, "data": found.identity})
    inputs = {"model": location.identity, "data": found.identity}
    found = found.limited(1, rows, spec.seed)  # nothing trains here

    import torch
    from transformers import set_seed

    from lora_xs.adapters import attach
    from lora_xs.adapters.files import load_adapter
    from lora_xs.models.unpadded import unpad_as_asked

    set_seed(spec.seed)
    model, tokenizer = ingredients.base(spec, location, max(1, len(found.labels)))
    unpad_as_asked(model, spec)  # as it was trained and scored
    kinds = kinds_of(model)
    names = [name for group in kinds.values() for name in group]
    base = {name: model.get_parameter(f"{name}.weight").detach().float().clone() for name in names}
    model = attach(model, spec).requires_grad_(True)
    load_adapter(model, adapter, head=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    material = ingredients.material(spec, found, tokenizer)
    size, scored = spec.evaluation.batch_size, material.validation
    batches = [
        material.collate([scored[row] for row in range(start, min(start + size, len(scored)))])
        for start in range(0, len(scored), size)
    ]
    return FineTuned(spec, model.to(device).eval(), base, batches, inputs, device, kinds)


def kinds_of(model: nn.Module) -> dict[str, list[str]]:
    """The linear modules of an encoder's layers by kind (`query`, `output.dense`, …), each kind in layer order."""
    from torch import nn

    kinds: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        found = KIND.search(name)
        if found and isinstance(module, nn.Linear):
            kinds.setdefault(found["kind"], []).append(name)
    return kinds


def _check_same(folder: Path, record: Record, now: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare what of the identities is content: the same rows and weights may come from another source by now."""
    for key, parts in (("model", ("files", "revision")), ("data", ("content",))):
        before, after = record.environment.get(key) or {}, now[key]
        if any(before[part] != after[part] for part in parts if part in before and part in after):
            raise UserError(f"{folder}: its {key} is not what lies here now; restore it, or train the run again")
