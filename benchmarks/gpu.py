"""What do the GPU's settings bring? Training steps under each of them against fp32, and the factors' SVD there.

    python benchmarks/gpu.py [--quick] [--rounds N] [--json FILE] [--model roberta-large] [--anyway]

Short batches of the packaged reviews, LoRA-XS r = 16; each setting is one override of `train.py`. The first steps,
where compiled models are compiled and graphs recorded, are not counted. Without a GPU every row says so; `--anyway`
runs the script on the CPU to see that it works, without what is compiled.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import side_by_side  # isort: skip (before torch)
import torch
from side_by_side import Row, Sheet, absent, compared, race
from spectra import like_minilm

from lora_xs.adapters.svd import truncated_svd
from lora_xs.errors import UserError
from lora_xs.spec.compose import compose_spec

SETTINGS = {
    "TF32": ["trainer=tf32"],
    "bf16": ["trainer=bf16"],
    "bf16, no padding (flash attention)": ["trainer=bf16", "model.attention=flash_attention_2"],
    "bf16, compiled": ["trainer=bf16", "trainer.compile=true"],
    "bf16, compiled, CUDA graphs": ["trainer=bf16", "trainer.compile=cuda_graphs"],
}
BASE = ["method=lora_xs", "rank=16", "task=reviews", "task.max_length=64", "evaluation.every=end"]


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = side_by_side.arguments(__doc__, rounds=3)
    parser.add_argument("--model", default="minilm", help="an encoder of configs/model")
    parser.add_argument("--steps", type=int, default=100, help="optimiser steps that are counted")
    parser.add_argument("--anyway", action="store_true", help="on the CPU, too")
    options = side_by_side.parsed(parser, words)
    if options.quick:
        options.steps = 2
    sheet = Sheet(f"On {torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'the CPU'}")
    questions = {name: f"training step on a GPU, {options.model}: {name}, against fp32" for name in SETTINGS}
    svd = "factors of one layer of RoBERTa-large's shapes, r = 25, on a GPU against its host"
    if not torch.cuda.is_available() and not options.anyway:
        sheet.add(*(absent(question, "no GPU: not run here") for question in (*questions.values(), svd)))
    else:
        for name, question in questions.items():
            sheet.add(setting(question, name, options))
        sheet.add(factors(svd, options.rounds))
    sheet.finish(options.json)
    return 0


def setting(question: str, name: str, options: Any) -> Row:
    """Pairs of short trainings, with the setting and without."""
    if "compiled" in name and not torch.cuda.is_available():
        return absent(question, "no GPU: not run here")
    ours, plain = [], []
    try:
        for number in range(options.rounds):
            for side, overrides in ((ours, SETTINGS[name]), (plain, ["trainer=default"])):
                side.append(steps([*BASE, f"model={options.model}", f"seed={number}", *overrides], options.steps))
    except (UserError, ImportError) as error:
        return absent(question, str(error).splitlines()[0])
    return compared(question, ours, plain, None, (f"{options.steps} steps: {name}", "fp32"))


def steps(overrides: Sequence[str], count: int) -> float:
    """Seconds of `count` optimiser steps after as many uncounted ones, at most 30."""
    from transformers import TrainerCallback

    from lora_xs.phases import Phases
    from lora_xs.preparation import prepare
    from lora_xs.sweeps.warm import Warm
    from lora_xs.training.preemption import StopRequest

    before = min(count, 30)
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
            if state.global_step in (before, before + count):
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        few = [f"trainer.max_steps={before + count}", f"results={folder}"]
        spec = compose_spec([*overrides, *few])
        spec.folder.mkdir(parents=True)
        trainer: Any = prepare(spec, Path(spec.folder), StopRequest(), Phases(), Warm(0)).trainer
        trainer.add_callback(Clock())
        trainer.train()
    torch._dynamo.reset()
    return ends[1] - ends[0]


def factors(question: str, rounds: int) -> Row:
    """The SVD of query, value, attention output and FFN output, on either device."""
    shapes = {"query": 1024, "value": 1024, "attention_output": 1024, "output": 4096}
    host = [like_minilm(kind, 1024, n, seed).matrix for seed, (kind, n) in enumerate(shapes.items())]
    there = [matrix.to("cuda" if torch.cuda.is_available() else "cpu") for matrix in host]

    def decompose(matrices: list[torch.Tensor]) -> None:
        for matrix in matrices:
            truncated_svd(matrix, 25).Vh.cpu()

    seconds = race({"there": lambda: decompose(there), "host": lambda: decompose(host)}, rounds)
    return compared(question, seconds["there"], seconds["host"], None, ("GPU", "host"))


if __name__ == "__main__":
    sys.exit(main())
