"""`run(spec) -> Record`: the story of one run, readable top to bottom."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_xs.atomic import write_json
from lora_xs.environment import describe_environment, peak_memory_mib
from lora_xs.lease import Lease
from lora_xs.records import RECORD, Record, Status, read_record, write_record
from lora_xs.spec import RunSpec, canonical_json
from lora_xs.spec.runspec import adapter_folder
from lora_xs.training.divergence import Diverged
from lora_xs.training.preemption import Preempted, StopRequest, listening

if TYPE_CHECKING:
    from lora_xs.training.trainer import RunTrainer

log = logging.getLogger(__name__)


def run(spec: RunSpec, *, force: bool = False, command: str = "") -> Record:
    """Train, evaluate and record `spec`; a finished record is returned as it is, a partial run goes on.

    force: train again from the start although a finished record lies there. command: how it was asked for, kept in
    the record. Raises UserError for what is missing or mismatched, RunBusy when another process trains this run,
    Preempted when asked to stop (a checkpoint is written). A diverged run is a record, not an exception.
    """
    folder = spec.folder
    finished = None if force else read_record(folder)
    if finished is not None:
        return finished
    with Lease(folder), _log_file(folder):
        finished = None if force else read_record(folder)  # another process may have finished it meanwhile
        if finished is not None:
            return finished
        if force:
            _clear(folder)
        write_json(folder / "spec.json", spec.to_json())
        return _Attempt(spec, folder, command).finish()


class _Attempt:
    """One try at a run: what `run` does once the folder is its own."""

    def __init__(self, spec: RunSpec, folder: Path, command: str) -> None:
        self.spec, self.folder = spec, folder
        self.seconds: dict[str, float] = {}
        self.train: dict[str, Any] = {}
        self.environment: dict[str, Any] = {}
        self.started = time.perf_counter()
        self.run: dict[str, Any] = {
            "signature": spec.signature,
            "spec": json.loads(canonical_json(spec)),
            "protocol": spec.protocol,
            "provenance": dict(spec.provenance),
            "seed": spec.seed,
            "command": command,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def finish(self) -> Record:
        """Go through with it and write the record its outcome deserves."""
        try:
            with listening() as stop:
                trainer = self._prepare(stop)
                try:
                    self._train(trainer)
                    status, error = self._collapse(trainer)
                except Diverged as diverged:
                    status, error = "diverged", {"what": str(diverged), "step": diverged.step}
            self._summarise(trainer)
        except (Preempted, KeyboardInterrupt) as stopped:
            self._write("cancelled", {"what": str(stopped) or "interrupted"})
            raise
        except Exception as failure:
            log.exception("failed")
            self._write("failed", {"what": f"{type(failure).__name__}: {failure}"})
            raise
        record = self._write(status, error)
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        return record

    def _prepare(self, stop: StopRequest) -> RunTrainer:
        """Rows, base model, adapter, trainer: everything before the first step."""
        from lora_xs.data import load_rows
        from lora_xs.models import load_base, locate

        spec = self.spec
        location = locate(spec.model)  # what is missing is said before torch is imported
        with self._phase("rows"):
            rows = load_rows(
                spec.task.name, source=spec.data.source, root=spec.data.root, revision=spec.task.revision
            ).limited(spec.task.train_rows, spec.task.validation_rows, spec.seed)

        from transformers import set_seed

        from lora_xs.adapters import attach
        from lora_xs.adapters.estimation import EstimationRows
        from lora_xs.adapters.files import load_adapter
        from lora_xs.adapters.trainable import count
        from lora_xs.adapters.xs import describe_factors
        from lora_xs.data.collate import Collator
        from lora_xs.data.tokens import tokenize_rows
        from lora_xs.training.loggers import open_logger
        from lora_xs.training.milestones import Milestones
        from lora_xs.training.progress import Progress
        from lora_xs.training.trainer import RunTrainer

        logger = open_logger(spec, self.folder)
        set_seed(spec.seed)  # before anything random is built: head, R, factors
        with self._phase("model"):
            model, tokenizer = load_base(spec.model, location, max(1, len(rows.labels)))
            model.config.name_or_path = model.name_or_path = spec.model.hub or spec.model.name
        with self._phase("tokens"):
            tokens = tokenize_rows(rows, tokenizer, spec.task.max_length)
        collate = Collator(tokenizer, padding=spec.trainer.padding, max_length=spec.task.max_length)
        # beside the checkpoints: what a resumed run's R belongs to, and with them gone in the end
        seen = EstimationRows(spec, tokens.train, collate, kept=self.folder / "checkpoints" / "start")
        set_seed(spec.seed)  # the adapter draws the same numbers whatever head or model came before
        with self._phase("adapter"):
            model = attach(model, spec, seen)
            if spec.start_from.run:
                start = adapter_folder(Path(spec.start_from.run), spec.start_from.which)
                load_adapter(model, start, head=spec.start_from.head)
        self.environment = describe_environment() | {
            "model": location.identity,
            "data": rows.identity,
            "tokens": tokens.identity,
        }
        self._check_same_world()
        counts = count(model, spec.model.head)
        self.train["parameters"] = asdict(counts) | {"trainable": counts.trainable}
        self.train["truncated_rows"] = tokens.truncated
        self.train["factors"] = seen.report or describe_factors(model)
        labels = tokens.validation["labels"]
        self.train["majority"] = _majority(spec, labels)
        set_seed(spec.seed)  # training sees the same stream of random numbers whatever was drawn above
        trainer = RunTrainer(
            spec,
            self.folder,
            model=model,
            train_dataset=tokens.train,
            eval_dataset=_longest_first(tokens.validation),
            data_collator=collate,
            compute_metrics=_scorer(spec),
        )
        progress = Progress(f"{spec.task.name} {self.folder.parent.name} seed {spec.seed}", spec.task.main_metric)
        trainer.add_callback(Milestones(trainer, progress, stop, logger, self.folder))
        self.logger, self.progress = logger, progress
        return trainer

    def _train(self, trainer: RunTrainer) -> None:
        """Train, from the newest sound checkpoint where there is one."""
        from lora_xs.training.checkpoints import newest_sound

        checkpoint = newest_sound(self.folder / "checkpoints", self.spec.signature)
        if checkpoint is not None:
            log.info("going on from %s", checkpoint.name)
        with self._phase("training"):
            try:
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
                if self.spec.evaluation.every == "end":
                    trainer.evaluate()
            finally:
                self.progress.close()

    def _collapse(self, trainer: RunTrainer) -> tuple[Status, dict[str, Any] | None]:
        """A run that ends answering the same to every row, having once done better, has diverged; say since when."""
        lines = trainer.ledger.evaluations()
        steady = next((i for i, line in enumerate(reversed(lines)) if not line["constant_prediction"]), len(lines))
        if 0 < steady < len(lines):
            first = lines[-steady]
            return "diverged", {
                "what": "the answers collapsed to a constant",
                "step": first["step"],
                "epoch": first["epoch"],
            }
        return "finished", None

    def _summarise(self, trainer: RunTrainer) -> None:
        """Save the last adapter and gather what the record's `train` block holds."""
        from lora_xs.adapters.files import save_adapter

        trainer.mark_time()
        ledger, spec = trainer.ledger, self.spec
        with self._phase("saving"):
            model = trainer.accelerator.unwrap_model(trainer.model)
            size = save_adapter(model, self.folder / "adapter" / "last", spec.model.head)
        evaluations = ledger.evaluations()
        last = evaluations[-1] if evaluations else None
        self.train |= {
            "evaluations": evaluations,
            "best": ledger.best,
            "last": last,
            "score": (ledger.best if spec.evaluation.select == "best" else last) or {},
            "steps": trainer.state.global_step,
            "tokens": ledger.tokens,
            "padded_tokens": ledger.padded,
            "batches_digest": f"{ledger.batches:016x}",
            "adapter_bytes": size,
            "train_seconds": round(ledger.train_seconds, 3),
            "tokens_per_second": round(ledger.tokens / max(ledger.train_seconds, 1e-9), 1),
            "peak_memory_mib": round(peak_memory_mib(), 1),
            "seconds": {phase: round(spent, 3) for phase, spent in self.seconds.items()},
        }
        if self.logger is not None:
            main = spec.task.main_metric
            summary = {f"best/{main}": (ledger.best or {}).get(main), f"last/{main}": (last or {}).get(main)}
            self.logger.finish(summary | {"signature": spec.signature})

    def _check_same_world(self) -> None:
        """A resumed run must see the rows and weights its first attempt saw. Raises UserError where they differ."""
        from lora_xs.errors import UserError

        path = self.folder / "inputs.json"
        now = {key: self.environment[key] for key in ("model", "data", "tokens")}
        if (self.folder / "checkpoints").is_dir() and path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            changed = [key for key in now if before.get(key) != now[key]]
            if changed:
                raise UserError(
                    f"{self.folder}: {', '.join(changed)} changed since this run began; restore them, or start it "
                    "again with force=true"
                )
        write_json(path, now)

    def _write(self, status: Status, error: dict[str, Any] | None) -> Record:
        self.run |= {"seconds": round(time.perf_counter() - self.started, 3), "error": error}
        record = Record(status, self.run, self.train, self.environment)
        write_record(self.folder, record)
        if status in ("finished", "diverged"):
            (self.folder / "inputs.json").unlink(missing_ok=True)
        return record

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


def _scorer(spec: RunSpec) -> Any:
    """The Trainer's `compute_metrics`: the task's metrics in points, and whether every answer was the same."""
    from lora_xs.evaluation.classification import collapsed, score_predictions

    def score(prediction: Any) -> dict[str, Any]:
        scores = score_predictions(spec.task.metrics, prediction.predictions, prediction.label_ids, spec.task.kind)
        return {**scores, "constant_prediction": collapsed(prediction.predictions, spec.task.kind)}

    return score


def _majority(spec: RunSpec, labels: Any) -> dict[str, float]:
    import numpy as np

    from lora_xs.evaluation.classification import majority_baseline

    return majority_baseline(np.asarray(labels), spec.task.metrics, spec.task.kind)


def _longest_first(rows: Any) -> Any:
    """Validation rows by length: no metric depends on their order, padding does."""
    lengths = [len(ids) for ids in rows["input_ids"]]
    return rows.select(sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)))


def _clear(folder: Path) -> None:
    for name in ("checkpoints", "adapter"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (RECORD, "metrics.jsonl", "inputs.json"):
        (folder / name).unlink(missing_ok=True)


@contextmanager
def _log_file(folder: Path) -> Iterator[None]:
    """Everything logged while the run lasts also goes to `log.txt` beside it."""
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
        logging.captureWarnings(False)
