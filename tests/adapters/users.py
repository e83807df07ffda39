"""Tiny users for the tests of bundles: LoRA-XS adapters on disk, each with numbers of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from oracles import lora_xs as oracle
from peft import get_peft_model
from safetensors.torch import load_file
from torch import nn

from lora_xs import LoraXsConfig
from lora_xs.errors import UserError

USERS = ["ada", "bob", "eve"]
WEIGHTS = "adapter_model.safetensors"


def save_users(
    folder: Path, users: list[str], base: nn.Module | None = None, *, seed: int = 0, scale: float = 1.0, **settings
) -> dict[str, Path]:
    """A folder a user: R ~ N(0, scale²), r=4 on the four modules of `oracle.bert`; a head PEFT keeps is drawn too."""
    defaults = {"r": 4, "lora_alpha": 6, "target_modules": oracle.ROBERTA_TARGETS, "init_std": 0.0}
    model = get_peft_model(oracle.bert() if base is None else base, LoraXsConfig(**{**defaults, **settings}))
    generator = torch.Generator().manual_seed(seed)
    for user in users:
        for name, parameter in model.named_parameters():
            if "lora_R" in name:
                parameter.data = scale * torch.randn(parameter.shape, generator=generator)
            elif "modules_to_save" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator)
        model.save_pretrained(str(folder / user))
    return {user: folder / user for user in users}


def refused(call: Callable[..., object], *arguments: object, **settings: object) -> str:
    """The one line with which something is refused."""
    with pytest.raises(UserError) as error:
        call(*arguments, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def same_tensors(one: Path, other: Path) -> bool:
    """Whether two files hold the same tensors bit for bit."""
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)
