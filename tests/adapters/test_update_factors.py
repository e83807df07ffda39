"""LoRA-SB's adapter: where the model starts, the variants, saving, loading, export; and one process or two."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from oracles import lora_sb
from oracles import lora_xs as tiny
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from lora_xs import LoraXsConfig, export_lora
from lora_xs.adapters.factors import Recipe, build_factors
from lora_xs.adapters.tuner import LoraXsLinear
from lora_xs.adapters.update import estimate_update
from lora_xs.errors import UserError

TARGETS = ["attention.self.query", "attention.self.value", "attention.output.dense", "output.dense"]
BATCHES = [{"input_ids": (tiny.tokens() + 5 * k) % 50, "labels": torch.tensor([0, 1, 1]).roll(k)} for k in range(4)]


def config(**settings) -> LoraXsConfig:
    common = {"r": 4, "lora_alpha": 16, "init_weights": "update", "target_modules": TARGETS, "init_std": 0.0}
    return LoraXsConfig(**{**common, **settings})


def adapted(model: nn.Module | None = None, eta: float = 1e-2, **settings) -> PeftModel:
    model, own = tiny.bert() if model is None else model, config(**settings)
    own.update = estimate_update(model, own, BATCHES, eta=eta, dropout=False)
    return get_peft_model(model, own).eval()


def layers(model: nn.Module) -> dict[str, LoraXsLinear]:
    return {m.module_name: m for m in model.modules() if isinstance(m, LoraXsLinear)}


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=tiny.tokens()).logits


def delta(layer: LoraXsLinear) -> Tensor:
    return layer.get_delta_weight("default").double()


@pytest.mark.parametrize("alpha", [4, 16, 3])
def test_the_model_starts_at_the_best_part_of_the_step_whatever_alpha_is(alpha: float):
    model = tiny.bert().double()
    steps = dict(estimate_update(model, config(), BATCHES, eta=1e-2, dropout=False).gradients)
    for name, layer in layers(adapted(model, lora_alpha=alpha)).items():
        expected = lora_sb.start(layer.base.weight, lora_sb.first_step(steps[name], 1e-2), 4)
        torch.testing.assert_close(layer.base.weight.double() + delta(layer), expected, rtol=0, atol=1e-7)
        A, B = layer.lora_A["default"], layer.lora_B["default"]
        torch.testing.assert_close(A @ A.T, torch.eye(4).double(), rtol=0, atol=1e-6)
        torch.testing.assert_close(B.T @ B, torch.eye(4).double(), rtol=0, atol=1e-6)


def test_the_start_is_a_descent():
    model = tiny.bert()
    before = sum(float(model(**batch).loss) for batch in BATCHES)
    started = adapted(model, eta=1e-4)
    assert sum(float(started(**batch).loss) for batch in BATCHES) < before


def test_the_non_orthonormal_variant_starts_at_the_same_place_from_R_proportional_to_one():
    usual, variant = adapted(), adapted(orthonormal=False)
    for one, other in zip(layers(usual).values(), layers(variant).values(), strict=True):
        torch.testing.assert_close(delta(one), delta(other), rtol=0, atol=1e-7)
        torch.testing.assert_close(other.scaling["default"] * other.lora_R["default"], torch.eye(4), rtol=0, atol=1e-6)
        assert torch.equal(one.lora_A["default"], other.lora_A["default"])


@pytest.mark.parametrize("noise", [1e-5, 1e-3, 1e-2])
def test_noise_is_added_to_what_is_decomposed_and_its_size_is_reported(noise: float):
    plain, noisy = adapted(eta=1e-5), adapted(eta=1e-5, matrix="update_noise", noise=noise)
    name, layer = next(iter(layers(noisy).items()))
    report = noisy.factor_reports["default"][name]
    assert report.ratio == pytest.approx(float(delta(layer).norm() / layer.base.weight.norm()), rel=1e-4)
    assert report.ratio > plain.factor_reports["default"][name].ratio
    again = layers(adapted(eta=1e-5, matrix="update_noise", noise=noise))[name]
    assert torch.equal(layer.lora_A["default"], again.lora_A["default"])
    other = layers(adapted(eta=1e-5, matrix="update_noise", noise=noise, init_seed=1))[name]
    assert not torch.equal(layer.lora_A["default"], other.lora_A["default"])


def test_a_kaiming_matrix_needs_no_estimate_and_moves_the_model_far():
    model = get_peft_model(tiny.bert(), config(matrix="kaiming"))
    assert all(report.ratio > 0.3 for report in model.factor_reports["default"].values())
    assert not model.peft_config["default"].save_factors  # its seed makes it again


@pytest.mark.parametrize("r", [1, 7, 20, 31, 32])
def test_rank_one_up_to_the_full_dimension_works(r: int):
    model = adapted(r=r)
    for layer in layers(model).values():
        assert layer.lora_R["default"].shape == (r, r) and math.isfinite(float(delta(layer).norm()))
    model(**BATCHES[0]).loss.backward()
    assert all(layer.lora_R["default"].grad.isfinite().all() for layer in layers(model).values())


def test_a_step_of_lower_rank_than_asked_for_still_has_orthonormal_factors():
    W = torch.randn(20, 12, generator=torch.Generator().manual_seed(0))
    for step in (torch.outer(torch.arange(20.0), torch.ones(12)), torch.zeros(20, 12)):
        A, B, R0, *_ = build_factors(W, Recipe("update", r=5), name="m", update=step)
        torch.testing.assert_close(A @ A.T, torch.eye(5), rtol=0, atol=1e-5)
        torch.testing.assert_close(B.T @ B, torch.eye(5), rtol=0, atol=1e-5)
        torch.testing.assert_close(B @ R0 @ A, step, rtol=0, atol=1e-4)


def test_the_saved_adapter_holds_its_factors_and_loads_without_any_data(tmp_path: Path):
    model = adapted()
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny.bert(), tmp_path).eval()
    for one, other in zip(layers(model).values(), layers(loaded).values(), strict=True):
        assert torch.equal(one.lora_A["default"], other.lora_A["default"])
        assert torch.equal(one.lora_B["default"], other.lora_B["default"])
    assert torch.equal(logits(model), logits(loaded))
    loaded.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(PeftModel.from_pretrained(tiny.bert(), tmp_path / "again").eval()), logits(model))


def test_R_cannot_be_loaded_onto_factors_of_other_data(tmp_path: Path):
    adapted().save_pretrained(tmp_path)
    model, own = tiny.bert(), config()
    own.update = estimate_update(model, own, BATCHES[:1], eta=1e-2, dropout=False)
    other = get_peft_model(model, own)
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    with pytest.raises(UserError, match="the factors differ numerically"):
        set_peft_model_state_dict(other, load_file(tmp_path / "adapter_model.safetensors"))


def test_an_adapter_without_its_factors_is_refused():
    with pytest.raises(UserError, match="its factors cannot be rebuilt"):
        config(save_factors=False)


def test_export_and_merge_give_the_start_and_what_was_trained(tmp_path: Path):
    model = adapted()
    for layer in layers(model).values():
        layer.lora_R["default"].data += 0.01 * torch.randn(4, 4)
    export_lora(model, tmp_path / "plain")
    plain = PeftModel.from_pretrained(tiny.bert(), tmp_path / "plain").eval()
    torch.testing.assert_close(logits(plain), logits(model), rtol=0, atol=1e-5)
    assert not torch.equal(logits(plain), logits(tiny.bert()))
    expected = logits(model)
    torch.testing.assert_close(logits(model.merge_and_unload()), expected, rtol=0, atol=1e-5)


def _one_of_two(rank: int, folder: str, count: int) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        torch.set_num_threads(1)
        torch.save(_factors(count), f"{folder}/rank{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


def _factors(count: int) -> dict[str, tuple[Tensor, ...]]:
    """Sums of the gradients, A, B and R of each module, with dropout on."""
    model, own = tiny.bert(), config()
    own.update = made = estimate_update(model, own, BATCHES[:count], eta=1e-2, seed=5)
    sums = {name: gradient.clone() for name, gradient in made.gradients.items()}
    found = layers(get_peft_model(model, own))
    parts = ("lora_A", "lora_B", "lora_R")
    return {n: (sums[n], *(getattr(layer, p)["default"].detach() for p in parts)) for n, layer in found.items()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("count", [1, 2, 4])
def test_two_processes_end_with_the_factors_of_one(tmp_path: Path, count: int):
    # Up to two batches the sums are bitwise those of one process. Beyond, they are added in another order: equal to
    # 1e-6, and with them all signs, so that the factors are bitwise equal again.
    children = []
    for rank in (0, 1):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _one_of_two(rank, str(tmp_path), count)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    expected = _factors(count)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        for name, (total, *factors) in expected.items():
            if count <= 2:
                assert torch.equal(found[name][0], total)
            torch.testing.assert_close(found[name][0], total, rtol=0, atol=1e-6 * float(total.abs().max()))
            assert torch.equal(found[name][0].sign(), total.sign())
            assert all(torch.equal(one, other) for one, other in zip(found[name][1:], factors, strict=True))
