"""What does padding cost, in an epoch of GLUE rows and in an evaluation? MiniLM, LoRA-XS r = 16, one process.

    python benchmarks/epoch.py [--data FOLDER] [--quick] [--rounds N] [--json FILE]

Both sides are the project's own trainer on the same optimiser batches of 32 rows: as it computes them by default, and
every row padded to 128 tokens, all 32 at once (the official code's setting). Optimiser steps of an epoch are timed from
the second one of a run on; each round is another seed, so other batches. Their losses are compared without dropout,
whose masks depend on the tokens computed. The evaluation is of 512 rows, against batches of 8 padded to 128.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import side_by_side  # isort: skip (before torch)
from side_by_side import Row, absent, compared, counted, race

from lora_xs.spec.compose import compose_spec

EPOCHS = {"cola": 0.15, "sst2": 0.17, "stsb": 0.32, "mrpc": 0.55}
TOKENS = ("mrpc", "rte", "cola", "sst2", "stsb")
MOST_TOKENS, EVALUATION, EVALUATED = 1.06, 0.4, 512
SST2_ROWS = "task.train_rows=2000"
OURS: list[str] = []
PADDED = ["trainer.padding=max_length", "task.max_length=128", "trainer.device_batch_size=32"]
PADDED_BY_EIGHT = [*PADDED, "evaluation.batch_size=8"]


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = side_by_side.arguments(__doc__, rounds=2)
    data = os.environ.get("LORA_XS_DATA")
    parser.add_argument("--data", type=Path, default=data, help="the folder of GLUE files (default: LORA_XS_DATA)")
    parser.add_argument("--steps", type=int, default=1, help="optimiser steps of a timed run, after the first")
    options = side_by_side.parsed(parser, words)
    sheet = side_by_side.Sheet("Padding in training and evaluation, seconds of the processor")
    quietly()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.data, Path(folder))
        for task in TOKENS:
            sheet.add(bench.tokens(task))
        for task, target in EPOCHS.items():
            sheet.add(bench.epoch(task, target, options.rounds, options.steps))
        sheet.add(bench.evaluation(options.rounds, 64 if options.quick else EVALUATED))
    sheet.finish(options.json)
    return 0


class Bench:
    """Prepares trainers below `folder`, of rows in `data`; models, rows and tokens are read once."""

    def __init__(self, data: Path | None, folder: Path) -> None:
        from lora_xs.sweeps.warm import Warm

        self.data, self.folder, self.runs = data, folder, 0
        self.ingredients = Warm(4 * 2**30)

    def trainer(self, task: str, seed: int, *overrides: str) -> Any:
        """The trainer that `train.py` would make of these."""
        from lora_xs.phases import Phases
        from lora_xs.preparation import prepare
        from lora_xs.training.preemption import StopRequest

        self.runs += 1
        common = [
            "model=minilm",
            f"task=glue/{task}",
            "method=lora_xs",
            "rank=16",
            f"seed={seed}",
            "launcher.threads=1",
        ]
        rows = [SST2_ROWS] if task == "sst2" else []
        where = [f"data.root={self.data}", f"results={self.folder / str(self.runs)}"]
        spec = compose_spec([*common, *rows, "evaluation.every=end", "trainer.log_steps=1", *where, *overrides])
        spec.folder.mkdir(parents=True)
        return prepare(spec, spec.folder, StopRequest(), Phases(), self.ingredients).trainer

    def missing(self, task: str) -> str | None:
        """Why the task's rows cannot be had."""
        file = self.data and self.data / "glue" / task / "train.jsonl"
        if file is not None and file.is_file():
            return None
        return (
            "no GLUE rows: give --data FOLDER or LORA_XS_DATA" if file is None else f"{file.name} of {task} is missing"
        )

    def tokens(self, task: str) -> Row:
        """Tokens of an epoch's micro-batches, as the trainer draws them, counted without computing any."""
        question = f"tokens computed / real tokens, {task}, batch of 32"
        if why := self.missing(task):
            return absent(question, why, MOST_TOKENS)
        trainer = self.trainer(task, 0)
        lengths = trainer.order().lengths
        whole = [max(lengths[row] for row in batch) * len(batch) for batch in trainer.order().batches()]
        eighths = [
            lengths[batch[start]] * len(batch[start : start + 8])
            for batch in trainer.order().batches()
            for start in range(0, len(batch), 8)
        ]
        real = sum(lengths)
        batches = [[lengths[row] for row in rows] for rows in trainer.get_train_dataloader().batch_sampler]
        ours = sum(sum(batch) if trainer.unpadded else max(batch) * len(batch) for batch in batches)
        what = f"{ours:,} / {real:,}"
        note = f"padded to the longest of 32: {sum(whole) / real:.2f}, of 8 sorted: {sum(eighths) / real:.2f}"
        return counted(question, ours, real, MOST_TOKENS, what, note)

    def epoch(self, task: str, target: float, rounds: int, steps: int) -> Row:
        """Seconds of `steps` optimiser steps, each round with another seed."""
        question = f"epoch against padding to 128, {task}"
        if why := self.missing(task):
            return absent(question, why, target)
        seconds: dict[str, list[float]] = {"ours": [], "padded": []}
        arms = {"ours": OURS, "padded": PADDED}
        for number in range(rounds):
            for name in list(arms) if number % 2 == 0 else reversed(arms):
                trainer = self.trainer(task, number, f"trainer.max_steps={steps + 1}", *arms[name])
                clock = after_the_first(trainer)
                trainer.train()
                seconds[name].append(clock[-1] - clock[0])
        ours, padded = (self.losses(task, words) for words in (OURS, PADDED))
        apart = max(abs(one - other) for one, other in zip(ours, padded, strict=True))
        lengths = trainer.order().lengths
        by_count = f"optimiser steps timed: {steps} a round; {sum(lengths) / 128 / len(lengths):.2f} by tokens; "
        note = by_count + f"losses of {len(ours)} steps without dropout within {apart:.0e}"
        if apart > 1e-5:
            raise SystemExit(f"{task}: losses {ours} and {padded} differ")
        return compared(question, seconds["ours"], seconds["padded"], target, ("ours", "padded"), note)

    def losses(self, task: str, words: Sequence[str]) -> list[float]:
        """Of two optimiser steps of 16 rows without dropout."""
        rows = ["trainer.batch_size=16", "trainer.device_batch_size=16"]
        trainer = self.trainer(task, 0, "trainer.max_steps=2", *words, *rows)
        without_dropout(trainer.model)
        trainer.train()
        return [line["loss"] for line in trainer.ledger.history if line["kind"] == "train"]

    def evaluation(self, rounds: int, rows: int) -> Row:
        """Seconds of scoring `rows` rows of MRPC's training split (validation has 408), a quarter of them at a time."""
        import numpy as np

        question = f"evaluation of {rows} MRPC rows against batches of 8 padded to 128"
        if why := self.missing("mrpc"):
            return absent(question, why, EVALUATION)
        losses: dict[str, list[float]] = {}
        arms = {}
        for name, words in (("ours", OURS), ("padded", PADDED_BY_EIGHT)):
            trainer = self.trainer("mrpc", 0, *words)
            some = trainer.train_dataset.select(range(rows))
            longest_first = np.argsort([-len(ids) for ids in some["input_ids"]], kind="stable")  # as in a run
            quarters = cycle([some.select(longest_first[start::4].tolist()) for start in range(4)])

            def score(trainer: Any = trainer, name: str = name, quarters: Any = quarters) -> None:
                trainer.eval_dataset = next(quarters)
                found = trainer.evaluation_loop(trainer.get_eval_dataloader(), "evaluation")
                losses.setdefault(name, []).append(found.metrics["eval_loss"])

            arms[name] = score
        seconds = race(arms, 4 * rounds, unmeasured=0, clock=time.process_time)
        apart = max(abs(one - other) for one, other in zip(losses["ours"], losses["padded"], strict=True))
        names = ("a quarter: ours", "padded")
        return compared(question, seconds["ours"], seconds["padded"], EVALUATION, names, f"losses within {apart:.0e}")


def after_the_first(trainer: Any) -> list[float]:
    """Where the end of each optimiser step will be noted."""
    from transformers import TrainerCallback

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.process_time())

    trainer.add_callback(Clock())
    return ends


def without_dropout(model: Any) -> None:
    """Every dropout's probability to 0, attention's too."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def quietly() -> None:
    """No progress bars, no library's talk."""
    from lora_xs.imports import quiet_libraries

    quiet_libraries()


if __name__ == "__main__":
    sys.exit(main())
