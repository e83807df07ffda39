"""What a run leaves on disk, and what it needs there while it runs. In bytes, no torch."""

from __future__ import annotations

from dataclasses import dataclass

from lora_xs.spec import RunSpec
from lora_xs.sweeps.parameters import XS, Parameters
from lora_xs.sweeps.workload import Workload

A_TENSOR = 150
"""Bytes of a tensor's name and place in a safetensors file."""

A_LINE, SMALL = 170, 14_000
"""Bytes of a line of metrics.jsonl; of spec, record, log and an adapter's config together."""

A_TOKEN, A_QUESTION = 4.2, 420
"""Bytes of text a token, and of a line's hashes and keys beside it, in generations/*.jsonl."""

KEPT_CHECKPOINTS = 3
"""Two are kept; the third is being written."""


@dataclass(frozen=True)
class Disk:
    """kept: bytes that stay when the run is finished. scratch: bytes of checkpoints meanwhile, gone in the end."""

    kept: float
    scratch: float


def disk_of(spec: RunSpec, counts: Parameters, work: Workload) -> Disk:
    """The disk that `spec` needs."""
    tensors = len(counts.targets) * (3 if spec.method.name in XS else 2) + 4
    numbers = counts.adapter * (2 if spec.method.name == "pissa" else 1)  # as a plain LoRA of the unmodified base
    if spec.method.save_factors:
        numbers += counts.frozen
    adapter = 4 * (numbers + counts.head) + A_TENSOR * tensors
    copies = 2 if work.evaluations else 1  # best and last
    text = sum(
        (test.prefill + test.answer_tokens) * A_TOKEN + test.questions * A_QUESTION
        for test in work.answering
        if test.steps
    )
    lines = A_LINE * (work.steps / spec.trainer.log_steps + 2 * work.evaluations)
    kept = copies * adapter + text + lines + SMALL
    scratch = KEPT_CHECKPOINTS * (12 * counts.trainable + A_TENSOR * 3 * tensors + lines + 20_000)
    if spec.method.name == "lora_sb":
        scratch += adapter  # the start that R belongs to
    return Disk(kept, scratch)
