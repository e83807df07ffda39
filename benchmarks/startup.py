"""How long until a run takes its first step, and until a command without one answers? Processes, alternating.

    python benchmarks/startup.py [--quick] [--rounds N] [--json FILE]

Everything is cached: bytecode, tokens, factors. The first step is MiniLM's on the review sentences, from the start of
the process to the end of the first optimiser step, against a process that imports torch and transformers and loads the
same model; and against one that imports all libraries a run is built on, too. Answers without a step are against their
limits in seconds; what they import and open is held by tests.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import side_by_side  # isort: skip (before torch)

REPOSITORY = side_by_side.REPOSITORY
RUN = ["task=reviews", "model=minilm", "method=lora_xs", "rank=16", "evaluation.every=end", "launcher.threads=1"]
UNTIL_FIRST_STEP = """
import os, sys
from lora_xs.command import main

class Ready:
    def find_spec(self, name, *_):
        if name == "lora_xs.training.labels":  # by then torch is there
            sys.meta_path.remove(self)
            from torch.optim.optimizer import register_optimizer_step_post_hook
            register_optimizer_step_post_hook(lambda *_: os._exit(42))

sys.meta_path.insert(0, Ready())
sys.exit(main(sys.argv[1:]))
"""
LOADED = """
import os, sys, torch, transformers
transformers.AutoModelForSequenceClassification.from_pretrained(sys.argv[1], num_labels=2)
os._exit(42)
"""
LIBRARIES = """
from transformers import Trainer
import accelerate, datasets, hydra, peft
"""
"""What a run cannot do without; nothing of this project."""
FIRST_STEP, MISTAKE = 1.3, 2.0


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = side_by_side.parsed(side_by_side.arguments(__doc__, rounds=2), words)
    sheet = side_by_side.Sheet("Starting")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sheet.add(*first_step(folder, options.rounds))
        for question, command in {
            "train.py --help": ["train.py", "--help"],
            "a mistaken setting": ["train.py", "task=reviews", "trainer.batch_size=0"],
            "a misspelt key": ["train.py", "task=reviews", "trainer.epoch=3"],
        }.items():
            sheet.add(answer(question, command, MISTAKE, options.rounds))
    sheet.finish(options.json)
    return 0


def first_step(folder: Path, rounds: int) -> list[side_by_side.Row]:
    """By the clock and by the processor."""
    from lora_xs.models import locate
    from lora_xs.spec.compose import compose_spec

    base = locate(compose_spec(RUN).model).folder
    arms = {
        "ours": ["-c", UNTIL_FIRST_STEP, *RUN, f"results={folder}", "force=true"],
        "loaded": ["-c", LOADED, str(base)],
        "stack": ["-c", LIBRARIES + LOADED, str(base)],
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for number in range(-1, rounds):
        for name in list(arms) if number % 2 == 0 else reversed(arms):
            taken = timed(arms[name], 42)
            if number >= 0:
                seconds[name].append(taken)

    def row(question: str, other: str, what: str, place: int, target: float | None) -> side_by_side.Row:
        pairs = ([pair[place] for pair in seconds[name]] for name in ("ours", other))
        return side_by_side.compared(question, *pairs, target=target, names=("ours", what))

    of, loaded = "process start to first step against", "import torch and transformers, load"
    stack = "and import Trainer, accelerate, datasets, Hydra, PEFT"
    return [
        row(f"{of} loading the model, by the clock", "loaded", loaded, 0, FIRST_STEP),
        row(f"{of} loading the model, by the processor", "loaded", loaded, 1, FIRST_STEP),
        row(f"{of} importing what it is built on, too, by the processor", "stack", f"{loaded} {stack}", 1, None),
    ]


def answer(question: str, command: Sequence[str], limit: float, rounds: int) -> side_by_side.Row:
    """Seconds of a command, over the seconds allowed."""
    seconds = [timed(command, None)[0] for _ in range(rounds)]
    names = ("took", "allowed")
    return side_by_side.compared(f"{question}: seconds of {limit:g}", seconds, [limit] * rounds, 1.0, names)


def timed(command: Sequence[str], status: int | None) -> tuple[float, float]:
    """Seconds by the clock and of the processor that `python <command>` took; `status` must be its exit status."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if status is not None and done.returncode != status:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    sys.exit(main())
