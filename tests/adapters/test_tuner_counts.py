"""The paper's exact numbers for RoBERTa-large, without any weights: parameters, modules, bytes of the adapter file."""

from __future__ import annotations

import pytest
import torch
from oracles import lora_xs as oracle
from peft import PeftModel, get_peft_model

from lora_xs import LoraXsConfig
from lora_xs.errors import UserError


@pytest.fixture(scope="module")
def roberta_large():
    """A function that gives the architecture on the meta device, with a classification head."""
    from transformers import AutoModelForSequenceClassification, RobertaConfig

    config = RobertaConfig(
        vocab_size=50265, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    )

    def build():
        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(config)

    return build


def attached(model, r: int, **settings) -> PeftModel:
    return get_peft_model(model, LoraXsConfig(r=r, target_modules=oracle.ROBERTA_TARGETS, **settings))


@pytest.mark.parametrize(
    ("r", "parameters"), [(4, 1_536), (8, 6_144), (12, 13_824), (16, 24_576), (20, 38_400), (25, 60_000)]
)
def test_roberta_large_trains_exactly_r_squared_times_96_modules(roberta_large, r, parameters):
    model = attached(roberta_large(), r)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trained.values()) == parameters
    assert len(trained) == 96
    assert all(name.endswith(".lora_R.default") for name in trained)
    assert all(
        tensor.is_meta for tensor in (*model.parameters(), *(b for n, b in model.named_buffers() if "lora_" in n))
    )


def test_the_head_is_not_counted_among_the_adapter_s_parameters(roberta_large):
    model = attached(roberta_large(), 16, task_type="SEQ_CLS")
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    adapter = {name for name in trained if "lora_R" in name}
    assert sum(trained[name] for name in adapter) == 24_576
    assert all(".classifier." in name for name in set(trained) - adapter)


@pytest.mark.parametrize("settings", [{}, {"init_weights": "random", "init_seed": 123456}])
def test_the_adapter_file_is_R_and_at_most_64_KiB(roberta_large, tmp_path, settings):
    model = attached(roberta_large(), 16, **settings)
    entries = {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in model.state_dict().items() if "lora_" in name}
    model.save_pretrained(str(tmp_path), state_dict=entries)
    size = (tmp_path / "adapter_model.safetensors").stat().st_size
    assert 98_304 < size <= 98_304 + 65_536


def test_a_forward_on_the_meta_device_gives_shapes(roberta_large):
    model = attached(roberta_large(), 4)
    assert model(torch.zeros(2, 8, dtype=torch.long, device="meta")).logits.shape == (2, 2)


def test_factors_that_were_only_counted_are_not_used_once_memory_is_given_to_them():
    with torch.device("meta"):
        model = get_peft_model(oracle.TwoLayers(), LoraXsConfig(r=4, target_modules=["first"]))
    model.to_empty(device="cpu")
    with pytest.raises(UserError, match=r"first.*no factors"):
        model(torch.zeros(1, 12))
