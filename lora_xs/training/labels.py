"""Training on labelled texts: a class or a number a row (GLUE, the reviews)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lora_xs.data.rows import lengths_of
from lora_xs.evaluation.classification import collapsed, majority_baseline, score_predictions
from lora_xs.losses import label_loss
from lora_xs.spec import RunSpec
from lora_xs.training.batches import BatchOrder
from lora_xs.training.shares import IDLE
from lora_xs.training.trainer import RunTrainer


class LabelTrainer(RunTrainer):
    """The loss is the mean over the rows of the optimiser step, whatever its micro-batches; scores are in points."""

    def __init__(self, spec: RunSpec, folder: Path, **arguments: Any) -> None:
        super().__init__(
            spec,
            folder,
            compute_loss_func=_summed_loss(spec.task.kind),
            compute_metrics=scorer(spec),
            **arguments,
        )

    def order(self) -> BatchOrder:
        return BatchOrder(lengths_of(self.train_dataset).tolist(), self.spec.trainer.batch_size, self.spec.seed)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> int:
        return self.rows_of_step()

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        idle = inputs.pop(IDLE, False)
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return loss * 0 if idle else loss

    def prediction_step(
        self, model: nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[None, Tensor, Tensor]:
        """(nothing: the loss is scored over all rows at once, logits of each row, labels)."""
        inputs.pop(IDLE, None)
        _, logits, labels = super().prediction_step(model, inputs, False, ignore_keys)
        return None, logits, labels

    def closing_facts(self) -> dict[str, Any]:
        """What the best constant answer scores. Not before the end: the metrics' libraries take seconds to import."""
        labels, task = np.asarray(self.eval_dataset["labels"]), self.spec.task
        kind: Any = task.kind
        return {"majority": majority_baseline(labels, task.metrics, kind)}

    def contents(self, inputs: Mapping[str, Any]) -> list[tuple[bytes, int]]:
        return row_contents(inputs)


def row_contents(inputs: Mapping[str, Any]) -> list[tuple[bytes, int]]:
    """(ids and label, tokens) of each row of `input_ids`, `attention_mask` `[rows, length]`, `labels` `[rows]`."""
    mask = inputs["attention_mask"].cpu().bool()  # [rows, length]
    ids, labels = inputs["input_ids"].cpu(), inputs["labels"].cpu()
    real = [ids[row][mask[row]] for row in range(len(ids))]
    return [
        (row.numpy().tobytes() + label.numpy().tobytes(), len(row)) for row, label in zip(real, labels, strict=True)
    ]


def scorer(spec: RunSpec) -> Callable[[Any], dict[str, Any]]:
    """The Trainer's `compute_metrics`: the task's metrics in points, the mean loss over rows, and whether every answer
    was the same."""
    kind: Any = spec.task.kind

    def score(prediction: Any) -> dict[str, Any]:
        scores = score_predictions(spec.task.metrics, prediction.predictions, prediction.label_ids, kind)
        loss = label_loss(torch.from_numpy(prediction.predictions), torch.from_numpy(prediction.label_ids), kind)
        return {
            **scores,
            "loss": loss.item() / len(prediction.label_ids),
            "constant_prediction": collapsed(prediction.predictions, kind),
        }

    return score


def _summed_loss(kind: str) -> Callable[..., Tensor]:
    """Summed over rows and divided by the rows of the whole step: any split is the same step, uneven ones included."""

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        count = len(labels) if num_items_in_batch is None else num_items_in_batch
        return label_loss(outputs["logits"], labels, kind) / count

    return loss
