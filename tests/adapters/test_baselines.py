"""The rivals through `attach`: they start at the base model, train what they should, and come back from their files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import nn

from lora_xs.adapters import attach
from lora_xs.adapters.files import load_adapter, save_adapter
from lora_xs.adapters.store import FactorStore
from lora_xs.adapters.trainable import trainable
from lora_xs.errors import UserError
from lora_xs.models import load_base, locate
from lora_xs.runner import run
from lora_xs.spec import RunSpec

METHODS = ("full_ft", "head_only", "lora", "rslora", "pissa", "vera")
ON_FOUR = "method.target_modules=[attention.self.query,attention.self.value,attention.output.dense,output.dense]"
TOKENS = torch.randint(5, 25, (6, 9), generator=torch.Generator().manual_seed(5))


@pytest.fixture
def build(tiny_run):
    """A function (method, overrides, attached) -> (model in eval mode, spec); the same seed at every call."""

    def model(method: str, *overrides: str, attached: bool = True) -> tuple[nn.Module, RunSpec]:
        where = [] if method in ("full_ft", "head_only") else [ON_FOUR]
        spec = tiny_run(f"method={method}", *where, "task.max_length=32", *overrides)
        torch.manual_seed(0)
        base, _ = load_base(spec.model, locate(spec.model), 2)
        return (attach(base, spec) if attached else base).eval(), spec

    return model


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


def train_a_little(model: nn.Module) -> nn.Module:
    """Three steps of Adam on fixed tokens: every trainable weight with a gradient moves."""
    torch.manual_seed(1)
    optimizer = torch.optim.Adam([p for _, p in trainable(model)], lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(input_ids=TOKENS).logits, torch.tensor([0, 1, 1, 0, 1, 0])).backward()
        optimizer.step()
    return model


def lora_layers(model: nn.Module) -> dict[str, LoraLayer]:
    return {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer)}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_starts_at_the_base_model(build, method: str) -> None:
    base, _ = build(method, attached=False)
    model, _ = build(method)
    torch.testing.assert_close(logits(model), logits(base), rtol=0, atol=2e-6)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_its_own_weights_and_the_head_and_nothing_else(build, method: str) -> None:
    model, _ = build(method)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train_a_little(model)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {name for name in moved if "classifier" in name} == {name for name in before if "classifier" in name}
    own = {name for name in moved if "classifier" not in name}
    if method == "full_ft":
        assert sum(before[name].numel() for name in own) > 0.9 * sum(p.numel() for p in before.values())
    elif method == "vera":
        assert len(own) == 16 and all("vera_lambda_" in name for name in own)
    else:
        assert len(own) == (0 if method == "head_only" else 16) and all("lora_" in name for name in own)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rank", [1, 4])
def test_a_saved_adapter_and_head_bring_the_trained_logits_back(build, tmp_path: Path, method: str, rank: int) -> None:
    model, spec = build(method, f"rank={rank}")
    untrained = logits(model)
    train_a_little(model)
    save_adapter(model, tmp_path / "adapter", spec.model.head)
    again, _ = build(method, f"rank={rank}")
    load_adapter(again, tmp_path / "adapter", head=True)
    assert (logits(model) - untrained).abs().max() > 1e-2
    assert torch.equal(logits(again), logits(model))


@pytest.mark.filterwarnings("ignore:Specified to not (save|load) vera_A")
@pytest.mark.parametrize("method", ["lora", "rslora", "pissa", "vera"])
def test_stock_peft_loads_the_saved_adapter_onto_the_unmodified_base(build, tmp_path: Path, method: str) -> None:
    model, spec = build(method)
    train_a_little(model)
    save_adapter(model, tmp_path / "adapter", spec.model.head)
    base, _ = build(method, attached=False)
    stock = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    base.load_state_dict(load_file(tmp_path / "adapter" / "head.safetensors"), strict=False)
    torch.testing.assert_close(logits(stock), logits(model), rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_over_a_half_precision_base_what_trains_is_fp32_and_comes_back(build, tmp_path: Path, method: str) -> None:
    model, spec = build(method, "model.dtype=bfloat16")
    assert all(p.dtype == torch.float32 for _, p in trainable(model))
    train_a_little(model)
    save_adapter(model, tmp_path / "adapter", spec.model.head)
    again, _ = build(method, "model.dtype=bfloat16")
    load_adapter(again, tmp_path / "adapter", head=True)
    assert logits(model).isfinite().all() and torch.equal(logits(again), logits(model))


def test_lora_and_rslora_scale_by_r_and_its_root(build) -> None:
    lora, rslora = (next(iter(lora_layers(build(m, "method.alpha=6")[0]).values())) for m in ("lora", "rslora"))
    assert (lora.scaling["default"], rslora.scaling["default"]) == (6 / 4, 6 / 4**0.5)


def test_pissa_agrees_with_pefts_exact_one(build) -> None:
    ours, spec = build("pissa", "method.alpha=2")
    base, _ = build("pissa", attached=False)
    settings = LoraConfig(r=4, lora_alpha=2, target_modules=list(spec.target_modules), init_lora_weights="pissa")
    theirs = lora_layers(get_peft_model(base, settings))
    layers = lora_layers(ours)
    assert layers.keys() == theirs.keys() and len(layers) == 8
    for name, layer in layers.items():
        other, largest = theirs[name], theirs[name].get_base_layer().weight.abs().max()
        for one, two in (
            (layer.get_delta_weight("default"), other.get_delta_weight("default")),
            (layer.get_base_layer().weight, other.get_base_layer().weight),
        ):
            assert (one - two).abs().max() <= 1e-5 * largest
        for factor in ("lora_A", "lora_B"):  # singular vectors are known up to their signs
            one, two = getattr(layer, factor)["default"].weight, getattr(other, factor)["default"].weight
            torch.testing.assert_close(one.abs(), two.abs(), rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:PiSSA changes the base weights")
def test_pissa_s_plain_lora_is_the_one_peft_s_own_conversion_writes(build, tmp_path: Path) -> None:
    model, spec = build("pissa")
    start = {name: p.detach().clone() for name, p in trainable(model)}
    train_a_little(model)
    save_adapter(model, tmp_path / "ours", spec.model.head)

    first, _ = build("pissa")
    assert all(torch.equal(p, start[name]) for name, p in trainable(first))
    first.peft_config["default"].__class__ = LoraConfig  # PEFT's conversion doubles the rank itself
    first.peft_config["default"].init_lora_weights = True
    first.save_pretrained(str(tmp_path / "start"))
    first.load_state_dict({name: p.detach() for name, p in trainable(model)}, strict=False)
    first.peft_config["default"].init_lora_weights = "pissa"
    first.save_pretrained(str(tmp_path / "theirs"), path_initial_model_for_weight_conversion=str(tmp_path / "start"))

    ours, theirs = (load_file(tmp_path / kind / "adapter_model.safetensors") for kind in ("ours", "theirs"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    settings = [json.loads((tmp_path / kind / "adapter_config.json").read_text()) for kind in ("ours", "theirs")]
    assert [(s["r"], s["lora_alpha"], s["init_lora_weights"], s["peft_type"]) for s in settings] == [
        (8, 8.0, True, "LORA")
    ] * 2


def test_the_residual_is_rebuilt_to_the_same_bits_whatever_the_store_held(build) -> None:
    first, _ = build("pissa", "rank=2")
    base, _ = build("pissa", attached=False)
    for layer in base.bert.encoder.layer:
        FactorStore().truncation(layer.attention.self.query.weight, 32)
    second, _ = build("pissa", "rank=2")
    own, other = first.state_dict(), second.state_dict()
    assert all(torch.equal(own[key], other[key]) for key in own)


def test_a_pissa_adapter_of_another_base_and_a_plain_lora_are_refused(build, tmp_path: Path, tiny_model: Path) -> None:
    model, spec = build("pissa", "rank=4")
    save_adapter(train_a_little(model), tmp_path / "pissa", spec.model.head)
    other, _ = build("pissa", attached=False)
    other.bert.encoder.layer[0].attention.self.query.weight.data.mul_(1.01)
    with pytest.raises(UserError, match=r"layer\.0\.attention\.self\.query: the adapter did not start from this base"):
        load_adapter(attach(other, spec), tmp_path / "pissa", head=False)
    lora, its = build("lora", "rank=8", "method.alpha=8")
    save_adapter(train_a_little(lora), tmp_path / "lora", its.model.head)
    with pytest.raises(UserError, match="it is a plain LoRA, or of another base"):
        load_adapter(build("pissa", "rank=4")[0], tmp_path / "lora", head=False)


def test_a_rank_above_a_dimension_and_targets_that_match_nothing_are_one_line(build) -> None:
    for method in ("lora", "pissa", "vera"):
        with pytest.raises(UserError, match=rf"^method={method} method.target_modules=\[nowhere\]: [^\n]*$"):
            build(method, "method.target_modules=[nowhere]")
    with pytest.raises(UserError, match=r"query: rank 33 is not in 1…32"):
        build("pissa", "rank.r=33")


def test_vera_draws_its_projections_from_the_seed_and_keeps_them_out_of_the_file(build, tmp_path: Path) -> None:
    model, spec = build("vera", "rank=4")
    assert spec.init.seed == 42
    same, other = build("vera", "seed=9")[0], build("vera", "init.seed=7")[0]
    A = model.base_model.vera_A["default"]
    assert A.shape == (4, 64) and model.base_model.vera_B["default"].shape == (32, 4)  # the largest of the modules
    assert torch.equal(same.base_model.vera_A["default"], A)
    assert not torch.equal(other.base_model.vera_A["default"], A)
    save_adapter(train_a_little(model), tmp_path / "adapter", spec.model.head)
    names = load_file(tmp_path / "adapter" / "adapter_model.safetensors").keys()
    assert len(names) == 16 and all("vera_lambda_" in name for name in names)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["projection_prng_key"] == 42
    with pytest.raises(UserError, match="saved with projection_prng_key=42, this run has projection_prng_key=7"):
        load_adapter(other, tmp_path / "adapter", head=False)


def test_projections_that_come_out_otherwise_elsewhere_are_noticed(build, tmp_path: Path) -> None:
    model, spec = build("vera")
    save_adapter(model, tmp_path / "adapter", spec.model.head)
    model.base_model.vera_B["default"][0, 0] += 1e-6
    with pytest.raises(UserError, match="VeRA's vera_B differ from those drawn here"):
        load_adapter(model, tmp_path / "adapter", head=False)


def test_vera_puts_its_projections_into_the_file_when_asked(build, tmp_path: Path) -> None:
    model, spec = build("vera", "method.save_factors=true")
    save_adapter(train_a_little(model), tmp_path / "adapter", spec.model.head)
    names = load_file(tmp_path / "adapter" / "adapter_model.safetensors").keys()
    assert {"base_model.vera_A", "base_model.vera_B"} < names
    again, _ = build("vera", "method.save_factors=true")
    again.base_model.vera_B["default"].zero_()  # drawn otherwise elsewhere: the file's win
    load_adapter(again, tmp_path / "adapter", head=True)
    assert torch.equal(logits(again), logits(model))


def test_a_file_that_lacks_a_module_is_refused(build, tmp_path: Path) -> None:
    for method, key in (("lora", "lora_A.weight"), ("vera", "vera_lambda_d")):
        model, spec = build(method)
        save_adapter(model, tmp_path / method, spec.model.head)
        file = tmp_path / method / "adapter_model.safetensors"
        tensors = load_file(file)
        save_file({n: t for n, t in tensors.items() if not n.endswith(f"layer.1.output.dense.{key}")}, file)
        with pytest.raises(UserError, match="1 tensors missing and 0 unexpected"):
            load_adapter(model, tmp_path / method, head=False)


def test_a_model_without_an_adapter_says_what_it_cannot_load(build, tmp_path: Path) -> None:
    lora, spec = build("lora")
    save_adapter(lora, tmp_path / "lora", spec.model.head)
    with pytest.raises(UserError, match="a model without an adapter cannot start from one"):
        load_adapter(build("full_ft")[0], tmp_path / "lora", head=False)
    with pytest.raises(UserError, match=r"neither model.safetensors nor head.safetensors there"):
        load_adapter(build("full_ft")[0], tmp_path, head=False)


def test_half_a_head_is_no_head(build, tmp_path: Path) -> None:
    model, spec = build("lora")
    save_adapter(model, tmp_path / "lora", spec.model.head)
    file = tmp_path / "lora" / "head.safetensors"
    save_file({name: t for name, t in load_file(file).items() if not name.endswith("bias")}, file)
    with pytest.raises(UserError, match=r"head.safetensors: lacks classifier.bias; take an intact copy"):
        load_adapter(model, tmp_path / "lora", head=True)


@pytest.mark.parametrize("method", ["lora", "pissa", "vera"])
def test_a_run_that_starts_from_another_begins_where_that_one_ended(tiny_run, tmp_path: Path, method: str) -> None:
    short = [f"method={method}", "trainer.max_steps=4", "trainer.epochs=1", "evaluation=end"]
    first = run(tiny_run(*short, f"results={tmp_path}/first"))
    source = next((tmp_path / "first").rglob("record.json")).parent
    still = ["trainer.learning_rate=0", "trainer.head_learning_rate=0", f"results={tmp_path}/second"]
    second = run(tiny_run(*short, *still, f"start_from={source}", "start_from.which=last", "start_from.head=true"))
    assert second.train["last"]["loss"] == first.train["last"]["loss"]
    factors = first.train["factors"]
    assert (factors is not None) == (method == "pissa")
    if method == "pissa":
        assert factors["modules"] == 8 and 0 <= factors["residual"] <= 1e-5
