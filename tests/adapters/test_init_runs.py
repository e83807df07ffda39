"""Every initialisation of the papers, from its config file through a RunSpec to a finished run."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from lora_xs.adapters.factors import INITS, build_factors
from lora_xs.adapters.xs import lora_xs_config
from lora_xs.runner import run
from lora_xs.spec.compose import options

METHOD_OF = {"method": "lora", "update": "lora_sb"}
ASKED = {
    "svd_w": "svd_w",
    "svd_w_middle": "svd_w",
    "svd_w_bottom": "svd_w",
    "svd_w_no_sigma": "svd_w",
    "random": "random",
    "svd_random": "svd_random",
    "update": "update",
}
SHORT = ("trainer.max_steps=2", "trainer.epochs=1", "trainer.learning_rate=1e-3", "evaluation=end")


def fingerprints(record_folder) -> list[bytes]:
    saved = load_file(record_folder / "adapter" / "last" / "adapter_model.safetensors")
    return [bytes(t.tolist()) for name, t in sorted(saved.items()) if "fingerprint" in name]


def test_every_asked_initialisation_has_a_config_and_a_builder():
    assert set(options("init")) == set(ASKED) | {"method"}
    assert set(INITS) == set(ASKED.values())


@pytest.mark.parametrize("init", sorted(ASKED))
def test_its_run_finishes_and_the_adapter_names_it(tiny_run, init: str):
    spec = tiny_run(f"method={METHOD_OF.get(init, 'lora_xs')}", f"init={init}", *SHORT)
    assert spec.init.name == ASKED[init]
    record = run(spec)
    assert record.status == "finished" and math.isfinite(record.train["last"]["loss"])
    recipe = fingerprints(spec.folder)[0][32:].decode()
    assert f'"init":"{ASKED[init]}"' in recipe
    if init.startswith("svd_w_"):
        assert ('"sigma":false' if init.endswith("sigma") else f'"part":"{init[6:]}"') in recipe


def test_no_two_of_them_make_the_same_factors(tiny_run):
    W = torch.randn(20, 12, generator=torch.Generator().manual_seed(0))
    asked = [[f"init={init}"] for init in ASKED if init != "update"] + [["init=random", "init.kaiming_bounds=fan_in"]]
    products = []
    for overrides in asked:
        made = build_factors(W, lora_xs_config(tiny_run(*overrides)).recipe(4), name="m")
        products.append(made.B @ made.A)
    for index, product in enumerate(products):
        assert all((product - other).norm() > 1e-2 for other in products[:index])


@pytest.mark.parametrize("std", ["1e-5", "0", "0.25"])
def test_the_spread_of_R_is_a_choice_and_zero_is_one(tiny_run, std: str):
    spec = tiny_run(f"init.std={std}", *SHORT, "trainer.learning_rate=0")
    run(spec)
    saved = load_file(spec.folder / "adapter" / "last" / "adapter_model.safetensors")
    entries = torch.cat([t.flatten() for name, t in saved.items() if name.endswith("lora_R")])
    assert entries.std() == pytest.approx(float(std), rel=0.3)


@pytest.mark.parametrize("rank", [1, 31, 32])
def test_rank_one_up_to_the_full_dimension_trains(tiny_run, rank: int):
    record = run(tiny_run(f"rank.r={rank}", *SHORT))
    assert record.status == "finished" and record.train["parameters"]["adapter"] == 8 * rank**2
