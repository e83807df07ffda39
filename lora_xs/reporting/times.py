"""What the start of a run cost beside its training (LoRA-XS Table 5, LoRA-SB Table 5), of every run that is there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lora_xs.records import Record

STARTS = ("lora_xs", "lora_sb", "pissa")
"""Methods whose start takes a decomposition, or LoRA-SB's estimate and one."""


def start_times(records: Iterable[Record]) -> list[dict[str, Any]]:
    """A dict a finished run of these methods, in the records' order: signature, model, task, method, rank; seconds of
    start, training and an epoch; percent, start over training. from_store: of how many modules the factors had been
    stored (None: unknown), so that the start took no decomposition of theirs; modules: of how many there are."""
    return [_times(record) for record in records if record.scored and _method(record) in STARTS]


def _times(record: Record) -> dict[str, Any]:
    spec, train = record.run["spec"], record.train
    start, training = train["seconds"]["adapter"], train["seconds"]["training"]
    factors = train.get("factors") or {}
    last = train.get("last") or {}
    return {
        **{"signature": record.signature, "model": spec["model"]["name"], "task": spec["task"]["name"]},
        **{"method": _method(record), "rank": spec["rank"]},
        **{"start_seconds": start, "training_seconds": training, "percent": 100 * start / training},
        "epoch_seconds": training / last["epoch"] if last.get("epoch") else None,
        **{"modules": factors.get("modules"), "from_store": factors.get("cached")},
    }


def _method(record: Record) -> str:
    return str(record.run["spec"]["method"]["name"])
