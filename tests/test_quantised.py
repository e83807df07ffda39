"""Bases in int8 and nf4: every method that can run on them trains, resumes, saves, reloads and is counted right."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from interrupted import killed_at
from torch import nn

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")

from lora_xs.adapters import attach
from lora_xs.adapters.estimation import EstimationRows
from lora_xs.adapters.files import load_adapter, save_adapter
from lora_xs.adapters.trainable import count, trainable
from lora_xs.errors import UserError
from lora_xs.models import load_base, locate
from lora_xs.models.quantised import PACKS
from lora_xs.records import Record
from lora_xs.runner import run
from lora_xs.spec import RunSpec

METHODS = ("head_only", "lora", "rslora", "vera", "lora_xs", "lora_sb")
BITS = ("int8", "nf4")
TOKENS = torch.randint(5, 25, (8, 9), generator=torch.Generator().manual_seed(5))
LABELS = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
ROWS = [{"input_ids": ids, "labels": label} for ids, label in zip(TOKENS.tolist(), LABELS.tolist(), strict=True)]


@pytest.fixture(scope="module")
def wide_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny world's words over a BERT whose weights fill quantisation blocks: two layers, hidden 64."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("wide_model")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.1, **shape)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


Spec = Callable[..., RunSpec]


@pytest.fixture
def spec_of(tiny_run, wide_model: Path) -> Spec:
    """A function (quantization, method, overrides) -> RunSpec over the wide model."""

    def spec(quantization: str, method: str, *overrides: str) -> RunSpec:
        return tiny_run(
            f"model.path={wide_model}", f"model.quantization={quantization}", f"method={method}", *overrides
        )

    return spec


def build(spec: RunSpec) -> nn.Module:
    torch.manual_seed(0)
    base, _ = load_base(spec.model, locate(spec.model), 2)
    return attach(base, spec, EstimationRows(spec, ROWS, stacked)).eval()


def stacked(rows: list[dict]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def loss_of(model: nn.Module) -> torch.Tensor:
    return nn.functional.cross_entropy(model(input_ids=TOKENS).logits, LABELS)


def train_a_little(model: nn.Module, steps: int = 8) -> nn.Module:
    optimizer = torch.optim.Adam([p for _, p in trainable(model)], lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    return model


def test_no_four_bit_layer_stores_itself_anew_whatever_the_cpu(spec_of: Spec) -> None:
    spec = spec_of("nf4", "head_only")
    base, _ = load_base(spec.model, locate(spec.model), 2)
    flags = [getattr(module, PACKS) for module in base.modules() if hasattr(module, PACKS)]
    assert len(flags) == 13 and not any(flags)


@pytest.mark.parametrize("quantization", BITS)
@pytest.mark.parametrize("method", METHODS)
def test_on_a_quantised_base_the_loss_goes_down_and_the_reloaded_logits_are_equal(
    spec_of: Spec, tmp_path: Path, quantization: str, method: str
) -> None:
    spec = spec_of(quantization, method)
    model = build(spec)
    assert all(p.dtype == torch.float32 for _, p in trainable(model))
    assert {n for n, _ in trainable(model) if "classifier" in n} == {
        n for n, _ in model.named_parameters() if "classifier" in n
    }
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    assert sum(not p.is_floating_point() for p in frozen.values()) == 13  # six in a layer, and the pooler
    before = loss_of(model).item()
    train_a_little(model)
    assert loss_of(model).item() < 0.8 * before
    own = dict(model.named_parameters())
    assert all(torch.equal(own[name], kept) for name, kept in frozen.items())
    save_adapter(model, tmp_path / "adapter", spec.model.head)
    again = build(spec)
    load_adapter(again, tmp_path / "adapter", head=True)
    with torch.no_grad():
        assert torch.equal(again(input_ids=TOKENS).logits, model(input_ids=TOKENS).logits)


def tensors_of(spec: RunSpec) -> dict[str, bytes]:
    files = sorted((spec.folder / "adapter").rglob("*.safetensors"))
    return {str(file.relative_to(spec.folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize(
    ("quantization", "method"),
    [(q, m) for q, m in zip(BITS * 3, ("lora", "lora_xs", "lora_sb", "lora_sb", "vera", "head_only"), strict=True)],
)
def test_a_run_on_a_quantised_base_is_recorded_and_resumes_to_the_same_bits(
    spec_of: Spec, tmp_path: Path, quantization: str, method: str
) -> None:
    short = ("trainer.max_steps=6", "trainer.epochs=1")
    whole = spec_of(quantization, method, *short, f"results={tmp_path}/whole")
    record = run(whole)
    assert record.status == "finished"
    what = record.environment["model"]["quantization"]
    assert (what["type"], what["float"]) == (quantization, ["classifier"])
    assert what["bitsandbytes"] == importlib.metadata.version("bitsandbytes")
    assert what.get("compute") == ("float32" if quantization == "nf4" else None)

    killed = spec_of(quantization, method, *short, f"results={tmp_path}/killed", "trainer.checkpoint_seconds=0")
    with killed_at(3):
        run(killed)
    resumed = run(killed)
    assert [p.name for p in (tmp_path / "killed").rglob("checkpoints")] == []
    assert tensors_of(killed) == tensors_of(whole) and len(tensors_of(whole)) >= 2
    assert evaluations(resumed) == evaluations(record)


def evaluations(record: Record) -> list[dict]:
    return record.train["evaluations"]


@pytest.mark.parametrize("quantization", BITS)
def test_a_quantised_weight_counts_as_the_numbers_it_stands_for(spec_of: Spec, quantization: str) -> None:
    whole, packed = (build(spec_of(q, "lora_xs")) for q in ("none", quantization))
    assert count(packed, ("classifier",)) == count(whole, ("classifier",))
    stored = sum(p.numel() for p in packed.parameters())
    inside = 2 * (4 * 64 * 64 + 2 * 64 * 128) + 64 * 64
    assert sum(p.numel() for p in whole.parameters()) - stored == (inside // 2 if quantization == "nf4" else 0)


def test_an_r_only_adapter_does_not_go_onto_a_base_of_another_precision(spec_of: Spec, tmp_path: Path) -> None:
    spec = spec_of("nf4", "lora_xs")
    save_adapter(build(spec), tmp_path / "adapter", spec.model.head)
    with pytest.raises(UserError, match="the checkpoint is for another base weight"):
        load_adapter(build(spec_of("none", "lora_xs")), tmp_path / "adapter", head=False)


@pytest.mark.parametrize("method", ["full_ft", "pissa"])
def test_a_method_that_changes_the_base_is_refused_before_anything_loads(spec_of: Spec, method: str) -> None:
    with pytest.raises(UserError, match=rf"model.quantization=nf4 cannot be trained by method={method}; use quanti"):
        spec_of("nf4", method)


def test_a_missing_bitsandbytes_is_one_line(spec_of: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = importlib.metadata.version

    def version(name: str) -> str:
        if name == "bitsandbytes":
            raise importlib.metadata.PackageNotFoundError(name)
        return usual(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(UserError, match=r"^model.quantization=int8 needs bitsandbytes; run `pip install [^\n]*$"):
        run(spec_of("int8", "lora"))


def test_int8_products_do_not_fill_the_log(spec_of: Spec, caplog: pytest.LogCaptureFixture) -> None:
    model = build(spec_of("int8", "lora"))
    with caplog.at_level("WARNING"):
        loss_of(model)
    assert [r for r in caplog.records if r.name.startswith("bitsandbytes")] == []
