"""Two learning rates, decay on matrices only, and the schedules' exact values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lora_xs.training.optimizer import build_optimizer, build_schedule


def model() -> nn.Module:
    layers = nn.ModuleDict({"encoder": nn.Linear(4, 4), "classifier": nn.Linear(4, 2)})
    layers["encoder"].bias.requires_grad_(False)
    return layers


def test_head_and_adapter_have_their_own_rates_and_vectors_do_not_decay(tiny_run) -> None:
    trainer = tiny_run("trainer.learning_rate=1e-3", "trainer.head_learning_rate=5e-3").trainer
    groups = build_optimizer(model(), trainer, ("classifier",)).param_groups
    found = {g["name"]: (g["lr"], g["weight_decay"], sum(p.numel() for p in g["params"])) for g in groups}
    assert found == {"adapter": (1e-3, 0.01, 16), "head": (5e-3, 0.01, 8), "head (no decay)": (5e-3, 0.0, 2)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", lambda step: (100 - step) / 94),
        ("cosine", lambda step: 0.5 * (1 + torch.cos(torch.tensor(torch.pi * (step - 6) / 94)).item())),
        ("constant", lambda step: 1.0),
    ],
)
def test_schedules_warm_up_over_the_ratio_then_follow_their_formula(tiny_run, name: str, expected) -> None:
    trainer = tiny_run(f"trainer.schedule={name}", "trainer.learning_rate=1.0").trainer
    optimizer = build_optimizer(model(), trainer, ("classifier",))
    schedule = build_schedule(optimizer, trainer, 100)  # ceil(0.06 · 100) = 6 steps of warm-up
    for step in range(100):
        rate = optimizer.param_groups[0]["lr"]
        assert rate == pytest.approx(step / 6 if step < 6 else expected(step), abs=1e-6)
        optimizer.step()
        schedule.step()
