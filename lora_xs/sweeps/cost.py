"""What a run will cost on a named device, or several of them: hours, memory, disk; before it runs, without torch.

Seconds are a roof: operations at a share of the device's peak, or starting its kernels, whichever takes longer;
an answer's token takes at least reading the weights once. `lora_xs.sweeps.calibration` scales them by finished runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from lora_xs.models.architecture import Architecture, architecture_of
from lora_xs.spec import RunSpec
from lora_xs.sweeps.devices import Device
from lora_xs.sweeps.disk import disk_of
from lora_xs.sweeps.flops import Flops, flops_of
from lora_xs.sweeps.lengths import rows_of
from lora_xs.sweeps.memory import computed_bytes, memory_of
from lora_xs.sweeps.parameters import count_parameters
from lora_xs.sweeps.workload import Workload, workload_of

START_SECONDS, LOAD_BYTES = 15.0, 1e9
"""Seconds until a process is ready (imports, rows, tokens), and bytes of weights read a second. Assumed."""

ASSUMPTIONS = (
    "seconds: operations at the device's assumed share of its data-sheet peak, or one layer's kernel starts if longer; "
    "scaled by finished runs where there are any of this device, kind of model and precision",
    "tokens: measured lengths of rows (MiniLM's and SmolLM2's tokenizers; MNLI and QNLI on validation rows, MetaMathQA "
    "and Commonsense170K on stand-ins), padded as the trainer pads; early stopping is not counted on",
    "tests: answers as long as the references; a batch decodes 2.5 times the mean before its last row ends",
    f"start: {START_SECONDS:.0f} s a run and its weights read at 1 GB/s; every truncated SVD is made anew",
    "several devices: hours are the sum over them, memory is each one's; they share training and generation without "
    "loss; all of them start, and wait while one reads likelihoods",
    "memory: AdamW in fp32, the longest rows in one micro-batch, 10 % lost to fragments; disk: best and last adapter, "
    "answers, logs; checkpoints are apart, they go when the run is finished",
)


@dataclass(frozen=True)
class Cost:
    """What one run takes. gpu_hours: hours of the device, of all its devices together. peak_gib: of each one's memory.

    disk_mib: what stays on disk. flops: operations in all. scratch_mib: checkpoints while it runs. train_seconds: of
    training and its evaluations alone, over all devices; steps: of the optimiser.
    """

    gpu_hours: float
    peak_gib: float
    disk_mib: float
    flops: float
    scratch_mib: float = 0.0
    train_seconds: float = 0.0
    steps: int = 0


def estimate(spec: RunSpec, device: Device, factor: float = 1.0) -> Cost:
    """The cost of `spec` on `device`; factor: what finished runs there took, over their estimates.

    Raises UserError where the model's architecture is not known.
    """
    shape = architecture_of(spec.model)
    counts, work = count_parameters(spec, shape), workload_of(spec, device.gpu)
    flops = flops_of(spec, shape, counts, work)
    memory, disk = memory_of(spec, shape, counts, work, gpu=device.gpu), disk_of(spec, counts, work)
    rate = device.peak(spec) * device.efficiency
    train = factor * _train_seconds(spec, shape, work, flops, device, rate)
    tests = factor * _test_seconds(spec, shape, work, flops, device, rate)
    start = START_SECONDS + memory.whole / LOAD_BYTES + factor * flops.start / rate
    return Cost(
        gpu_hours=(train + _waiting(spec) * tests + spec.trainer.processes * start) / 3600,
        peak_gib=memory.gib,
        disk_mib=disk.kept / 2**20,
        flops=flops.total,
        scratch_mib=disk.scratch / 2**20,
        train_seconds=train,
        steps=work.steps,
    )


def _waiting(spec: RunSpec) -> int:
    """Devices that a run holds for each one that is at work on its tests."""
    shared = spec.evaluation.engine == "hf" and spec.evaluation.reading == "generation"
    return 1 if shared else spec.trainer.processes


def assumed_rows(spec: RunSpec) -> bool:
    """Whether the task's rows were never measured, so that its costs are a guess."""
    return rows_of(spec).measured_on.startswith("nothing")


def _train_seconds(
    spec: RunSpec, shape: Architecture, work: Workload, flops: Flops, device: Device, rate: float
) -> float:
    starts = shape.num_hidden_layers * device.layer_ms / 1000
    ways = 1 if spec.method.name == "head_only" else 4 if spec.trainer.gradient_checkpointing else 3
    training = max(flops.training / rate, work.micro_batches * ways * starts)
    return training + max(flops.evaluation / rate, work.evaluations * work.validation_batches * starts)


def _test_seconds(
    spec: RunSpec, shape: Architecture, work: Workload, flops: Flops, device: Device, rate: float
) -> float:
    if not work.answering:
        return 0.0
    width = computed_bytes(spec)
    weights = width * sum(layer.weights for layer in shape.linears())
    a_cached = 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim * width
    reading = sum(test.steps * (weights + test.cached * a_cached) for test in work.answering)
    steps = sum(test.steps for test in work.answering)
    decoding = max(
        reading / (device.bandwidth_gb_s * 1e9),
        flops.decoding / rate,
        steps * shape.num_hidden_layers * device.layer_ms / 1000,
    )
    return flops.prefill / rate + decoding
