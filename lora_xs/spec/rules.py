"""What may not be combined, checked on the finished spec before anything heavy is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_xs.choices import LABELS
from lora_xs.errors import UserError
from lora_xs.spec.unread import check_unread

if TYPE_CHECKING:
    from lora_xs.spec.runspec import RunSpec

AS_LORA = ("lora", "rslora", "pissa", "lora_xs", "lora_sb")  # saved as, or convertible to, a plain LoRA
METRICS = {  # of lora_xs.evaluation.classification, and the loss of responses
    "classification": ("accuracy", "f1", "matthews"),
    "regression": ("pearson", "spearman"),
    "instruction": ("response_loss",),
}
CAN_START = ("lora", "rslora", "pissa", "vera", "lora_xs", "lora_sb")


def check(spec: RunSpec) -> None:
    """Raise UserError, one line, for the first combination that makes no sense."""
    _check_method(spec)
    _check_rank(spec)
    _check_numbers(spec)
    _check_estimate(spec)
    _check_instruction(spec)
    _check_places(spec)
    check_unread(spec)


def _check_method(spec: RunSpec) -> None:
    method, init = spec.method, spec.init
    if init.name not in method.inits:
        raise UserError(f"init={init.name} does not go with method={method.name}; allowed: {', '.join(method.inits)}")
    if spec.model.quantization != "none" and method.name in ("full_ft", "pissa"):
        raise UserError(
            f"model.quantization={spec.model.quantization} cannot be trained by method={method.name}; "
            "use quantization=none, or one of head_only, lora, rslora, vera, lora_xs, lora_sb"
        )
    if spec.trainer.sharding == "fsdp" and (spec.model.quantization != "none" or spec.trainer.precision == "fp16"):
        raise UserError(
            f"trainer.sharding=fsdp does not go with model.quantization={spec.model.quantization} and "
            f"trainer.precision={spec.trainer.precision}; use quantization=none and fp32 or bf16, or sharding=none"
        )
    half = spec.model.dtype != "float32" or spec.trainer.precision in ("bf16", "fp16")
    if spec.model.attention == "flash_attention_2" and not half:
        raise UserError(
            "model.attention=flash_attention_2 computes in half precision alone; give model.dtype=bfloat16 or "
            "trainer.precision=bf16, or use model.attention=sdpa"
        )
    if method.save_factors and method.name not in ("lora_xs", "lora_sb", "vera"):
        raise UserError(f"method.save_factors=true has no meaning for method={method.name}; leave it out")
    if (method.d_initial is None) == (method.name == "vera"):
        raise UserError(f"method.d_initial={method.d_initial} is VeRA's, and VeRA's alone; method={method.name}")
    if spec.start_from.run and method.name not in CAN_START:
        raise UserError(f"start_from does not go with method={method.name}; allowed: {', '.join(CAN_START)}")
    if spec.model.kind == "decoder" and spec.task.kind in ("classification", "regression"):
        raise UserError(
            f"model={spec.model.name} is a decoder but task={spec.task.name} needs an encoder; "
            "use model=minilm or model=roberta-large"
        )


def _check_instruction(spec: RunSpec) -> None:
    """Of instruction tuning: prompts, losses over response tokens, tests."""
    task, trainer, evaluation = spec.task, spec.trainer, spec.evaluation
    if task.kind != "instruction":
        if task.prompt or task.tests or trainer.loss != "rows":
            raise UserError(
                f"task={task.name} has labels, not responses: task.prompt, task.tests and trainer.loss={trainer.loss} "
                "go with an instruction task; leave them out"
            )
        if trainer.padding == "free" and (trainer.compile or spec.model.attention == "eager"):
            raise UserError(
                f"trainer.padding=free of an encoder does not go with model.attention={spec.model.attention} and "
                f"trainer.compile={str(trainer.compile).lower()}; use attention=sdpa and compile=false, or padding=auto"
            )
        return
    if trainer.compile == "cuda_graphs":
        raise UserError(
            f"trainer.compile=cuda_graphs wants batches of one shape, task={task.name} has none; use compile=true"
        )
    if spec.model.kind != "decoder":
        raise UserError(f"task={task.name} needs a decoder, model={spec.model.name} is none; use model=smollm2_135m")
    if spec.method.name == "head_only":
        raise UserError(f"method=head_only has nothing to train in task={task.name}: a language model has no new head")
    if task.prompt is None:
        raise UserError("task.prompt is missing; name a template of lora_xs/data/prompts.py")
    if trainer.loss == "rows" or (trainer.loss == "micro_batches") != (trainer.loss_rows is not None):
        raise UserError(
            f"trainer.loss={trainer.loss} with trainer.loss_rows={trainer.loss_rows}: give loss=tokens alone, or "
            "loss=micro_batches with the rows of a micro-batch"
        )
    if trainer.loss_rows is not None and trainer.batch_size % trainer.loss_rows:
        raise UserError(
            f"trainer.batch_size={trainer.batch_size} is not a multiple of trainer.loss_rows={trainer.loss_rows}"
        )
    if evaluation.select == "best" and not task.validation_rows:
        raise UserError(
            "evaluation.select=best needs validation rows; give task.validation_rows or evaluation.select=last"
        )
    generated = [test for test in task.tests if evaluation.reading != "likelihood" or test not in LABELS]
    unlimited = [test for test in generated if test not in evaluation.max_new_tokens]
    if unlimited:
        raise UserError(
            f"evaluation.max_new_tokens has no limit for {', '.join(unlimited)}; give one, e.g. "
            "evaluation.max_new_tokens=256"
        )
    if evaluation.engine == "vllm":
        if (evaluation.beams or 1) > 1 or evaluation.reading != "generation" or evaluation.merged:
            raise UserError(
                "evaluation.engine=vllm decodes greedily through a plain LoRA and does nothing else; give "
                "evaluation.beams=1 evaluation.reading=generation evaluation.merged=false, or engine=hf"
            )
        if spec.method.name not in AS_LORA:
            raise UserError(
                f"evaluation.engine=vllm reads plain LoRA adapters, method={spec.method.name} has none; use engine=hf"
            )


def _check_estimate(spec: RunSpec) -> None:
    """Of LoRA-SB's estimate; every other initialisation has the defaults here."""
    init = spec.init
    if init.samples is not None and init.fraction is not None:
        raise UserError(f"init.samples={init.samples} and init.fraction={init.fraction} say both; give one of them")
    for key, count in {"init.samples": init.samples, "init.batch_size": init.batch_size}.items():
        if count is not None and count < 1:
            raise UserError(f"{key}={count} must be at least 1")
    if init.fraction is not None and not 0 < init.fraction <= 1:
        raise UserError(f"init.fraction={init.fraction} must be above 0 and at most 1")
    if (init.matrix == "update_noise") != (init.noise is not None):
        raise UserError(f"init.noise={init.noise} goes with init.matrix=update_noise alone; init.matrix={init.matrix}")
    if init.noise is not None and init.noise < 0:
        raise UserError(f"init.noise={init.noise} must not be negative")
    if spec.method.name == "lora_sb" and not spec.method.save_factors:
        raise UserError("method.save_factors=false: LoRA-SB's factors follow from data, the adapter's file holds them")


def _check_rank(spec: RunSpec) -> None:
    if not spec.method.uses_rank:
        return
    if spec.rank is None or spec.rank < 1:
        raise UserError(f"rank.r={spec.rank} must be a whole number of at least 1")
    smallest = smallest_dimension(spec)
    if spec.method.name in ("lora_xs", "lora_sb", "pissa") and smallest is not None and spec.rank > smallest:
        raise UserError(
            f"rank.r={spec.rank} is above {smallest}, the smallest dimension of an adapted layer of "
            f"model={spec.model.name}; use rank.r={smallest} or less"
        )


def smallest_dimension(spec: RunSpec) -> int | None:
    """The smallest side of an adapted matrix, from the model's architecture; None where that is not known."""
    shape = spec.model.architecture
    if "hidden_size" not in shape:
        return None
    for key in ("hidden_size", "num_key_value_heads", "num_attention_heads", "head_dim"):
        if shape.get(key) is not None and not isinstance(shape[key], int):
            raise UserError(f"model.architecture.{key}={shape[key]!r} must be a whole number")
    sides = [shape["hidden_size"]]
    if any(name in ("k_proj", "v_proj") for name in spec.target_modules) and "num_key_value_heads" in shape:
        head = shape.get("head_dim") or shape["hidden_size"] // shape["num_attention_heads"]
        sides.append(int(head * shape["num_key_value_heads"]))
    return min(sides)


def _check_numbers(spec: RunSpec) -> None:
    trainer = spec.trainer
    at_least_one = {
        "trainer.epochs": trainer.epochs,
        "trainer.batch_size": trainer.batch_size,
        "trainer.max_steps": trainer.max_steps,
        "trainer.device_batch_size": trainer.device_batch_size,
        "trainer.early_stopping": trainer.early_stopping,
        "trainer.log_steps": trainer.log_steps,
        "trainer.processes": trainer.processes,
        "trainer.loss_rows": trainer.loss_rows,
        "evaluation.batch_size": spec.evaluation.batch_size,
        "evaluation.steps": spec.evaluation.steps,
        "evaluation.beams": spec.evaluation.beams,
        "evaluation.generation_tokens": spec.evaluation.generation_tokens,
        "task.test_rows": spec.task.test_rows,
        **{f"evaluation.max_new_tokens.{test}": n for test, n in spec.evaluation.max_new_tokens.items()},
        "task.train_rows": spec.task.train_rows,
        "task.validation_rows": spec.task.validation_rows,
        "launcher.threads": spec.launcher.threads,
    }
    for key, count in at_least_one.items():
        if count is not None and count < 1:
            raise UserError(f"{key}={count} must be at least 1")
    not_negative = {
        "trainer.learning_rate": trainer.learning_rate,
        "trainer.head_learning_rate": trainer.head_learning_rate,
        "trainer.weight_decay": trainer.weight_decay,
        "trainer.warmup_steps": trainer.warmup_steps,
        "trainer.max_grad_norm": trainer.max_grad_norm,
        "trainer.checkpoint_seconds": trainer.checkpoint_seconds,
        "init.std": spec.init.std,
        "seed": spec.seed,
    }
    for key, number in not_negative.items():
        if number is not None and number < 0:
            raise UserError(f"{key}={number} must not be negative")
    for key, share in {"trainer.warmup_ratio": trainer.warmup_ratio, "method.dropout": spec.method.dropout}.items():
        if not 0 <= share < 1:
            raise UserError(f"{key}={share} must be at least 0 and below 1")
    if spec.seed >= 2**32:
        raise UserError(f"seed={spec.seed} must be below 2**32, numpy's limit")
    if not all(0 <= beta < 1 for beta in trainer.betas):
        raise UserError(f"trainer.betas={list(trainer.betas)} must each be at least 0 and below 1")
    if trainer.device_batch_size and trainer.batch_size % trainer.device_batch_size:
        raise UserError(
            f"trainer.batch_size={trainer.batch_size} is not a multiple of "
            f"trainer.device_batch_size={trainer.device_batch_size}; choose a divisor"
        )
    if trainer.processes > trainer.batch_size:
        raise UserError(
            f"trainer.processes={trainer.processes} is more than the trainer.batch_size={trainer.batch_size} rows of a "
            "step; use fewer processes"
        )
    if spec.task.max_length < 8:
        raise UserError(f"task.max_length={spec.task.max_length} must be at least 8 tokens")
    if spec.method.alpha is not None and spec.method.alpha <= 0:
        raise UserError(f"method.alpha={spec.method.alpha} must be above 0")


def _check_places(spec: RunSpec) -> None:
    known = METRICS[spec.task.kind]
    for name in spec.task.metrics:
        if name not in known:
            raise UserError(
                f"task.metrics: {name!r} is no metric of a {spec.task.kind} task; known: {', '.join(known)}"
            )
    if spec.task.main_metric not in spec.task.metrics:
        raise UserError(
            f"task.main_metric={spec.task.main_metric} is not among task.metrics={','.join(spec.task.metrics)}"
        )
    if (spec.evaluation.every == "steps") != (spec.evaluation.steps is not None):
        raise UserError(
            f"evaluation.every={spec.evaluation.every} with evaluation.steps={spec.evaluation.steps}: "
            "steps go with every=steps, and it needs them"
        )
    if spec.launcher.name == "slurm":
        raise UserError(
            "launcher=slurm submits sweeps (scripts/sweep.py experiment=… launcher=slurm --submit), not a single run; "
            "use launcher=local here"
        )
