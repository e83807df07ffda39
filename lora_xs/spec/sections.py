"""The sections of a RunSpec, one frozen dataclass a config group; each field says what it is and its unit.

A field marked `aside` cannot change a result (where files lie, how many rows fit a device at once) and stays out of
the run's signature. `| None` fields of `trainer`, `method` and `task` are filled from the chosen protocol before a
RunSpec exists (`lora_xs.spec.resolve`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


def aside(default: Any) -> Any:
    """A field with a default that is not part of the run's identity."""
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata={"identity": False})
    return field(default=default, metadata={"identity": False})


@dataclass(frozen=True)
class ModelSpec:
    """The frozen base. `hub`, `package` and `path` are three places the same weights may come from."""

    name: str
    kind: Literal["encoder", "decoder"]
    target_modules: tuple[str, ...]  # suffixes of whole path parts, or a single regular expression
    head: tuple[str, ...]  # path parts of modules trained whole, at the head's learning rate
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantization: Literal["none", "int8", "nf4"] = "none"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    revision: str | None = None  # commit of the hub repository; None: its main branch, the commit is recorded
    hub: str | None = aside(None)  # repository id
    package: str | None = aside(None)  # "<distribution>==<version>:<import name>/<folder>"
    path: str | None = aside(None)  # a local folder, wins over the other two
    architecture: Mapping[str, Any] = aside({})  # keyword arguments of the config class, for counting without weights


@dataclass(frozen=True)
class TaskSpec:
    """What is learned and how it is scored. Row counts of None mean all rows.

    An `instruction` task learns responses to prompts; its validation rows are held out of the training rows (None:
    none), and its `tests` are answered after training.
    """

    name: str
    kind: Literal["classification", "regression", "instruction"]
    metrics: tuple[str, ...]
    main_metric: str
    max_length: int  # tokens, truncation included special tokens
    train_rows: int | None = None
    validation_rows: int | None = None
    revision: str | None = None
    take: Literal["sample", "first"] = "sample"  # which rows `train_rows` keeps: by the run's seed, or the first ones
    prompt: str | None = None  # a name of lora_xs.data.prompts, its version included
    tests: tuple[str, ...] = ()  # names of lora_xs.data.questions
    test_rows: int | None = None  # of each test; the same rows in every run


@dataclass(frozen=True)
class MethodSpec:
    """The fine-tuning method. `alpha` is None for methods without a scale."""

    name: Literal["full_ft", "head_only", "lora", "rslora", "pissa", "vera", "lora_xs", "lora_sb"]
    uses_rank: bool = aside(False)
    inits: tuple[str, ...] = aside(())  # initialisations this method accepts
    alpha: float | None = None
    dropout: float = 0.0
    target_modules: tuple[str, ...] | None = None  # None: the model's
    d_initial: float | None = None  # VeRA: what every entry of d starts from
    save_factors: bool = aside(False)  # the frozen factors (VeRA: the projections) go into the adapter's file


@dataclass(frozen=True)
class InitSpec:
    """How the frozen factors and R start (LoRA-XS section 3 and Table 4). From `samples` on: of `update`, LoRA-SB's
    estimate of the first full fine-tuning step (its section 3, Table 4 and Figure 3)."""

    name: Literal["svd_w", "svd_random", "random", "update", "method"]
    part: Literal["top", "middle", "bottom"] = "top"
    sigma: bool = True  # A = Σ_r V_rᵀ; False: A = V_rᵀ
    std: float = 1e-5  # of R's normal distribution; 0: R starts at zero
    kaiming_bounds: Literal["official", "fan_in"] = "official"
    seed: int = 42  # of random factors, and of the noise of `matrix`
    samples: int | None = None  # training rows of the estimate; None with `fraction`
    fraction: float | None = None  # the paper's reading instead: a share of the training rows, 0.001
    choice: Literal["random", "first"] = "random"  # of the samples, by the run's seed
    batch_size: int | None = None  # rows of an estimation batch; None: the trainer's batch_size
    normalise: Literal["batches", "rows"] = "batches"  # the loss: mean of batch means, or sum over rows
    dropout: bool = True  # the base model's dropout during the estimate, as in the official code
    eta: Literal["estimation_batches", "optimiser_steps"] = "estimation_batches"  # steps in lr / (warm-up · steps)
    sign: bool = True  # AdamW's first step; False: the raw gradient, SGD's
    matrix: Literal["update", "update_noise", "kaiming"] = "update"  # what is decomposed
    noise: float | None = None  # standard deviation of update_noise's
    orthonormal: bool = True  # B = U_r, R = Σ_r / s; False: B = U_r Σ_r, R = 1 / s


@dataclass(frozen=True)
class TrainerSpec:
    """The optimiser and its schedule. Rates are per optimiser step; `epochs` may be fractional through max_steps."""

    learning_rate: float
    head_learning_rate: float | None
    epochs: int
    batch_size: int  # rows an optimiser step, over all devices
    schedule: Literal["linear", "cosine", "constant"]
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float  # 0: no clipping
    warmup_steps: int | None = None  # optimiser steps; wins over warmup_ratio
    loss: Literal["rows", "micro_batches", "tokens"] = "rows"  # what the step's loss is the mean of; `rows`: of labels
    loss_rows: int | None = None  # rows of a micro-batch whose mean token loss is averaged, for loss=micro_batches
    max_steps: int | None = None  # optimiser steps; None: epochs decide
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"  # of products, by autocast; trained weights stay fp32
    early_stopping: int | None = None  # evaluations without a better score; None: never
    padding: Literal["auto", "longest", "max_length", "free"] = "auto"  # free: rows end to end; auto: see `padding_of`
    gradient_checkpointing: bool = aside(False)
    compile: Literal[False, True, "cuda_graphs"] = False  # cuda_graphs: for short batches, which are bound by calls
    device_batch_size: int | None = aside(None)  # rows a device holds at once, at most; None: what fits
    processes: int = aside(1)  # of this run, a GPU each; 1: also as many as torchrun starts
    sharding: Literal["none", "fsdp"] = aside("none")  # fsdp: each GPU holds a part of the model and the optimiser
    checkpoint_seconds: float = aside(60.0)  # at most this much training is lost to a kill
    log_steps: int = aside(10)  # optimiser steps between two lines of training loss


@dataclass(frozen=True)
class EvaluationSpec:
    """When the validation split is scored, which adapter the run's headline comes from, and how tests are answered."""

    every: Literal["epoch", "steps", "end"] = "epoch"
    steps: int | None = None  # optimiser steps between two evaluations, for every=steps
    select: Literal["best", "last"] = "best"
    batch_size: int = aside(64)
    reading: Literal["generation", "likelihood", "both"] | None = None  # of a task's tests; None: there are none
    beams: int | None = None  # 1: greedy
    max_new_tokens: Mapping[str, int] = field(default_factory=dict)  # by test
    scorer: Literal["strict", "published", "math_verify"] = "strict"  # of the headline; all three are recorded
    engine: Literal["hf", "vllm"] = "hf"
    merged: bool = False  # the adapter is folded into the base before the tests are answered
    generation_tokens: int = aside(16384)  # prompt and new tokens, over beams, that are held at once


@dataclass(frozen=True)
class StartSpec:
    """Where R and the head start from; the papers' GLUE runs start MRPC, RTE and STS-B from MNLI (LoRA-XS §4.1)."""

    run: str | None = aside(None)  # a run's folder or an adapter folder
    which: Literal["best", "last"] = "best"
    head: bool = False  # True: the head is loaded too; the published rows start with a fresh one
    content: str | None = None  # the start's identity, filled from `run`: that run's signature, or an adapter's SHA-256


@dataclass(frozen=True)
class DataSpec:
    """Where rows come from; the rows' hashes are in the record."""

    root: str | None = aside(None)
    source: Literal["auto", "hub", "local", "package"] = aside("auto")
    lock: str | None = aside(None)  # a file of scripts/prefetch.py that model, rows and tests must agree with


@dataclass(frozen=True)
class LoggerSpec:
    """A logger beside metrics.jsonl, which is always written."""

    name: Literal["none", "wandb", "tensorboard"] = "none"
    project: str = "lora_xs"
    group: str | None = None
    mode: Literal["auto", "offline", "online"] = "auto"


@dataclass(frozen=True)
class SlurmSpec:
    """What a SLURM cluster is asked for, by sweeps alone (`lora_xs.sweeps.slurm`); None leaves it to the cluster."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gres: str | None = None  # of a task, e.g. gpu:1
    constraint: str | None = None
    mem: str | None = None  # of a task, e.g. 16G
    cpus_per_task: int = 4
    minutes: int = 240  # a task's time limit; a run that needs longer goes on after a requeue
    signal_seconds: int = 120  # asked to save and stop this long before the limit
    max_requeues: int = 20  # at the time limit, of one task; those of preemptions are not counted
    runs_per_task: int = 4  # one after another in a warm process; a run that others need has a task of its own
    array_parallelism: int = 64  # tasks of an array that run at once
    setup: tuple[str, ...] = ()  # shell lines before the worker starts, e.g. module load cuda
    extra: Mapping[str, str | int] = field(default_factory=dict)  # any other long option of sbatch: {mail-type: FAIL}
    snapshot: Literal["commit", "diff", "none"] = "commit"  # the jobs' code: HEAD, HEAD and what differs, as it lies
    folder: str = "results/sweeps"  # manifests, code and tasks' output, a folder a sweep; every node must see it


@dataclass(frozen=True)
class LauncherSpec:
    """Threads of a run on this machine. None: one a physical core. `slurm` is there for name=slurm alone."""

    name: Literal["local", "slurm"] = "local"
    threads: int | None = None
    wait_policy: Literal["passive", "active"] = "passive"
    slurm: SlurmSpec | None = None
