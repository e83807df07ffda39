"""The lines that a run wrote while it trained, and the losses among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"
Trajectory = dict[float, float]
"""Step or epoch → number."""


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; none where the file is missing, and no line that was cut short."""
    try:
        text = (folder / METRICS).read_text(encoding="utf-8")
    except OSError:
        return []
    lines = []
    for line in text.splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            lines.append(content)
    return lines


def training_losses(folder: Path) -> Trajectory:
    """Step → training loss (nats); of a step that was written twice, the later."""
    return {float(line["step"]): float(line["loss"]) for line in read_lines(folder) if line.get("kind") == "train"}
