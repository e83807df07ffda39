"""What happens between optimiser steps: progress, timed checkpoints, stop requests, scores, the best adapter."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lora_xs.atomic import write_text
from lora_xs.evaluation.direction import better
from lora_xs.processes import most, told
from lora_xs.training.divergence import Diverged
from lora_xs.training.loggers import Unbreakable
from lora_xs.training.preemption import StopRequest
from lora_xs.training.progress import Progress
from lora_xs.training.trainer import RunTrainer

BESIDE = ("loss", "constant_prediction")  # the mean over rows or tokens, and whether all answers were the same


class Milestones(TrainerCallback):
    """Attach to a RunTrainer after it is built: `trainer.add_callback(Milestones(trainer, …))`."""

    def __init__(
        self, trainer: RunTrainer, progress: Progress, stop: StopRequest, logger: Unbreakable | None, folder: Path
    ) -> None:
        self.trainer, self.progress, self.stop, self.logger, self.folder = trainer, progress, stop, logger, folder
        self._saved_at = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.progress.start(state.global_step, state.max_steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        self.trainer.end_step()
        self.progress.step()
        last_of_epoch = state.global_step % self.trainer.steps_an_epoch() == 0 or state.global_step >= state.max_steps
        # at an epoch's end the evaluation comes first: a checkpoint before it would lose that evaluation
        if not last_of_epoch:
            due = time.monotonic() - self._saved_at >= self.trainer.spec.trainer.checkpoint_seconds
            # of several processes one has the signal and each its own clock: they save at the same step or hang
            if any(most(self.stop.signum or 0, due)):
                control.should_save = True
        return control

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> TrainerControl:
        trainer = self.trainer
        trainer.read_losses()
        ledger, spec = trainer.ledger, trainer.spec
        scores = {k.removeprefix("eval_"): v for k, v in metrics.items()}
        if not all(math.isfinite(scores[name]) for name in (*spec.task.metrics, "loss")):
            raise Diverged(state.global_step, scores["loss"])
        line = {
            "kind": "evaluation",
            "epoch": round(trainer.epoch(), 6),
            "step": state.global_step,
            "train_loss": ledger.close_epoch(),
            **{name: scores[name] for name in (*spec.task.metrics, *BESIDE) if name in scores},
        }
        ledger.history.append(line)
        main = spec.task.main_metric
        if state.global_step == 0:  # before training: where the run starts from, not one of its results
            line["kind"] = "start"
        elif ledger.best is None or better(main, line[main], ledger.best[main]):
            ledger.best, ledger.without_better = line, 0
            trainer.save_adapter(self.folder / "adapter" / "best")
            control.should_save = True  # weights and the line that names them go on together after a kill
        else:
            ledger.without_better += 1
        patience = spec.trainer.early_stopping
        if patience is not None and ledger.without_better >= patience:
            control.should_training_stop = True
        self.progress.evaluated(line)
        self.write_history()
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._saved_at = time.monotonic()
        self.write_history()
        self.stop.agree()
        told(self.stop.raise_if_asked)

    def write_history(self) -> None:
        """Rewrite metrics.jsonl whole from the ledger, and give it to the logger."""
        history = self.trainer.ledger.history
        text = "".join(json.dumps(line, sort_keys=True, allow_nan=False) + "\n" for line in history)
        told(lambda: write_text(self.folder / "metrics.jsonl", text))
        if self.logger is not None:
            self.logger.history(history)
