"""What figures need of synthetic records beyond scores: losses of each step, bytes, memory, a machine's name."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

from lora_xs.records import RECORD
from lora_xs.reporting.planned import planned_runs

STEPS = 60
HARDWARE = {"cpu": "a made-up processor", "gpu": None, "cores": 2, "system": "Linux"}
FIXED = {"full_ft": 355_000_000, "vera": 61_000}


def enrich(results: Path, names: Sequence[str]) -> None:
    """Give every record below `results` of these experiments' runs parameters, a size, a memory, a machine and a
    `metrics.jsonl` whose losses fall from 1.4 nats."""
    cells = {run.signature: run.cell for name in names for run in planned_runs(name)}
    for file in sorted(results.rglob(RECORD)):
        content = json.loads(file.read_text(encoding="utf-8"))
        signature = content["run"]["signature"]
        cell = cells.get(signature, {})
        own = random.Random(f"curves {sorted(cell.items())} {content['run']['seed']}")
        parameters = _parameters(cell.get("method", "lora_xs"), int(cell.get("rank", 16)))
        content["train"].update(adapter_bytes=4 * parameters + 512, peak_memory_mib=1000 + 400 * own.random())
        content["train"]["parameters"]["adapter"] = parameters
        content["environment"]["hardware"] = HARDWARE
        file.write_text(json.dumps(content), encoding="utf-8")
        floor = 0.3 + 0.2 * own.random()
        lines = [
            {"kind": "train", "step": step, "loss": floor + math.exp(-step / 15) + 0.05 * own.gauss(0, 1)}
            for step in range(1, STEPS + 1)
        ]
        (file.parent / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _parameters(method: str, rank: int) -> int:
    if method == "head_only":
        return 0
    return FIXED.get(method) or (96 * rank * rank if method in ("lora_xs", "lora_sb") else 98_304 * rank)
