"""What does a training step cost? LoRA-XS against the frozen model, PEFT's LoRA and a packaged tuner like it.

    python benchmarks/step.py [--quick] [--rounds N] [--json FILE]

RoBERTa-large's shape with 4 layers (2 where quick), random weights, fp32, r = 16, the four target modules, no dropout;
forward, backward and AdamW. The floor trains the head alone while gradients flow down to the first adapted layer.
Bytes are those that autograd keeps between forward and backward.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Sequence
from statistics import median

import side_by_side  # isort: skip (before torch)
import arms
import torch
from torch.utils.flop_counter import FlopCounterMode

RANK = 16
PEERS = {"lora": ("PEFT's LoRA", 0.92), "eigentune": ("eigentune's core", 1.00)}


def main(words: Sequence[str] | None = None) -> int:
    """Measure long and short batches and print the table."""
    options = side_by_side.parsed(side_by_side.arguments(__doc__, rounds=5), words)
    sheet = side_by_side.Sheet("A training step, r = 16, fp32, seconds of the processor")
    model = arms.encoder(layers=2 if options.quick else 4)
    builders = {"floor": arms.floor, "ours": arms.ours, "lora": arms.lora}
    if importlib.util.find_spec("eigentune") is not None:
        builders["eigentune"] = arms.eigentune
    models = {name: build(model) for name, build in builders.items()}
    for batch, rounds in ((arms.LONG, options.rounds), (arms.SHORT, 2 * options.rounds)):  # of half the seconds
        sides = {name: arms.arm(built, batch) for name, built in models.items()}
        steps(sheet, sides, batch, rounds)
    kept(sheet, sides, batch)
    sheet.finish(options.json)
    return 0


def steps(sheet: side_by_side.Sheet, sides: dict[str, arms.Arm], batch: tuple[int, int], rounds: int) -> None:
    """Seconds of a step, side by side."""
    shape = f"{batch[0]}×{batch[1]}"
    seconds = side_by_side.race({name: side.step for name, side in sides.items()}, rounds, clock=time.process_time)
    question = f"training step against the frozen floor, {shape}"
    more = {name: operations(side) / operations(sides["floor"]) for name, side in sides.items() if name != "floor"}
    said = ", ".join(f"{label} {more[name]:.3f}" for name, label in labels().items() if name in more)
    note = f"by operations: {said}"
    sheet.add(side_by_side.compared(question, seconds["ours"], seconds["floor"], 1.03, ("ours", "floor"), note))
    for peer, (name, target) in PEERS.items():
        question = f"training step against {name}, {shape}"
        if peer not in sides:
            sheet.add(side_by_side.absent(question, f"{peer} is not installed", target))
            continue
        ratios = [theirs / floor for theirs, floor in zip(seconds[peer], seconds["floor"], strict=True)]
        note = f"{name} itself: {median(ratios):.3f} of the floor"
        sheet.add(side_by_side.compared(question, seconds["ours"], seconds[peer], target, ("ours", name), note))


def labels() -> dict[str, str]:
    """The sides' names for a reader."""
    return {"ours": "ours"} | {peer: title for peer, (title, _) in PEERS.items()}


def operations(side: arms.Arm) -> int:
    """Floating-point operations of a step's products."""
    in_place = {torch.ops.aten.addmm_: lambda y, a, b, **_: 2 * a[0] * a[1] * b[1]}  # torch's counter has none
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        side.step()
    return counter.get_total_flops()


def kept(sheet: side_by_side.Sheet, sides: dict[str, arms.Arm], batch: tuple[int, int]) -> None:
    """Bytes kept for backward beyond the floor's, a module, relative to tokens × r × 4."""
    tokens = batch[0] * batch[1]
    modules = sum(1 for name, _ in sides["ours"].model.named_parameters() if "lora_R" in name)
    bound = tokens * RANK * 4
    base = sides["floor"].kept_bytes()
    for name, side in sides.items():
        if name == "floor":
            continue
        more = (side.kept_bytes() - base) / modules
        sheet.add(
            side_by_side.counted(
                f"bytes kept for backward beyond the frozen model, a module, against tokens × r × 4: {labels()[name]}",
                more,
                bound,
                1.0 if name == "ours" else None,
                f"{more:,.0f} / {bound:,} bytes, {modules} modules, {tokens} tokens; frozen model {base:,} in all",
            )
        )


if __name__ == "__main__":
    sys.exit(main())
