"""The Hugging Face Trainer with two learning rates, exact gradient accumulation, our checkpoints and our ledger.

What differs between labelled texts and responses is in `labels.py` and `responses.py`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from transformers import EvalPrediction, PrinterCallback, Trainer

from lora_xs.adapters.files import save_adapter
from lora_xs.processes import counted, place, summed, told
from lora_xs.spec import RunSpec
from lora_xs.training import checkpoints
from lora_xs.training.arguments import training_arguments
from lora_xs.training.batches import BatchOrder
from lora_xs.training.divergence import Diverged
from lora_xs.training.ledger import Ledger, pending_to_list
from lora_xs.training.optimizer import build_optimizer, build_schedule
from lora_xs.training.sharding import layers_to_shard, unsharded
from lora_xs.training.shares import IDLE, MicroBatches, ScoredRows, Spare, of_all


class RunTrainer(Trainer):
    """Trains one RunSpec. `ledger` holds what was seen; checkpoints are those of `lora_xs.training.checkpoints`.

    A subclass says the loss (`compute_loss`, or `compute_loss_func` among the arguments), the rows' order, and what of
    a batch is counted.
    """

    optimizer: Any
    lr_scheduler: Any
    loss_is_scaled_for_ga = True

    def __init__(self, spec: RunSpec, folder: Path, *, unpadded: bool = False, **arguments: Any) -> None:
        """unpadded: whether the model computes none of its batches' padding."""
        self.spec, self.folder, self.unpadded = spec, folder, unpadded
        self.ledger = Ledger()
        self._own = Ledger()  # what this process counted since it last told the others
        self._pending: list[Tensor] = []  # losses of finished steps, still on the device
        self._step_loss: Tensor | None = None
        self._rate = 0.0
        self._clock = time.perf_counter()
        validates = arguments.get("eval_dataset") is not None
        layers = layers_to_shard(arguments["model"]) if spec.trainer.sharding == "fsdp" else ()
        score = arguments.pop("compute_metrics")
        super().__init__(
            args=training_arguments(spec, folder, validates, layers, unpadded),
            compute_metrics=lambda prediction: score(self._of_all(prediction)),
            **arguments,
        )
        self.remove_callback(PrinterCallback)  # it would print to standard output, which is the result's

    def order(self) -> BatchOrder:
        """The training rows, in the order of optimiser batches."""
        raise NotImplementedError

    def closing_facts(self) -> dict[str, Any]:
        """What else the record's `train` block says in the end."""
        return {}

    def scored_collator(self) -> Any:
        """Makes the batches of an evaluation."""
        return self.data_collator

    def get_train_dataloader(self) -> DataLoader[Any]:
        rank, ranks = place()
        batches = MicroBatches(self.order(), self.args.per_device_train_batch_size, rank, ranks)
        return self._loader(self.train_dataset, batches, self.data_collator)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        batches = ScoredRows(len(rows), self.args.per_device_eval_batch_size, *place())
        return self._loader(rows, batches, self.scored_collator())

    def _loader(self, rows: Any, batches: Any, collate: Any) -> DataLoader[Any]:
        """Not prepared by accelerate, whose shares repeat rows: see `lora_xs.training.shares`."""
        pin = self.args.dataloader_pin_memory
        return DataLoader(rows, batch_sampler=batches, collate_fn=Spare(collate, rows), pin_memory=pin)

    def evaluation_loop(self, *arguments: Any, **named: Any) -> Any:
        # each process keeps its own rows; they meet in `_of_all`, before they are scored
        self.gather_function = lambda tensor: tensor
        return super().evaluation_loop(*arguments, **named)

    def _of_all(self, prediction: EvalPrediction) -> EvalPrediction:
        rows = len(self.eval_dataset)
        return EvalPrediction(of_all(prediction.predictions, rows), of_all(prediction.label_ids, rows))

    def steps_an_epoch(self) -> int:
        """Optimiser steps, the last of which may have fewer rows."""
        return -(-len(self.train_dataset) // self.spec.trainer.batch_size)

    def rows_of_step(self) -> int:
        """Rows of the optimiser step at hand, over all processes."""
        before = self.state.global_step % self.steps_an_epoch() * self.spec.trainer.batch_size
        return min(self.spec.trainer.batch_size, len(self.train_dataset) - before)

    def epoch(self) -> float:
        """Epochs trained so far, by rows; the Trainer's own count goes by micro-batches, whatever rows they hold."""
        whole, steps = divmod(self.state.global_step, self.steps_an_epoch())
        return whole + steps * self.spec.trainer.batch_size / len(self.train_dataset)

    def _run_epoch(self, *arguments: Any, **named: Any) -> None:
        """No step for a run that was over when it was interrupted: the Trainer takes one before it looks."""
        patience = self.spec.trainer.early_stopping
        out_of_patience = patience is not None and self.ledger.without_better >= patience
        if out_of_patience or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*arguments, **named)

    def _prepare_for_training(self, *arguments: Any, **named: Any) -> Any:
        prepared = super()._prepare_for_training(*arguments, **named)
        _, ranks = place()
        model = getattr(self.model_wrapped, "_orig_mod", self.model_wrapped)
        if self.args.world_size != ranks or (ranks > 1 and not isinstance(model, DistributedDataParallel | FSDPModule)):
            raise RuntimeError(f"{ranks} processes were started, but the Trainer trains each alone")
        return prepared

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> AbstractContextManager[Any]:
        """bf16 of a sharded model: accelerate puts its autocast around the forward pass of any other.

        The bf16 copies of fp32 weights then live until the backward pass, as in one process; gradient checkpointing
        spares them.
        """
        if self.is_fsdp_enabled and self.args.bf16:
            return torch.autocast(self.args.device.type, torch.bfloat16, cache_enabled=cache_enabled)
        return super().autocast_smart_context_manager(cache_enabled)

    def save_adapter(self, folder: Path) -> int:
        """`lora_xs.adapters.files.save_adapter`, by the first process alone; all call this."""
        model = self._bare(self.model)
        with unsharded(model):
            return told(lambda: save_adapter(model, folder, self.spec.model.head))

    def _bare(self, model: nn.Module) -> nn.Module:
        """The model under the names it had before it was wrapped or compiled."""
        bare: nn.Module = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        return bare

    def as_trained(self, model: nn.Module) -> nn.Module:
        """`model` on this process's device, with the autocast that accelerate left on the models it trained whole."""
        placed = model.to(self.args.device)
        if self.args.bf16:
            placed = self._bare(self.accelerator.prepare_model(placed, device_placement=False, evaluation_mode=True))
        return placed

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
        if IDLE not in inputs:
            rows = self.contents(inputs)
            computed = sum(tokens for _, tokens in rows) if self.unpadded else inputs["input_ids"].numel()
            self._own.saw(rows, computed, self.state.global_step)
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._rate = float(self.lr_scheduler.get_last_lr()[0])  # after the step it is the next one's
        self._step_loss = loss if self._step_loss is None else self._step_loss + loss
        return loss

    def contents(self, inputs: Mapping[str, Any]) -> list[tuple[bytes, int]]:
        """Of each row of a batch: bytes that stand for it, and its tokens."""
        raise NotImplementedError

    def end_step(self) -> None:
        """Close an optimiser step: its loss joins the pending ones, read from the device every `log_steps`."""
        if self._step_loss is not None:
            self._pending.append(self._step_loss)
            self._step_loss = None
        if self.state.global_step % self.spec.trainer.log_steps == 0:
            self.read_losses()

    def read_losses(self) -> None:
        """Move pending losses and counts, those of all processes together, into the ledger and its history.

        All processes call this at the same steps. Raises Diverged at the first loss that is not finite.
        """
        _, ranks = place()
        self.ledger.add(counted(self._own.counts()))
        self._own = Ledger()
        losses = [loss / ranks for loss in summed(pending_to_list(self._pending))]  # each is `ranks` times its share
        first = self.state.global_step - len(losses) + 1
        self._pending = []
        for offset, loss in enumerate(losses):
            if not np.isfinite(loss):
                self.ledger.saw_losses(losses[:offset])
                raise Diverged(first + offset, loss)
        self.ledger.saw_losses(losses)
        if losses and self.state.global_step % self.spec.trainer.log_steps == 0:
            line = {"kind": "train", "step": self.state.global_step, "epoch": self.epoch(), "loss": losses[-1]}
            self.ledger.history.append({**line, "learning_rate": self._rate})

    def mark_time(self) -> None:
        """Add the seconds since the last mark to the ledger, so that interruptions do not lose them."""
        now = time.perf_counter()
        self.ledger.train_seconds += now - self._clock
        self._clock = now

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.read_losses()
        self.mark_time()
        extra = {"signature": self.spec.signature, "world_size": self.args.world_size, "ledger": self.ledger.to_json()}
        checkpoints.save_checkpoint(
            Path(self.args.output_dir),
            self.state.global_step,
            self._bare(model),
            self.optimizer,
            self.lr_scheduler,
            self.accelerator.scaler,
            extra,
            json.dumps(asdict(self.state), sort_keys=True),
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        checkpoints.load_weights(folder, self._bare(model or self.model))
        own = self.ledger.attempts
        self.ledger = Ledger(**checkpoints.read_extra(folder)["ledger"])
        self.ledger.attempts += own

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_optimizer(Path(checkpoint), self.optimizer, self.lr_scheduler)

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_scaler(Path(checkpoint), self.accelerator.scaler)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_rng(Path(checkpoint), self.spec.seed)
