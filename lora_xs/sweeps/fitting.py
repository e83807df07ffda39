"""What would make a run fit on a device whose memory it exceeds, changing no result."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from lora_xs.errors import UserError
from lora_xs.spec import RunSpec
from lora_xs.spec.rules import check
from lora_xs.sweeps.cost import estimate
from lora_xs.sweeps.devices import Device

SHARDS = (2, 4, 8)
"""Numbers of GPUs that a machine has."""


def how_to_fit(spec: RunSpec, device: Device) -> str:
    """What to write, from the cheapest: fewer rows at once, recomputing activations, several GPUs, a larger device."""
    for way in _ways(spec, device):
        if _fits(spec, way, device):
            words = " ".join(f"trainer.{key}={str(value).lower()}" for key, value in way.items())
            return f"{words} fits (and changes no result)"
    return "it does not fit there with any micro-batch; name a larger --device"


def _ways(spec: RunSpec, device: Device) -> Iterator[Mapping[str, Any]]:
    again: tuple[dict[str, Any], ...] = ({}, {"gradient_checkpointing": True})
    rows = [n for n in range(spec.trainer.batch_size, 0, -1) if spec.trainer.batch_size % n == 0]
    yield from ({"device_batch_size": n} | more for more in again for n in rows)
    if device.gpu:
        yield from ({"processes": n, "sharding": "fsdp"} | more for n in SHARDS for more in again)


def _fits(spec: RunSpec, way: Mapping[str, Any], device: Device) -> bool:
    changed = spec.replace(trainer=dataclasses.replace(spec.trainer, **way))
    try:
        check(changed)
    except UserError:  # no sharding of four-bit layers or with fp16
        return False
    return estimate(changed, device).peak_gib <= device.memory_gib
