"""Training on labelled texts: a class or a number a row (GLUE, the reviews)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lora_xs.data.rows import lengths_of
from lora_xs.evaluation.classification import collapsed, score_predictions
from lora_xs.losses import label_loss
from lora_xs.spec import RunSpec
from lora_xs.training.batches import BatchOrder
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

    def _get_train_sampler(self, train_dataset: Any = None) -> BatchOrder:
        rows = train_dataset if train_dataset is not None else self.train_dataset
        return BatchOrder(lengths_of(rows).tolist(), self.spec.trainer.batch_size, self.spec.seed)

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
    """The Trainer's `compute_metrics`: the task's metrics in points, and whether every answer was the same."""
    kind: Any = spec.task.kind

    def score(prediction: Any) -> dict[str, Any]:
        scores = score_predictions(spec.task.metrics, prediction.predictions, prediction.label_ids, kind)
        return {**scores, "constant_prediction": collapsed(prediction.predictions, kind)}

    return score


def _summed_loss(kind: str) -> Callable[..., Tensor]:
    """Summed over rows and divided by the rows of the whole step: any split is the same step, uneven ones included."""

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        count = len(labels) if num_items_in_batch is None else num_items_in_batch
        return label_loss(outputs["logits"], labels, kind) / count

    return loss
