"""Training on prompts and responses: the loss of response tokens alone, logits nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lora_xs.data.collate import ResponseCollator
from lora_xs.data.rows import lengths_of
from lora_xs.losses import NO_LABEL, response_logits, response_loss, token_losses
from lora_xs.spec import RunSpec
from lora_xs.training.batches import WeightedOrder, WeightedRows, response_lengths
from lora_xs.training.shares import IDLE
from lora_xs.training.trainer import RunTrainer


class ResponseTrainer(RunTrainer):
    """The step's loss is a mean over response tokens, or the papers' mean of micro-batches' means (`trainer.loss`).

    Both are sums of weighted tokens (`lora_xs.training.batches.token_weights`), so the micro-batches that a device
    holds do not matter. Validation scores `response_loss`, nats a token over all response tokens of the split.
    """

    data_collator: Any

    def __init__(self, spec: RunSpec, folder: Path, *, train_dataset: Any, eval_dataset: Any, **arguments: Any) -> None:
        self._tokens = train_dataset
        super().__init__(
            spec,
            folder,
            train_dataset=WeightedRows(train_dataset),
            eval_dataset=WeightedRows(eval_dataset) if eval_dataset is not None else None,
            compute_metrics=_mean_loss,
            **arguments,
        )

    def order(self) -> WeightedOrder:
        lengths, trainer = lengths_of(self._tokens), self.spec.trainer
        responses = response_lengths(lengths, self._tokens["prompt_tokens"])
        group = trainer.loss_rows if trainer.loss == "micro_batches" else None
        return WeightedOrder(lengths.tolist(), responses.tolist(), trainer.batch_size, self.spec.seed, group)

    def scored_collator(self) -> ResponseCollator:
        return ResponseCollator(self.data_collator.pad_token_id)  # a row of the batch is a row of the split

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> None:
        return None  # the rows bring their weights

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        # the gradients of several processes are averaged, the weights are shares of the sum over all of them
        share = 0 if inputs.pop(IDLE, False) else self.args.world_size
        return response_loss(model, inputs) * share

    def prediction_step(
        self, model: nn.Module, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[None, Tensor, Tensor]:
        """(nothing: the loss is the score, summed −log p of each row in fp64, response tokens of each row)."""
        inputs.pop(IDLE, None)
        batch = self._prepare_inputs(inputs)
        batch.pop("label_weights")
        labels = batch.pop("labels")  # [rows, kept]
        with torch.no_grad(), self.compute_loss_context_manager():
            losses = token_losses(response_logits(model, batch), labels).double().sum(dim=1)  # [rows]
        counts = (labels != NO_LABEL).sum(dim=1)  # [rows]
        return None, losses, counts

    def contents(self, inputs: Mapping[str, Any]) -> list[tuple[bytes, int]]:
        ids = inputs["input_ids"].cpu()
        if "attention_mask" in inputs:
            rows = [row[mask] for row, mask in zip(ids, inputs["attention_mask"].cpu().bool(), strict=True)]
        else:
            starts = (inputs["position_ids"][0].cpu() == 0).nonzero().squeeze(1)[1:]
            rows = list(torch.tensor_split(ids[0], starts))
        return [(row.numpy().tobytes(), len(row)) for row in rows]


def _mean_loss(prediction: Any) -> dict[str, float]:
    loss = float(np.sum(prediction.predictions) / max(1, np.sum(prediction.label_ids)))
    return {"response_loss": loss, "loss": loss}
