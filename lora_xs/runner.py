"""`run(spec) -> Record`: the story of one run, readable top to bottom."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_xs.atomic import guarded, out_of_space, write_json
from lora_xs.environment import describe_environment, peak_memory_mib
from lora_xs.ingredients import Ingredients
from lora_xs.lease import Lease, RunBusy
from lora_xs.phases import Phases
from lora_xs.preparation import INPUTS, Prepared, prepare, rebuilt
from lora_xs.processes import asked, by_itself, first, gathered, joined, place, told
from lora_xs.records import ATTEMPT, COLLAPSED, RECORD, Record, Status, read_record, write_record
from lora_xs.spawning import run_in_processes
from lora_xs.spec import RunSpec, canonical_json
from lora_xs.training.divergence import Diverged
from lora_xs.training.logged import start_anew
from lora_xs.training.preemption import Preempted, StopRequest, listening

if TYPE_CHECKING:
    from lora_xs.training.loggers import Unbreakable
    from lora_xs.training.trainer import RunTrainer

log = logging.getLogger(__name__)


def run(spec: RunSpec, *, force: bool = False, command: str = "", ingredients: Ingredients | None = None) -> Record:
    """Train, evaluate and record `spec`; a finished record is returned as it is, a partial run goes on.

    force: train again from the start although a finished record lies there. command: how it was asked for, kept in
    the record. ingredients: where model, rows and tokens come from; without it they are read anew. Raises UserError
    for what is missing or mismatched, RunBusy when another process trains this run (or took it over), Preempted when
    asked to stop (a checkpoint is written). A diverged run is a record, not an exception.
    """
    folder = spec.folder
    finished = None if force or asked() > 1 else read_record(folder)
    if finished is not None:
        return finished
    if spec.trainer.processes > 1 and asked() == 1:
        return run_in_processes(spec, force=force, command=command)
    with joined(spec.trainer), _held(folder) as lease, _log_file(folder):
        finished = _told_record(lambda: _begin(spec, folder, force))
        if finished is not None:
            return finished
        with closing(_Attempt(spec, folder, command, lease, ingredients)) as attempt:
            return attempt.finish()


@contextmanager
def _held(folder: Path) -> Iterator[Lease | None]:
    """The run's lease, without which nothing is put in place; of several processes the first alone has it here."""
    with ExitStack() as stack:
        leases: list[Lease] = []
        told(lambda: leases.append(stack.enter_context(Lease(folder))))
        for lease in leases:
            stack.enter_context(guarded(lease.check))
        yield leases[0] if leases else None


def _begin(spec: RunSpec, folder: Path, force: bool) -> Record | None:
    """Make the folder ready, unless another process has finished the run meanwhile: its record then."""
    finished = None if force else read_record(folder)
    if finished is None:
        if force:
            _clear(folder)
        write_json(folder / "spec.json", spec.to_json())
    return finished


def _told_record(action: Callable[[], Record | None]) -> Record | None:
    """What `action` says in the first process, in all of them."""
    content = told(lambda: asdict(record) if (record := action()) else None)
    return Record(**content) if content else None


class _Attempt:
    """One try at a run: what `run` does once the folder is its own."""

    def __init__(
        self, spec: RunSpec, folder: Path, command: str, lease: Lease | None, ingredients: Ingredients | None
    ) -> None:
        self.spec, self.folder, self.lease, self.ingredients = spec, folder, lease, ingredients
        self.phases = Phases()
        self.train: dict[str, Any] = {}
        self.logger: Unbreakable | None = None
        self.written: Record | None = None
        self.environment: dict[str, Any] = {}
        self.began = time.perf_counter()
        self.before = 0.0  # seconds that earlier attempts trained
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
                if self.lease is not None:
                    stop.checks.append(self.lease.check)
                prepared = prepare(self.spec, self.folder, stop, self.phases, self.ingredients)
                self.logger = prepared.logger
                self.train |= prepared.facts
                self.environment = describe_environment() | prepared.inputs
                prepared.trainer.ledger.attempts.append(
                    {
                        "started": self.run["started"],
                        "commit": self.environment["commit"],
                        "seconds": self._rounded(self.phases.seconds),
                    }
                )
                try:
                    self._train(prepared)
                    status, error = self._collapse(prepared.trainer)
                except Diverged as diverged:
                    status, error = "diverged", {"what": str(diverged), "step": diverged.step}
                    prepared.milestones.write_history()  # how it came to that, since the last evaluation
                self._save(prepared)
                if prepared.tests and status == "finished":
                    self._answer_tests(prepared, stop)
                self._summarise(prepared)
                told(stop.check)
        except RunBusy:  # the folder is another's now: nothing more is written there
            raise
        except (Preempted, KeyboardInterrupt) as stopped:
            if first():
                self._write("cancelled", {"what": str(stopped) or "interrupted"})
            raise
        except Exception as failure:
            if self.lease is not None:
                self.lease.check()  # in a folder that is another's now, or gone, any error may come of that
            log.exception("failed")
            full = out_of_space(failure)  # not the run's fault: it goes on where it stands
            if first():
                with suppress(OSError) if full else nullcontext():
                    self._write("cancelled" if full else "failed", {"what": f"{type(failure).__name__}: {failure}"})
            raise
        recorded = _told_record(lambda: self._record(status, error))
        assert recorded is not None
        return recorded

    def close(self) -> None:
        """Give the logger the record that was written, a failed attempt's too; a server may take its time now."""
        if self.logger is not None:
            self.logger.finish(self.written)

    def _record(self, status: Status, error: dict[str, Any] | None) -> Record:
        record = self._write(status, error)
        log.info("recorded as %s", status)
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        return record

    def _train(self, prepared: Prepared) -> None:
        """Train, from the newest sound checkpoint where there is one; responses are also scored before the start."""
        from lora_xs.training.checkpoints import newest_sound

        trainer = prepared.trainer
        root = self.folder / "checkpoints"
        name = told(lambda: found.name if (found := newest_sound(root, self.spec.signature)) else None)
        checkpoint = root / name if name else None
        if checkpoint is not None:
            log.info("going on from %s", checkpoint.name)
        with self.phases("training"):
            try:
                # by `train` itself: what is evaluated before it counts as prepared, and is not spread over processes
                start = checkpoint is None and self.spec.task.kind == "instruction"
                trainer.args.eval_on_start = start and trainer.eval_dataset is not None
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
                if self.spec.evaluation.every == "end" and trainer.eval_dataset is not None:
                    trainer.evaluate()
            finally:
                prepared.progress.close()

    def _collapse(self, trainer: RunTrainer) -> tuple[Status, dict[str, Any] | None]:
        """A run that ends answering the same to every row, having once done better, has diverged; say since when."""
        lines = [line for line in trainer.ledger.evaluations() if "constant_prediction" in line]
        steady = next((i for i, line in enumerate(reversed(lines)) if not line["constant_prediction"]), len(lines))
        if 0 < steady < len(lines):
            first = lines[-steady]
            return "diverged", {
                "what": COLLAPSED,
                "step": first["step"],
                "epoch": first["epoch"],
            }
        return "finished", None

    def _save(self, prepared: Prepared) -> None:
        """Save the last adapter, and gather what training itself leaves in the record."""
        trainer = prepared.trainer
        trainer.mark_time()
        ledger = trainer.ledger
        with self.phases("saving"):
            size = trainer.save_adapter(self.folder / "adapter" / "last")
        evaluations = ledger.evaluations()
        last = evaluations[-1] if evaluations else None
        self.train |= {
            "start": next((line for line in ledger.history if line["kind"] == "start"), None),
            "evaluations": evaluations,
            "best": ledger.best,
            "last": last,
            "score": (ledger.best if self.spec.evaluation.select == "best" else last) or {},
            "steps": trainer.state.global_step,
            **trainer.closing_facts(),
            "tokens": ledger.tokens,
            "padded_tokens": ledger.padded,
            "batches_digest": f"{ledger.batches:016x}",
            "adapter_bytes": size,
            "train_seconds": round(ledger.train_seconds, 3),
            "tokens_per_second": round(ledger.tokens / max(ledger.train_seconds, 1e-9), 1),
        }

    def _answer_tests(self, prepared: Prepared, stop: StopRequest) -> None:
        """Put the selected adapter to the task's tests."""
        which = self.spec.evaluation.select
        line = self.train[which]
        self.train["selected"] = {"which": which} | {key: line[key] for key in ("step", "epoch") if line}
        with self.phases("tests"):
            if self.spec.evaluation.engine == "vllm":
                self.train["tests"] = told(by_itself()(lambda: self._examined(prepared, which, stop)))
            else:
                self.train["tests"] = self._examined(prepared, which, stop)

    def _examined(self, prepared: Prepared, which: str, stop: StopRequest) -> dict[str, Any]:
        """The tests' results. Several processes share the batches, which are those of a run that is alone."""
        from lora_xs.adapters.files import load_adapter
        from lora_xs.evaluation.examination import examine

        trainer, spec = prepared.trainer, self.spec
        folder = self.folder / "adapter" / which
        if spec.trainer.sharding == "none":
            model: Any = trainer.accelerator.unwrap_model(trainer.model)
            if which == "best" and self.train["best"] is not self.train["last"]:
                load_adapter(model, folder, head=True)
        else:
            model = trainer.as_trained(rebuilt(spec, prepared.location, folder))
        return examine(
            spec, model, prepared.tokenizer, prepared.tests, self.folder, base=prepared.location.folder, stop=stop
        )

    def _summarise(self, prepared: Prepared) -> None:
        """What is known only in the end. Of a run in several attempts: all training, the first one's preparations."""
        ledger = prepared.trainer.ledger
        self.train["peak_memory_mib"] = round(max(gathered(peak_memory_mib())), 1)  # of the process that used most
        own = self.phases.seconds
        self.before = max(0.0, ledger.train_seconds - own["training"]) if len(ledger.attempts) > 1 else 0.0
        whole = own | {"training": own["training"] + self.before} | ledger.attempts[0]["seconds"]
        self.train["seconds"] = self._rounded(whole)
        self.run["started"] = ledger.attempts[0]["started"]
        self.run["attempts"] = [{key: attempt[key] for key in ("started", "commit")} for attempt in ledger.attempts]

    @staticmethod
    def _rounded(seconds: dict[str, float]) -> dict[str, float]:
        return {phase: round(spent, 3) for phase, spent in seconds.items()}

    def _write(self, status: Status, error: dict[str, Any] | None) -> Record:
        self.run |= {"seconds": round(time.perf_counter() - self.began + self.before, 3), "error": error}
        record = Record(status, self.run, self.train, self.environment)
        write_record(self.folder, record)
        self.written = record
        if status in ("finished", "diverged"):
            (self.folder / INPUTS).unlink(missing_ok=True)
        return record


def _clear(folder: Path) -> None:
    for name in (RECORD, ATTEMPT, "metrics.jsonl", INPUTS):  # the record first: without it nothing looks finished
        (folder / name).unlink(missing_ok=True)
    for name in ("checkpoints", "adapter", "generations", "likelihoods"):
        shutil.rmtree(folder / name, ignore_errors=True)
    start_anew(folder)


@contextmanager
def _log_file(folder: Path) -> Iterator[None]:
    """Everything logged while the run lasts also goes to `log.txt` beside it."""
    rank, _ = place()
    whose = f"process {rank}: " if rank else ""
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    handler.setLevel(logging.ERROR if rank else logging.NOTSET)  # of the others, why they failed
    handler.setFormatter(logging.Formatter(f"%(asctime)s {whose}%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
        logging.captureWarnings(False)
