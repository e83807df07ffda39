"""The global random generators of Python, NumPy and torch: kept in checkpoints, one stream a process."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import set_seed

from lora_xs.processes import place


def own_stream(seed: int, step: int = 0) -> None:
    """Give every process but the first random numbers of its own: else all would drop the same units of their rows."""
    rank, _ = place()
    if rank:
        set_seed((seed + 1_000_003 * rank + 7_919 * step) % 2**32)


def state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The generators of this process: tensors, and JSON values."""
    kind, keys, *rest = np.random.get_state()
    version, internal, gauss = random.getstate()
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"cuda{i:03d}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return tensors, {
        "python": [version, list(internal), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
    }


def restore(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Set the generators to what `state` gave."""
    version, internal, gauss = values["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = values["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(tensors["cpu"])
    devices = [tensors[key] for key in sorted(tensors) if key.startswith("cuda")]
    if devices and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(devices)
