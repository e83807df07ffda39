"""Settings and targets: what is matched, and what is refused before a weight is read or a module replaced."""

from __future__ import annotations

import json

import pytest
import torch
from oracles import lora_xs as oracle
from peft import get_peft_model
from torch import nn

from lora_xs import LoraXsConfig
from lora_xs.adapters.store import FactorStore
from lora_xs.adapters.tuner import LoraXsLinear
from lora_xs.errors import UserError


def adapted(model: nn.Module) -> list[str]:
    return [
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if isinstance(module, LoraXsLinear)
    ]


@pytest.fixture
def no_svd(monkeypatch):
    """Any truncation is a failure of the test."""

    def refuse(*args, **kwargs):
        raise AssertionError("a weight was decomposed")

    monkeypatch.setattr(FactorStore, "truncation", refuse)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"init_weights": "svd"}, "init_weights='svd'"),
        ({"part": "upper"}, "part='upper'"),
        ({"sigma": "no"}, "sigma='no'"),
        ({"kaiming_bounds": "fan_out"}, "kaiming_bounds='fan_out'"),
        ({"init_seed": "x"}, "init_seed='x'"),
        ({"init_std": -1.0}, "init_std=-1.0"),
        ({"init_std": float("nan")}, "init_std=nan"),
        ({"r": 0}, "r=0"),
        ({"lora_alpha": 0}, "lora_alpha=0"),
        ({"lora_dropout": 1.0}, "lora_dropout=1.0"),
        ({"rank_pattern": {"first": 0}}, "r=0"),
        ({"alpha_pattern": {"first": -1}}, "lora_alpha=-1"),
        ({"save_factors": 1}, "save_factors=1"),
        ({"target_modules": "first("}, "target_modules='first\\('"),
        ({"target_modules": "first", "layers_to_transform": [0]}, "layers_to_transform"),
        ({"target_modules": ["first"], "layers_pattern": "layer"}, "layers_pattern"),
    ],
)
def test_meaningless_settings_are_refused_in_one_line_that_names_them(settings, named):
    with pytest.raises(UserError, match=named) as error:
        LoraXsConfig(**settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({}, ["target_modules"]),
        ({"target_modules": ["query_proj"]}, ["query_proj", "first", "second"]),
        ({"target_modules": ["first"], "exclude_modules": ["first"]}, ["exclude_modules"]),
        ({"target_modules": ["first"], "r": 13}, ["first", "13", "12"]),
        ({"target_modules": ["first", "second"], "r": 4, "rank_pattern": {"second": 11}}, ["second", "11", "10"]),
        ({"target_modules": ["norm"]}, ["norm", "LayerNorm"]),
        ({"target_modules": ["attention.out_proj"]}, ["attention.out_proj", "MultiheadAttention"]),
        ({"target_modules": ["whole"]}, ["whole", "int64"]),
    ],
)
def test_unfit_targets_are_refused_by_name_and_leave_the_model_untouched(settings, parts, no_svd):
    model = oracle.two_layers()
    model.norm = nn.LayerNorm(10)
    model.attention = nn.MultiheadAttention(8, 2)
    model.whole = nn.Linear(4, 4)
    model.whole.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.int64), requires_grad=False)
    before = [
        (name, type(module), [p.requires_grad for p in module.parameters()]) for name, module in model.named_modules()
    ]
    with pytest.raises(UserError) as error:
        get_peft_model(model, LoraXsConfig(**settings))
    assert all(part in str(error.value) for part in parts) and "\n" not in str(error.value)
    assert before == [(name, type(m), [p.requires_grad for p in m.parameters()]) for name, m in model.named_modules()]


def test_list_targets_match_whole_path_parts_only():
    model = oracle.bert()
    model.bert.encoder.layer[0].my_output = nn.ModuleDict({"dense": nn.Linear(32, 32)})
    names = adapted(get_peft_model(model, LoraXsConfig(r=2, target_modules=["output.dense"])))
    assert names == [
        f"bert.encoder.layer.{i}.{kind}" for i in (0, 1) for kind in ("attention.output.dense", "output.dense")
    ]


def test_a_regular_expression_takes_the_feed_forward_output_alone():
    pattern = r".*layer\.\d+\.output\.dense"
    names = adapted(get_peft_model(oracle.bert(), LoraXsConfig(r=2, target_modules=pattern)))
    assert names == ["bert.encoder.layer.0.output.dense", "bert.encoder.layer.1.output.dense"]


def test_the_paper_s_four_targets_leave_the_classification_head_alone():
    names = adapted(
        get_peft_model(oracle.bert(), LoraXsConfig(r=2, target_modules=oracle.ROBERTA_TARGETS, task_type="SEQ_CLS"))
    )
    assert len(names) == 8
    assert all(".layer." in name for name in names)


def test_layers_and_exclusions_narrow_the_targets():
    config = LoraXsConfig(r=2, target_modules=["query", "value"], exclude_modules=["value"], layers_to_transform=[1])
    assert adapted(get_peft_model(oracle.bert(), config)) == ["bert.encoder.layer.1.attention.self.query"]
    config = LoraXsConfig(r=2, target_modules=["query"], layers_to_transform=0, layers_pattern="layer")
    assert adapted(get_peft_model(oracle.bert(), config)) == ["bert.encoder.layer.0.attention.self.query"]


def test_all_linear_takes_every_linear_layer_but_the_head():
    names = adapted(get_peft_model(oracle.bert(), LoraXsConfig(r=2, target_modules="all-linear", task_type="SEQ_CLS")))
    assert len(names) == 2 * 6 + 1  # six a layer, and the pooler
    assert "classifier" not in names


def test_patterns_set_rank_and_scale_by_module():
    config = LoraXsConfig(
        r=4, lora_alpha=16, target_modules=["first", "second"], rank_pattern={"second": 2}, alpha_pattern={"first": 6}
    )
    model = get_peft_model(oracle.two_layers(), config)
    first, second = model.base_model.model.first, model.base_model.model.second
    assert (first.lora_R["default"].shape, first.scaling["default"]) == ((4, 4), 1.5)
    assert (second.lora_R["default"].shape, second.scaling["default"]) == ((2, 2), 8.0)


def test_only_R_trains_and_it_starts_from_its_spread():
    torch.manual_seed(0)
    config = LoraXsConfig(r=10, target_modules=["first", "second"], init_std=1e-3)
    model = get_peft_model(oracle.two_layers(), config)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert sorted(trainable) == [f"base_model.model.{name}.lora_R.default" for name in ("first", "second")]
    assert torch.cat([p.flatten() for p in trainable.values()]).std().item() == pytest.approx(1e-3, rel=0.2)
    torch.manual_seed(0)
    again = get_peft_model(oracle.two_layers(), config)
    assert all(torch.equal(p, again.get_parameter(name)) for name, p in trainable.items())


def test_an_adapter_name_with_a_dot_is_refused():
    with pytest.raises(UserError, match=r"'a\.b'"):
        get_peft_model(oracle.two_layers(), LoraXsConfig(r=2, target_modules=["first"]), adapter_name="a.b")


def test_a_batch_of_mixed_adapters_is_refused_not_ignored():
    model = get_peft_model(oracle.two_layers(), LoraXsConfig(r=2, target_modules=["first"]))
    with pytest.raises(UserError, match="adapter_names"):
        model(torch.zeros(2, 12), adapter_names=["default", "__base__"])


def test_saved_configuration_is_the_same_text_however_the_targets_are_given(tmp_path):
    for i, targets in enumerate((["b", "a"], {"a", "b"}, ("a", "b"))):
        LoraXsConfig(target_modules=targets, init_weights="random").save_pretrained(str(tmp_path / str(i)))
    texts = {(tmp_path / str(i) / "adapter_config.json").read_text() for i in range(3)}
    assert len(texts) == 1
    saved = json.loads(texts.pop())
    assert (saved["peft_type"], saved["target_modules"], saved["init_weights"]) == ("LORA_XS", ["a", "b"], "random")
    assert (
        LoraXsConfig.from_pretrained(str(tmp_path / "0")).to_dict()
        == LoraXsConfig(target_modules=["a", "b"], init_weights="random").to_dict()
    )
