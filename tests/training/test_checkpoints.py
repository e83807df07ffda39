"""A checkpoint brings everything back, and an unsound one is passed over."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lora_xs.errors import UserError
from lora_xs.training import checkpoints


def parts() -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    model.bias.requires_grad_(False)
    optimizer = torch.optim.AdamW([model.weight], lr=0.1)
    return model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))


def steps(model: nn.Module, optimizer, schedule, n: int) -> None:
    for _ in range(n):
        optimizer.zero_grad()
        model(torch.randn(4, 5) + random.random() + np.random.rand()).square().mean().backward()
        optimizer.step()
        schedule.step()


def save(root: Path, step: int, built, signature: str = "sig") -> Path:
    return checkpoints.save_checkpoint(root, step, *built, None, {"signature": signature}, "{}")


def test_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    one = parts()
    steps(*one, 3)
    save(tmp_path, 3, one)
    steps(*one, 4)
    other = parts()
    folder = checkpoints.newest_sound(tmp_path, "sig")
    assert folder is not None
    checkpoints.load_weights(folder, other[0])
    checkpoints.load_optimizer(folder, other[1], other[2])
    checkpoints.load_rng(folder, seed=0)
    steps(*other, 4)
    assert torch.equal(one[0].weight, other[0].weight)
    assert one[2].get_last_lr() == other[2].get_last_lr()


def test_only_the_newest_two_are_kept_and_frozen_weights_are_in_none(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    built = parts()
    for step in (1, 2, 10):
        steps(*built, 1)
        save(tmp_path, step, built)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step-00000002", "step-00000010"]
    assert list(load_file(tmp_path / "step-00000010" / checkpoints.WEIGHTS)) == ["weight"]


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "manifest"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    built = parts()
    steps(*built, 1)
    good, bad = save(tmp_path, 1, built), save(tmp_path, 2, built)
    victim = bad / checkpoints.OPTIMIZER
    if damage == "cut":
        victim.write_bytes(victim.read_bytes()[:-7])
    elif damage == "flip":
        content = bytearray(victim.read_bytes())
        content[-1] ^= 1
        victim.write_bytes(content)
    elif damage == "missing":
        victim.unlink()
    else:
        (bad / checkpoints.MANIFEST).write_text("{")
    assert checkpoints.newest_sound(tmp_path, "sig") == good


def test_damaged_ones_of_later_steps_do_not_push_out_what_is_saved_below_them(tmp_path: Path) -> None:
    for step in (40, 50):
        (save(tmp_path, step, parts()) / checkpoints.WEIGHTS).write_bytes(b"damaged")
    assert checkpoints.newest_sound(tmp_path, "sig") is None
    saved = save(tmp_path, 10, parts())
    assert checkpoints.newest_sound(tmp_path, "sig") == saved and list(tmp_path.glob("step-*")) == [saved]


def test_a_checkpoint_of_another_run_is_not_taken(tmp_path: Path) -> None:
    save(tmp_path, 1, parts(), signature="other")
    assert checkpoints.newest_sound(tmp_path, "sig") is None


def test_no_file_of_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    built = parts()
    steps(*built, 1)
    assert {f.suffix for f in save(tmp_path, 1, built).iterdir()} == {".safetensors", ".json"}


def adapted(scale: float) -> nn.Module:
    """A LoRA-XS model over one layer whose weight is `scale` times a fixed one, plus what turns its directions."""
    from peft import get_peft_model

    from lora_xs import LoraXsConfig

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5))
    with torch.no_grad():
        model[0].weight += scale * torch.randn(5, 6)
    return get_peft_model(model, LoraXsConfig(r=2, target_modules=["0"], init_std=0.5))


def test_an_r_goes_on_between_its_own_factors_alone(tmp_path: Path) -> None:
    one = adapted(0.0)
    optimizer = torch.optim.AdamW([p for p in one.parameters() if p.requires_grad])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    folder = save(tmp_path, 1, (one, optimizer, schedule))
    same = adapted(0.0)
    for parameter in same.parameters():
        if parameter.requires_grad:
            parameter.data.zero_()
    checkpoints.load_weights(folder, same)
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), same.parameters(), strict=True))
    with pytest.raises(UserError, match="for another base weight"):
        checkpoints.load_weights(folder, adapted(0.5))
