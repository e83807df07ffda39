"""What is saved is R and a fingerprint; what is loaded must belong to the factors it meets, or it says what differs."""

from __future__ import annotations

import pytest
import torch
from oracles import lora_xs as oracle
from peft import (
    AutoPeftModelForSequenceClassification,
    LoraConfig,
    PeftModel,
    get_peft_model,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lora_xs import LoraXsConfig
from lora_xs.adapters.store import FactorStore
from lora_xs.adapters.tuner.fingerprint import TOLERANCE, Fingerprint, sketch_distance, sketch_factors
from lora_xs.errors import UserError

WEIGHTS = "adapter_model.safetensors"


def config(**settings) -> LoraXsConfig:
    defaults = {
        "r": 4,
        "lora_alpha": 6,
        "target_modules": oracle.ROBERTA_TARGETS,
        "init_std": 0.3,
        "task_type": "SEQ_CLS",
    }
    return LoraXsConfig(**{**defaults, **settings})


def trained(adapter_name: str = "default", **settings) -> PeftModel:
    torch.manual_seed(7)
    return get_peft_model(oracle.bert(), config(**settings), adapter_name=adapter_name).eval()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(oracle.tokens()).logits


def other_base() -> nn.Module:
    """The base model with one weight of one adapted module changed in its last digits."""
    base = oracle.bert()
    base.bert.encoder.layer[1].output.dense.weight.data[0, 0] *= 1.0001
    return base


def refused(base: nn.Module, folder, **settings) -> str:
    """The one line with which loading is refused."""
    with pytest.raises(UserError) as error:
        PeftModel.from_pretrained(base, str(folder), **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("init", ["svd_w", "svd_random", "random"])
@pytest.mark.parametrize("save_factors", [False, True])
@pytest.mark.parametrize("low_memory", [False, True])
def test_a_reloaded_adapter_gives_the_same_logits(tmp_path, init, save_factors, low_memory):
    model = trained(init_weights=init, save_factors=save_factors)
    model.save_pretrained(str(tmp_path))
    again = PeftModel.from_pretrained(oracle.bert(), str(tmp_path), low_cpu_mem_usage=low_memory)
    assert torch.equal(logits(again), logits(model))
    assert not any(p.requires_grad for name, p in again.named_parameters() if "lora_R" in name)
    trainable = PeftModel.from_pretrained(oracle.bert(), str(tmp_path), low_cpu_mem_usage=low_memory, is_trainable=True)
    assert all(
        p.requires_grad and p.dtype == torch.float32 for name, p in trainable.named_parameters() if "lora_R" in name
    )


def test_a_checkpoint_holds_R_and_fingerprint_and_no_factors(tmp_path):
    model = trained(task_type=None)
    model.save_pretrained(str(tmp_path))
    saved = load_file(tmp_path / WEIGHTS)
    assert {key.rpartition(".")[2] for key in saved} == {"lora_R", "lora_fingerprint"}
    assert len(saved) == 2 * 8
    assert not any("lora_A" in key or "lora_B" in key for key in model.state_dict())


def test_a_reloaded_adapter_trains_on(tmp_path):
    trained().save_pretrained(str(tmp_path))
    model = PeftModel.from_pretrained(oracle.bert(), str(tmp_path), is_trainable=True)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = logits(model)
    model(oracle.tokens(), labels=torch.tensor([0, 1, 0])).loss.backward()
    optimizer.step()
    model.save_pretrained(str(tmp_path / "later"))
    assert not torch.equal(logits(model), before)
    assert torch.equal(logits(PeftModel.from_pretrained(oracle.bert(), str(tmp_path / "later"))), logits(model))


def test_an_adapter_loads_under_another_name_and_beside_others(tmp_path):
    model = trained()
    model.save_pretrained(str(tmp_path))
    again = PeftModel.from_pretrained(oracle.bert(), str(tmp_path), adapter_name="mnli")
    again.load_adapter(str(tmp_path), "second")
    for name in ("mnli", "second"):
        again.set_adapter(name)
        assert torch.equal(logits(again), logits(model))


def test_an_adapter_of_another_name_is_found_in_its_own_folder(tmp_path):
    model = trained("task")
    model.save_pretrained(str(tmp_path))
    assert torch.equal(logits(PeftModel.from_pretrained(oracle.bert(), str(tmp_path / "task"))), logits(model))


def test_the_auto_class_finds_base_and_adapter(tmp_path):
    oracle.bert().save_pretrained(str(tmp_path / "base"))
    base = type(oracle.bert()).from_pretrained(str(tmp_path / "base"))
    model = get_peft_model(base, config()).eval()
    model.save_pretrained(str(tmp_path / "adapter"))
    again = AutoPeftModelForSequenceClassification.from_pretrained(str(tmp_path / "adapter"))
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("low_memory", [False, True])
def test_another_base_weight_is_refused_by_module(tmp_path, low_memory):
    trained().save_pretrained(str(tmp_path))
    message = refused(other_base(), tmp_path, low_cpu_mem_usage=low_memory)
    assert "bert.encoder.layer.1.output.dense" in message and "another base weight" in message


def test_a_refused_checkpoint_changes_no_R(tmp_path):
    trained().save_pretrained(str(tmp_path))
    model = get_peft_model(other_base(), config())
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(UserError):
        model.load_adapter(str(tmp_path), "default")
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"part": "bottom"}, '"part":"bottom"'),
        ({"sigma": False}, '"sigma":false'),
        ({"init_weights": "random"}, '"init":"random"'),
        ({"r": 3}, "rank is 3"),
    ],
)
def test_another_recipe_is_refused_and_told(tmp_path, settings, said):
    trained().save_pretrained(str(tmp_path))
    model = get_peft_model(oracle.bert(), config(**settings))
    with pytest.raises(UserError) as error:
        model.load_adapter(str(tmp_path), "default")
    assert said in str(error.value) and "bert.encoder.layer.0" in str(error.value)


def test_plain_load_state_dict_is_guarded_too():
    state = trained().state_dict()
    fresh = get_peft_model(oracle.bert(), config()).eval()
    fresh.load_state_dict(state)
    assert torch.equal(logits(fresh), logits(trained()))
    with pytest.raises(UserError, match='"part":"middle"'):
        get_peft_model(oracle.bert(), config(part="middle")).load_state_dict(state)
    bare = {name: tensor for name, tensor in state.items() if "lora_fingerprint" not in name}
    with pytest.raises(UserError, match="no lora_fingerprint"):
        fresh.load_state_dict(bare, strict=False)
    fresh.load_state_dict(oracle.bert().state_dict(), strict=False)  # no adapter in it: nothing to guard


def test_factors_that_differ_numerically_are_refused(tmp_path, monkeypatch):
    trained().save_pretrained(str(tmp_path))
    truncation = FactorStore.truncation

    def flipped(self, *args, **kwargs):
        stored = truncation(self, *args, **kwargs)
        svd = stored.svd._replace(U=torch.cat([-stored.svd.U[:, :1], stored.svd.U[:, 1:]], 1))
        return type(stored)(**{**stored.__dict__, "svd": svd})

    monkeypatch.setattr(FactorStore, "truncation", flipped)
    assert "differ numerically" in refused(oracle.bert(), tmp_path)


def test_factors_that_differ_in_the_last_bits_are_the_same(tmp_path, monkeypatch):
    model = trained()
    model.save_pretrained(str(tmp_path))
    truncation = FactorStore.truncation

    def shaken(self, *args, **kwargs):
        stored = truncation(self, *args, **kwargs)
        noise = 1 + 1e-5 * torch.randn(stored.svd.Vh.shape, generator=torch.Generator().manual_seed(0))
        return type(stored)(**{**stored.__dict__, "svd": stored.svd._replace(Vh=stored.svd.Vh * noise)})

    monkeypatch.setattr(FactorStore, "truncation", shaken)
    torch.testing.assert_close(
        logits(PeftModel.from_pretrained(oracle.bert(), str(tmp_path))), logits(model), atol=1e-4, rtol=0
    )


def test_embedded_factors_are_read_and_nothing_is_computed(tmp_path, monkeypatch):
    model = trained(save_factors=True)
    model.save_pretrained(str(tmp_path))

    def refuse(*args, **kwargs):
        raise AssertionError("a factor was computed")

    monkeypatch.setattr("lora_xs.adapters.tuner.layer.build_factors", refuse)
    for low_memory in (False, True):
        again = PeftModel.from_pretrained(oracle.bert(), str(tmp_path), low_cpu_mem_usage=low_memory)
        assert torch.equal(logits(again), logits(model))
    again.save_pretrained(str(tmp_path / "again"))
    assert torch.equal(logits(PeftModel.from_pretrained(oracle.bert(), str(tmp_path / "again"))), logits(model))
    again.load_adapter(str(tmp_path), "default")  # once more onto what came from a file


def test_embedded_factors_follow_the_adapter_to_a_base_of_another_dtype(tmp_path):
    model = trained(save_factors=True, task_type=None)
    model.save_pretrained(str(tmp_path))
    for low_memory in (False, True):
        half = PeftModel.from_pretrained(oracle.bert().bfloat16(), str(tmp_path), low_cpu_mem_usage=low_memory)
        dtypes = {name.split(".")[-2]: t.dtype for name, t in half.state_dict().items() if "lora_" in name}
        assert dtypes == {
            "lora_R": torch.float32,
            "lora_A": torch.bfloat16,
            "lora_B": torch.bfloat16,
            "lora_fingerprint": torch.uint8,
        }
        torch.testing.assert_close(logits(half).float(), logits(model), atol=0.05, rtol=0.05)
        half.save_pretrained(str(tmp_path / "half"))
        again = PeftModel.from_pretrained(oracle.bert().bfloat16(), str(tmp_path / "half"))
        assert torch.equal(logits(again), logits(half))
    trained().save_pretrained(str(tmp_path / "plain"))
    assert "same dtype" in refused(oracle.bert().bfloat16(), tmp_path / "plain")


def test_promised_factors_that_are_absent_or_damaged_are_an_error(tmp_path):
    trained(save_factors=True).save_pretrained(str(tmp_path))
    entries = load_file(tmp_path / WEIGHTS)
    key = "base_model.model.bert.encoder.layer.1.output.dense.lora_B"
    save_file({name: t for name, t in entries.items() if name != key}, tmp_path / WEIGHTS)
    message = refused(oracle.bert(), tmp_path)
    assert "no lora_B" in message and "layer.1.output.dense" in message
    save_file({**entries, key: entries[key] * 1.1}, tmp_path / WEIGHTS)
    assert "layer.1.output.dense" in refused(oracle.bert(), tmp_path)


def test_an_adapter_whose_promised_factors_never_came_is_not_run(tmp_path):
    trained(save_factors=True).save_pretrained(str(tmp_path))
    model = get_peft_model(oracle.bert(), LoraXsConfig.from_pretrained(str(tmp_path)))
    with pytest.raises(UserError, match="has no factors yet"):
        logits(model)


def test_missing_foreign_and_damaged_entries_are_errors_not_silence(tmp_path):
    model = trained(task_type=None)
    model.save_pretrained(str(tmp_path))
    entries = load_file(tmp_path / WEIGHTS)
    gone = "base_model.model.bert.encoder.layer.0.output.dense.lora_R"
    fresh = get_peft_model(oracle.bert(), config(task_type=None))
    with pytest.raises(UserError, match=r"no R for 1 of 8 .*layer\.0\.output\.dense"):
        set_peft_model_state_dict(fresh, {name: t for name, t in entries.items() if name != gone})
    narrow = get_peft_model(oracle.bert(), config(task_type=None, target_modules=["query"]))
    with pytest.raises(UserError, match="adapts 6 modules that this model does not"):
        set_peft_model_state_dict(narrow, entries)
    with pytest.raises(UserError, match="damaged"):
        set_peft_model_state_dict(fresh, {n: t[:5] if "lora_fingerprint" in n else t for n, t in entries.items()})
    with pytest.raises(UserError, match="holds no lora_R"):
        set_peft_model_state_dict(fresh, {})


def test_a_checkpoint_of_another_method_is_refused(tmp_path):
    lora = get_peft_model(oracle.bert(), LoraConfig(r=4, target_modules=oracle.ROBERTA_TARGETS))
    lora.save_pretrained(str(tmp_path))
    model = get_peft_model(oracle.bert(), config(task_type=None))
    with pytest.raises(UserError, match="not of LoRA-XS"):
        set_peft_model_state_dict(model, load_file(tmp_path / WEIGHTS))
    with pytest.raises(ValueError, match="different peft types"):
        model.load_adapter(str(tmp_path), "lora")


def test_a_fingerprint_survives_its_bytes():
    A, B = oracle.factors(torch.randn(20, 12), 4)
    one = Fingerprint("0123456789abcdef" * 2, sketch_factors(A, B), '{"init":"svd_w"}')
    assert Fingerprint.from_tensor(one.to_tensor(), "m") == one


def test_the_sketch_sees_signs_rotations_and_scale_but_not_rounding():
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(16, 300, generator=generator) * torch.linspace(10, 1, 16)[:, None]  # [r, in]
    B = torch.linalg.qr(torch.randn(200, 16, generator=generator)).Q  # [out, r]
    norms = (float(A.norm()), float(B.norm()))
    own = sketch_factors(A, B)

    def distance(other_A: Tensor, other_B: Tensor) -> float:
        return sketch_distance(own, sketch_factors(other_A, other_B), norms)

    for i in range(16):  # the sign of every pair, down to the smallest
        sign = torch.ones(16)
        sign[i] = -1
        assert distance(sign[:, None] * A, B * sign) > TOLERANCE
    swapped = [1, 0, *range(2, 16)]
    assert distance(A[swapped], B[:, swapped]) > TOLERANCE
    assert distance(A * 1.1, B) > TOLERANCE
    assert distance(A * (1 + 1e-6 * torch.randn(A.shape, generator=generator)), B) < TOLERANCE / 100
    assert sketch_distance(own, (float("nan"), *own[1:]), norms) == float("inf")
