"""LoRA-XS and LoRA-SB: extreme low-rank fine-tuning, replicated and measured.

Names are resolved on first use, so that `import lora_xs` (and with it `train.py --help`) never imports torch.
`from lora_xs import LoraXsConfig` registers the tuner with PEFT.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "LoraXsConfig": "lora_xs.adapters.tuner",
    "LoraXsModel": "lora_xs.adapters.tuner",
    "truncated_svd": "lora_xs.adapters.svd",
    "export_lora": "lora_xs.adapters.export",
    "estimate_update": "lora_xs.adapters.update",
    "Bundle": "lora_xs.adapters.bundle",
    "pack_adapters": "lora_xs.adapters.packing",
    "PerRow": "lora_xs.adapters.personal",
    "attach_bundle": "lora_xs.adapters.personal",
    "RunSpec": "lora_xs.spec",
    "run": "lora_xs.runner",
    "UserError": "lora_xs.errors",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import the public name from its home module on first use. Raises AttributeError for any other name."""
    if name not in _HOME:
        raise AttributeError(f"module 'lora_xs' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
