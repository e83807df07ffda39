"""How a batch is computed on a given kind of device: with which padding, how many rows at once. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lora_xs.spec.runspec import RunSpec

Padding = Literal["longest", "max_length", "free"]

GPU_TOKENS, CPU_TOKENS, UNPADDED_TOKENS, CPU_ROWS = 8192, 2048, 4096, 8


def padding_of(spec: RunSpec, gpu: bool) -> Padding:
    """`trainer.padding`, with `auto` as what computes least.

    free (rows end to end) where attention takes rows by their lengths: flash attention; on a CPU also encoders, one
    length after the other, which would be too many small kernels for a GPU. `trainer.compile` wants shapes that come
    again, CUDA graphs a single one. Else longest.
    """
    if spec.trainer.padding != "auto":
        return spec.trainer.padding
    if spec.task.kind == "instruction":
        return "free" if spec.model.attention == "flash_attention_2" else "longest"
    if spec.trainer.compile == "cuda_graphs":
        return "max_length"
    if spec.trainer.compile or spec.model.attention == "eager":
        return "longest"
    return "free" if not gpu or spec.model.attention == "flash_attention_2" else "longest"


def most_rows(spec: RunSpec, gpu: bool, free: bool) -> int:
    """Rows that a device holds at once.

    A GPU takes an encoder's whole batch. A CPU takes what cannot be more than 4,096 tokens where no padding is computed
    (`free`), else eight rows: of like length, so with little padding (`lora_xs.training.batches`). Decoders are bounded
    by tokens: 8,192 on a GPU, for their logits; on a CPU, where nothing is gained by more, 2,048 or eight rows.
    """
    length = spec.task.max_length
    if spec.task.kind == "instruction":
        return max(1, GPU_TOKENS // length) if gpu else max(CPU_ROWS, CPU_TOKENS // length)
    if gpu:
        return spec.trainer.batch_size
    return max(CPU_ROWS, UNPADDED_TOKENS // length) if free else CPU_ROWS


def rows_at_once(spec: RunSpec, most: int, processes: int) -> int:
    """Rows of a micro-batch of one of `processes`, where a device holds `most`: as the user says, else what divides the
    share of an optimiser batch."""
    share = largest_share(spec, processes)
    return min(share, spec.trainer.device_batch_size or micro_batch(share, most))


def largest_share(spec: RunSpec, processes: int) -> int:
    """Rows of an optimiser batch in the process that has most of them."""
    return -(-spec.trainer.batch_size // processes)


def micro_batch(rows: int, most: int) -> int:
    """Rows to hold at once where the user has not said: the largest divisor of `rows` that is at most `most`."""
    return next(n for n in range(max(1, min(most, rows)), 0, -1) if rows % n == 0)
