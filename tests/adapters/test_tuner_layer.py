"""Adapters on a model: merging and back, switching off, several side by side, dtypes, Conv1D."""

from __future__ import annotations

import pytest
import torch
from oracles import lora_xs as oracle
from peft import get_peft_model, inject_adapter_in_model
from torch import Tensor, nn

from lora_xs import LoraXsConfig
from lora_xs.adapters import factors
from lora_xs.adapters.tuner import LoraXsLinear
from lora_xs.errors import UserError

X = torch.linspace(-2, 2, 60).view(5, 12)


def config(**settings) -> LoraXsConfig:
    return LoraXsConfig(**{"r": 4, "lora_alpha": 6, "target_modules": ["first", "second"], "init_std": 0.3, **settings})


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=60, n_positions=32, n_inner=24)).eval()


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=60, max_position_embeddings=32, **shape)).eval()


def test_an_R_of_zero_is_the_base_model_bit_for_bit():
    base, model = (
        oracle.bert(),
        get_peft_model(oracle.bert(), config(target_modules=oracle.ROBERTA_TARGETS, init_std=0.0)),
    )
    with torch.no_grad():
        assert torch.equal(model(oracle.tokens()).logits, base(oracle.tokens()).logits)


def test_merged_weight_is_the_oracle_s_and_gives_the_same_output():
    model = get_peft_model(oracle.two_layers(), config())
    layer, expected = model.base_model.model.first, model(X)
    wanted = oracle.merged(
        layer.base_layer.weight, layer.lora_A["default"], layer.lora_B["default"], layer.lora_R["default"].detach(), 1.5
    )
    merged = model.merge_and_unload(safe_merge=True)
    assert type(merged.first) is nn.Linear
    torch.testing.assert_close(merged.first.weight.double(), wanted, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(merged(X), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unmerging_restores_the_weight_bit_for_bit(dtype):
    model = get_peft_model(oracle.two_layers(dtype=dtype), config())
    original = oracle.two_layers(dtype=dtype)
    model.merge_adapter()
    assert not torch.equal(model.base_model.model.first.base_layer.weight, original.first.weight)
    model.unmerge_adapter()
    assert torch.equal(model.base_model.model.first.base_layer.weight, original.first.weight)
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(model(X.to(dtype)), original(X.to(dtype)))


def test_a_broken_adapter_is_not_merged():
    model = get_peft_model(oracle.two_layers(), config())
    model.base_model.model.second.lora_R["default"].data[0, 0] = torch.nan
    with pytest.raises(UserError, match=r"second.*not finite"):
        model.merge_adapter(safe_merge=True)


def test_disabled_adapters_leave_the_base_model():
    model = get_peft_model(oracle.two_layers(), config())
    adapted = model(X)
    with model.disable_adapter():
        assert torch.equal(model(X), oracle.two_layers()(X))
    assert torch.equal(model(X), adapted)
    assert torch.equal(model.unload()(X), oracle.two_layers()(X))


def test_adapters_of_different_ranks_and_initialisations_live_side_by_side():
    model = get_peft_model(oracle.two_layers(), config())
    first = model(X)
    model.add_adapter("wide", config(r=8, init_weights="random", target_modules=["first"]))
    assert torch.equal(model(X), first)
    model.set_adapter("wide")
    wide = model(X)
    assert not torch.allclose(wide, first)
    assert [name.rpartition(".")[2] for name, p in model.named_parameters() if p.requires_grad] == ["wide"]
    alone = get_peft_model(oracle.two_layers(), config(r=8, init_weights="random", target_modules=["first"]))
    alone.base_model.model.first.lora_R["default"].data = model.base_model.model.first.lora_R["wide"].data
    assert torch.equal(wide, alone(X))
    model.delete_adapter("wide")
    assert list(model.factor_reports) == ["default"]
    model.set_adapter("default")
    assert torch.equal(model(X), first)


def test_two_active_adapters_add_up_and_merge_together():
    model = get_peft_model(oracle.two_layers(dtype=torch.float64), config())
    model.add_adapter("other", config(r=3, part="bottom"))
    model.base_model.set_adapter(["default", "other"])
    both = model(X.double())
    layer, plain = model.base_model.model.second, oracle.two_layers(dtype=torch.float64)
    hidden = torch.tanh(model.base_model.model.first(X.double()))
    delta = sum(layer.get_delta_weight(name) for name in ("default", "other"))
    torch.testing.assert_close(both, plain.second(hidden) + hidden @ delta.T)
    model.merge_adapter()
    torch.testing.assert_close(model(X.double()), both)


def test_an_adapter_is_not_added_to_a_merged_weight():
    model = get_peft_model(oracle.two_layers(), config())
    model.merge_adapter()
    with pytest.raises(UserError, match="unmerge"):
        model.add_adapter("late", config())


@pytest.mark.parametrize(
    ("build", "targets"),
    [
        (gpt2, ["c_attn", "c_proj", "c_fc"]),
        (llama, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]),
    ],
)
def test_decoders_train_merge_and_unmerge(build, targets):
    base = build()
    model = get_peft_model(
        build(), LoraXsConfig(r=4, lora_alpha=4, target_modules=targets, init_std=0.3, task_type="CAUSAL_LM")
    )
    layers = [module for module in model.modules() if isinstance(module, LoraXsLinear)]
    assert len(layers) == {"gpt2": 2 * 4, "llama": 2 * 7}[build.__name__]
    ids = oracle.tokens()
    loss = model(ids, labels=ids).loss
    loss.backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        adapted = model(ids).logits
        assert not torch.allclose(adapted, base(ids).logits, atol=1e-3)
        model.merge_adapter()
        torch.testing.assert_close(model(ids).logits, adapted, atol=1e-5, rtol=1e-5)
        model.unmerge_adapter()
        torch.testing.assert_close(model(ids).logits, adapted, atol=0, rtol=0)


def test_conv1d_is_the_linear_layer_of_the_transposed_weight():
    model = get_peft_model(gpt2(), LoraXsConfig(r=4, target_modules=["c_attn"], init_std=0.3))
    layer = model.base_model.model.transformer.h[0].attn.c_attn
    x = torch.randn(6, 16, requires_grad=True)
    A, B, R = (getattr(layer, f"lora_{name}")["default"] for name in "ABR")
    expected = oracle.forward(x, layer.base_layer.weight.T, layer.base_layer.bias, A, B, R, layer.scaling["default"])
    wanted = torch.autograd.grad(expected.square().sum(), (x, R))
    found = torch.autograd.grad(layer(x).square().sum(), (x, R))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_R_keeps_fp32_and_its_bits_when_the_model_is_cast():
    model = get_peft_model(oracle.two_layers(), config())
    layer = model.base_model.model.first
    R = layer.lora_R["default"].detach().clone()
    model.bfloat16()
    assert torch.equal(layer.lora_R["default"], R)
    assert layer.lora_A["default"].dtype == torch.bfloat16
    assert model(X.bfloat16()).dtype == torch.bfloat16
    assert layer.lora_R["default"].requires_grad


def test_a_new_initialisation_can_say_what_s_R_starts_from(monkeypatch):
    start = torch.arange(16.0).view(4, 4)

    def build(weight: Tensor, recipe, name, store, update):
        return factors.build_factors(weight, factors.Recipe(r=recipe.r), name=name, store=store)._replace(R0=start)

    monkeypatch.setattr(factors, "INITS", {**factors.INITS, "given": factors.Init(build, ())})
    layer = get_peft_model(oracle.two_layers(), config(init_weights="given")).base_model.model.first
    torch.testing.assert_close(layer.scaling["default"] * layer.lora_R["default"].detach(), start)


def test_injection_without_a_peft_model_works():
    model = inject_adapter_in_model(config(), oracle.two_layers())
    wrapped = get_peft_model(oracle.two_layers(), config())
    for name in ("first", "second"):
        getattr(model, name).lora_R["default"].data = getattr(wrapped.base_model.model, name).lora_R["default"].data
    assert torch.equal(model(X), wrapped(X))


def test_every_adapted_module_reports_how_its_factors_were_made():
    model = get_peft_model(oracle.two_layers(), config())
    reports = model.factor_reports["default"]
    assert sorted(reports) == ["first", "second"]
    assert all(
        report.residual <= 1e-5 and report.seconds >= 0 and report.warning is None for report in reports.values()
    )
