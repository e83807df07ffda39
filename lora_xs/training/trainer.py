"""The Hugging Face Trainer with two learning rates, exact gradient accumulation, our checkpoints and our ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainingArguments

from lora_xs.spec import RunSpec
from lora_xs.training import checkpoints
from lora_xs.training.batches import BatchOrder
from lora_xs.training.divergence import Diverged
from lora_xs.training.ledger import Ledger, pending_to_list
from lora_xs.training.optimizer import build_optimizer, build_schedule


def summed_loss(kind: str) -> Callable[..., Tensor]:
    """Cross-entropy or squared error, summed over rows and divided by the rows of the whole optimiser step.

    That makes every split of a batch into micro-batches the same step, uneven last ones included.
    """

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        logits = outputs["logits"].float()  # [rows, labels]
        if kind == "regression":
            total = nn.functional.mse_loss(logits.squeeze(-1), labels.float(), reduction="sum")
        else:
            total = nn.functional.cross_entropy(logits, labels, reduction="sum")
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    return loss


def micro_batch(rows: int) -> int:
    """Rows of `rows` (one process's share of an optimiser step) to hold at once where the user has not said.

    A GPU takes all; a CPU eight or the largest divisor below: rows of like length, little padding (see `BatchOrder`).
    """
    if torch.cuda.is_available():
        return max(1, rows)
    return next(n for n in range(min(8, max(1, rows)), 0, -1) if rows % n == 0)


def training_arguments(spec: RunSpec, folder: Path) -> TrainingArguments:
    """What of the spec the Trainer itself must know; optimiser, schedule, logging and saving are ours."""
    trainer, world = spec.trainer, int(torch.distributed.get_world_size()) if torch.distributed.is_initialized() else 1
    rows = trainer.device_batch_size or micro_batch(trainer.batch_size // world)
    each = "epoch" if spec.evaluation.every == "epoch" else "no"
    return TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        per_device_train_batch_size=rows,
        per_device_eval_batch_size=spec.evaluation.batch_size,
        gradient_accumulation_steps=max(1, trainer.batch_size // (rows * world)),
        num_train_epochs=trainer.epochs,
        max_steps=trainer.max_steps or -1,
        max_grad_norm=trainer.max_grad_norm or 0.0,
        seed=spec.seed,
        data_seed=spec.seed,
        bf16=trainer.precision == "bf16",
        fp16=trainer.precision == "fp16",
        activation_checkpointing=trainer.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if trainer.gradient_checkpointing else None,
        torch_compile=trainer.compile,
        eval_strategy=each,
        save_strategy="epoch",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_broadcast_buffers=False,
        ddp_find_unused_parameters=False,
    )


class RunTrainer(Trainer):
    """Trains one RunSpec. `ledger` holds what was seen; checkpoints are those of `lora_xs.training.checkpoints`."""

    optimizer: Any
    lr_scheduler: Any

    def __init__(self, spec: RunSpec, folder: Path, **arguments: Any) -> None:
        self.spec, self.folder = spec, folder
        self.ledger = Ledger()
        self._pending: list[Tensor] = []  # losses of finished steps, still on the device
        self._step_loss: Tensor | None = None
        self._clock = time.perf_counter()
        super().__init__(
            args=training_arguments(spec, folder), compute_loss_func=summed_loss(spec.task.kind), **arguments
        )
        self.remove_callback(PrinterCallback)  # it would print to standard output, which is the result's

    def _get_train_sampler(self, train_dataset: Any = None) -> BatchOrder:
        rows = train_dataset if train_dataset is not None else self.train_dataset
        lengths = [len(ids) for ids in rows["input_ids"]]
        return BatchOrder(lengths, self.spec.trainer.batch_size, self.spec.seed)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = build_optimizer(self.model, self.spec.trainer, self.spec.model.head)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        if self.lr_scheduler is None:
            self.lr_scheduler = build_schedule(optimizer or self.optimizer, self.spec.trainer, num_training_steps)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        self.ledger.saw_rows(inputs, self.state.global_step)
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._step_loss = loss if self._step_loss is None else self._step_loss + loss
        return loss

    def end_step(self) -> None:
        """Close an optimiser step: its loss joins the pending ones, read from the device every `log_steps`."""
        if self._step_loss is not None:
            self._pending.append(self._step_loss)
            self._step_loss = None
        if self.state.global_step % self.spec.trainer.log_steps == 0:
            self.read_losses()

    def read_losses(self) -> None:
        """Move pending losses into the ledger and its history. Raises Diverged at the first that is not finite."""
        losses = pending_to_list(self._pending)
        first = self.state.global_step - len(losses) + 1
        self._pending = []
        for offset, loss in enumerate(losses):
            if not np.isfinite(loss):
                self.ledger.saw_losses(losses[:offset])
                raise Diverged(first + offset, loss)
        self.ledger.saw_losses(losses)
        if losses and self.state.global_step % self.spec.trainer.log_steps == 0:
            rate = self.lr_scheduler.get_last_lr()[0]
            line = {"kind": "train", "step": self.state.global_step, "epoch": self.state.epoch, "loss": losses[-1]}
            self.ledger.history.append({**line, "learning_rate": rate})

    def mark_time(self) -> None:
        """Add the seconds since the last mark to the ledger, so that interruptions do not lose them."""
        now = time.perf_counter()
        self.ledger.train_seconds += now - self._clock
        self._clock = now

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.read_losses()
        self.mark_time()
        if not self.args.should_save:
            return
        extra = {"signature": self.spec.signature, "world_size": self.args.world_size, "ledger": self.ledger.to_json()}
        checkpoints.save_checkpoint(
            Path(self.args.output_dir),
            self.state.global_step,
            self.accelerator.unwrap_model(model),
            self.optimizer,
            self.lr_scheduler,
            self.accelerator.scaler,
            extra,
            json.dumps(asdict(self.state), sort_keys=True),
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        checkpoints.load_weights(folder, model or self.model)
        self.ledger = Ledger(**checkpoints.read_extra(folder)["ledger"])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_optimizer(Path(checkpoint), self.optimizer, self.lr_scheduler)

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_scaler(Path(checkpoint), self.accelerator.scaler)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_rng(Path(checkpoint))
