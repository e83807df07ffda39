"""Everything of a run before its first step: rows, base model, adapter, trainer, each checked before the next."""

from __future__ import annotations

import dataclasses
import json
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_xs import source_lock
from lora_xs.atomic import write_json
from lora_xs.errors import UserError
from lora_xs.imports import import_libraries
from lora_xs.ingredients import Ingredients
from lora_xs.phases import Phases
from lora_xs.processes import first, first_in_turn, told
from lora_xs.spec import RunSpec
from lora_xs.spec.runspec import adapter_content, adapter_folder
from lora_xs.training.loggers import check_logger, open_logger
from lora_xs.training.preemption import StopRequest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lora_xs.data.questions import QuestionSet
    from lora_xs.models import Location
    from lora_xs.training.loggers import Unbreakable
    from lora_xs.training.milestones import Milestones
    from lora_xs.training.progress import Progress
    from lora_xs.training.trainer import RunTrainer

INPUTS = "inputs.json"  # beside the checkpoints: what a resumed run must find again


@dataclass
class Prepared:
    """A run about to train. facts: the record's `train` block so far. inputs: the identities of what went in."""

    trainer: RunTrainer
    tokenizer: PreTrainedTokenizerBase
    location: Location
    tests: list[QuestionSet]
    facts: dict[str, Any]
    inputs: dict[str, Any]
    logger: Unbreakable | None
    progress: Progress
    milestones: Milestones


def prepare(
    spec: RunSpec, folder: Path, stop: StopRequest, phases: Phases, ingredients: Ingredients | None = None
) -> Prepared:
    """Load and check all that `spec` names. Raises UserError for what is missing, before torch is imported.

    ingredients: where model, rows and tokens come from; without it they are read anew.
    """
    told(lambda: check_logger(spec))
    ingredients = ingredients or Ingredients()
    start = adapter_folder(Path(spec.start_from.run), spec.start_from.which) if spec.start_from.run else None
    location = ingredients.location(spec)
    task, data = spec.task, spec.data
    with phases("rows"):
        rows = ingredients.rows(spec)
        tests = [ingredients.test(spec, name) for name in task.tests]
    _check_installed(spec, tests)

    import_libraries(quantised=spec.model.quantization != "none")
    from transformers import set_seed

    from lora_xs.adapters import attach
    from lora_xs.adapters.estimation import EstimationRows
    from lora_xs.adapters.files import load_adapter
    from lora_xs.adapters.ranks import share_start
    from lora_xs.adapters.trainable import count
    from lora_xs.adapters.xs import describe_factors
    from lora_xs.models import describe_tokenizer
    from lora_xs.models.unpadded import unpad_as_asked
    from lora_xs.training.labels import LabelTrainer
    from lora_xs.training.milestones import Milestones
    from lora_xs.training.progress import Progress
    from lora_xs.training.random_state import own_stream
    from lora_xs.training.responses import ResponseTrainer

    instruction = task.kind == "instruction"
    set_seed(spec.seed)  # before anything random is built: head, R, factors
    with phases("model"):
        model, tokenizer = ingredients.base(spec, location, 0 if instruction else max(1, len(rows.labels)))
    model.config.name_or_path = model.name_or_path = spec.model.hub or spec.model.name
    if tests:
        from lora_xs.evaluation.generation.hf import context_of
        from lora_xs.evaluation.readings import check_fit

        check_fit(spec, tests, tokenizer, context_of(model))
    unpadded = not instruction and unpad_as_asked(model, spec)
    with phases("tokens"):
        material = ingredients.material(spec, rows, tokenizer)
    # beside the checkpoints: what a resumed run's R belongs to, and with them gone in the end
    seen = EstimationRows(spec, material.train, material.collate, kept=folder / "checkpoints" / "start")
    set_seed(spec.seed)  # the adapter draws the same numbers whatever head or model came before
    with phases("adapter"):
        # LoRA-SB's estimate is made by all processes together; other factors by the first, which stores them
        with nullcontext() if spec.method.name == "lora_sb" else first_in_turn():
            model = attach(model, spec, seen)
        if start is not None:
            load_adapter(model, start, head=spec.start_from.head)
        share_start(model)
    inputs = {"model": location.identity, "data": rows.identity, "tokens": material.identity}
    if start is not None:
        inputs["start"] = adapter_content(start, spec.start_from.which)
    if instruction:
        inputs |= {"tokenizer": describe_tokenizer(tokenizer), "tests": {test.name: test.identity for test in tests}}
    if data.lock is not None:
        source_lock.check(Path(data.lock), spec, inputs)
    told(lambda: _check_same(folder, inputs))
    counts = count(model, spec.model.head)
    facts = {
        "parameters": asdict(counts) | {"trainable": counts.trainable},
        "factors": seen.report or describe_factors(model),
        **material.facts,
    }
    logger = open_logger(spec, folder) if first() else None  # a server that does not answer is no training time
    with ExitStack() as until_ready:
        if logger is not None:
            until_ready.callback(logger.finish, None)
        set_seed(spec.seed)  # training sees the same stream of random numbers whatever was drawn above
        kind: type[RunTrainer] = ResponseTrainer if instruction else LabelTrainer
        trainer = kind(
            spec,
            folder,
            model=model,
            train_dataset=material.train,
            eval_dataset=material.validation,
            data_collator=material.collate,
            unpadded=unpadded,
        )
        own_stream(spec.seed)
        progress = Progress(f"{task.name} {folder.parent.name} seed {spec.seed}", task.main_metric, shown=first())
        milestones = Milestones(trainer, progress, stop, logger, folder)
        trainer.add_callback(milestones)
        until_ready.pop_all()
    return Prepared(trainer, tokenizer, location, tests, facts, inputs, logger, progress, milestones)


def _check_installed(spec: RunSpec, tests: list[QuestionSet]) -> None:
    """A scorer or an engine that is missing must not be found missing after hours of training."""
    from lora_xs.evaluation.answers import independent

    if spec.evaluation.scorer == "math_verify" and any(test.family != "choice" for test in tests):
        independent.require()
    if spec.evaluation.engine == "vllm" and tests and find_spec("vllm") is None:
        raise UserError("evaluation.engine=vllm needs vLLM; run `pip install 'lora-xs[vllm]'`, or use engine=hf")


def rebuilt(spec: RunSpec, location: Location, adapter: Path) -> Any:
    """The base model read anew, with the adapter saved in `adapter`: for one process, after a sharded training."""
    from transformers import set_seed

    from lora_xs.adapters import attach
    from lora_xs.adapters.files import load_adapter
    from lora_xs.models import load_decoder

    set_seed(spec.seed)
    model, _ = load_decoder(spec.model, location)
    # LoRA-SB's factors are in the file, as where a run starts from another
    saved = spec.replace(start_from=dataclasses.replace(spec.start_from, run=str(adapter)))
    model = attach(model, saved if spec.method.name == "lora_sb" else spec, None)
    load_adapter(model, adapter, head=True)
    return model


def _check_same(folder: Path, now: dict[str, Any]) -> None:
    """A resumed run must see the rows and weights its first attempt saw. Raises UserError where they differ."""
    path = folder / INPUTS
    now = json.loads(json.dumps(now))
    if (folder / "checkpoints").is_dir() and path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in now if before.get(key) != now[key]]
        if changed:
            raise UserError(
                f"{folder}: {', '.join(changed)} changed since this run began; restore them, or start it "
                "again with force=true"
            )
    write_json(path, now)
