"""How do a step's time and memory grow with the rank, the tokens and the layers, and the factors' time with their size?

    python benchmarks/growth.py [--quick] [--rounds N] [--json FILE]

Steps: RoBERTa-large's shape, LoRA-XS on the four target modules, forward, backward and AdamW, on one thread; ratios to
the frozen floor are medians of alternating pairs. Bytes are those kept for backward. Factors: matrices with the
measured decay of MiniLM's weights (benchmarks/spectra.py), cold.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from statistics import median

import side_by_side  # isort: skip (before torch)
import arms
from side_by_side import Curve, grown, race
from spectra import like_minilm

from lora_xs.adapters.svd import truncated_svd

RANKS = (1, 4, 16, 64, 256)
TOKENS = (64, 128, 256, 512, 1024)
LAYERS = (1, 2, 4, 8)
SIDES = (256, 512, 1024, 2048)
FACTOR_RANKS = (4, 8, 16, 32, 64, 128)
ROW = 64  # tokens of a row


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print the curves."""
    options = side_by_side.parsed(side_by_side.arguments(__doc__, rounds=3), words)
    sheet = side_by_side.Sheet("Growth, fp32")
    few = 3 if options.quick else None
    for curves in (by_rank(RANKS[:few], options.rounds), by_tokens(TOKENS[:few], options.rounds)):
        sheet.add(*curves)
    sheet.add(*by_layers(LAYERS[:few], options.rounds))
    sheet.add(factors_by_side(SIDES[:few], options.rounds), factors_by_rank(FACTOR_RANKS[:few], options.rounds))
    sheet.finish(options.json)
    return 0


def by_rank(ranks: Sequence[int], rounds: int) -> list[Curve]:
    """One layer, 8 rows of 64 tokens."""
    model, batch = arms.encoder(layers=1), (8, ROW)
    floor = arms.arm(arms.floor(model), batch)
    sides = {r: arms.arm(arms.ours(model, r), batch) for r in ranks}
    seconds = race({"floor": floor.step} | {str(r): side.step for r, side in sides.items()}, rounds, clock=cpu)
    ratio = {r: median(a / b for a, b in zip(seconds[str(r)], seconds["floor"], strict=True)) for r in ranks}
    more = {r: (side.kept_bytes() - floor.kept_bytes()) / 4 for r, side in sides.items()}
    return [
        grown("a step against the rank, 8×64 tokens", "r", "ratio to the frozen floor", ratio.items()),
        grown("bytes kept beyond the floor against the rank, 8×64 tokens", "r", "bytes a module", more.items()),
    ]


def by_tokens(tokens: Sequence[int], rounds: int) -> list[Curve]:
    """One layer, r = 16, rows of 64 tokens."""
    model = arms.encoder(layers=1)
    ours, floor = arms.ours(model), arms.floor(model)
    sides = {n: (arms.arm(ours, (n // ROW, ROW)), arms.arm(floor, (n // ROW, ROW))) for n in tokens}
    seconds = race(
        {
            f"{n} {name}": side.step
            for n, pair in sides.items()
            for name, side in zip(("ours", "floor"), pair, strict=True)
        },
        rounds,
        clock=cpu,
    )
    own = {n: median(seconds[f"{n} ours"]) for n in tokens}
    ratio = {n: median(a / b for a, b in zip(seconds[f"{n} ours"], seconds[f"{n} floor"], strict=True)) for n in tokens}
    more = {n: (pair[0].kept_bytes() - pair[1].kept_bytes()) / 4 for n, pair in sides.items()}
    kept = {n: pair[0].kept_bytes() for n, pair in sides.items()}
    return [
        grown("a step against the tokens, one layer, r = 16", "tokens", "s", own.items()),
        grown("a step's ratio against the tokens, r = 16", "tokens", "ratio to the frozen floor", ratio.items()),
        grown("bytes kept beyond the floor against the tokens, r = 16", "tokens", "bytes a module", more.items()),
        grown("bytes kept against the tokens, one layer, r = 16", "tokens", "bytes in all", kept.items()),
    ]


def by_layers(layers: Sequence[int], rounds: int) -> list[Curve]:
    """r = 16, 4 rows of 64 tokens."""
    model = arms.encoder(layers=max(layers))
    every = list(model.roberta.encoder.layer)
    sides = {}
    for count in layers:
        model.roberta.encoder.layer = type(model.roberta.encoder.layer)(every[:count])
        sides[count] = arms.arm(arms.ours(model), (4, ROW))
    seconds = race({str(count): side.step for count, side in sides.items()}, rounds, clock=cpu)
    own = {count: median(seconds[str(count)]) for count in layers}
    kept = {count: side.kept_bytes() for count, side in sides.items()}
    return [
        grown("a step against the layers, 4×64 tokens, r = 16", "layers", "s", own.items()),
        grown("bytes kept against the layers, 4×64 tokens, r = 16", "layers", "bytes in all", kept.items()),
    ]


def factors_by_side(sides: Sequence[int], rounds: int) -> Curve:
    """Square matrices, r = 25."""
    found = {}
    for side in sides:
        matrix = like_minilm("query", side, side, seed=side).matrix
        found[side] = median(race({"": lambda A=matrix: truncated_svd(A, 25)}, rounds, clock=cpu)[""])
    return grown("factors' time against the dimension, square, r = 25", "side", "s", found.items(), fitted_from=512)


def factors_by_rank(ranks: Sequence[int], rounds: int) -> Curve:
    """1024×1024."""
    matrix = like_minilm("query", 1024, 1024, seed=0).matrix
    seconds = race({str(r): lambda r=r: truncated_svd(matrix, r) for r in ranks}, rounds, clock=cpu)
    points = {r: median(seconds[str(r)]) for r in ranks}
    return grown("factors' time against the rank, 1024×1024", "r", "s", points.items(), fitted_from=16)


cpu = time.process_time


if __name__ == "__main__":
    sys.exit(main())
