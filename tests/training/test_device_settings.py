"""Each way to be fast on a GPU is one setting; what a CPU can say of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lora_xs.errors import UserError
from lora_xs.ingredients import Ingredients
from lora_xs.spec import RunSpec
from lora_xs.spec.layout import padding_of
from lora_xs.sweeps.memory import computed_bytes
from lora_xs.training.arguments import training_arguments


@pytest.fixture(autouse=True)
def products_as_before() -> Iterator[None]:
    """Products' precision belongs to the process."""
    before = torch.backends.fp32_precision, torch.get_float32_matmul_precision()
    yield
    torch.backends.fp32_precision = before[0]
    torch.set_float32_matmul_precision(before[1])


def arguments(spec: RunSpec, folder: Path):
    return training_arguments(spec, folder, True, (), False)


def widths(spec: RunSpec) -> set[int]:
    """How many tokens wide the run's training batches of four rows are."""
    ingredients = Ingredients()
    rows = ingredients.rows(spec)
    _, tokenizer = ingredients.base(spec, ingredients.location(spec), len(rows.labels))
    material = ingredients.material(spec, rows, tokenizer)
    train = [material.train[place] for place in range(len(material.train))]
    return {material.collate(train[at : at + 4])["input_ids"].shape[1] for at in range(0, len(train), 4)}


@pytest.mark.parametrize(("precision", "products"), [("tf32", "high"), ("fp32", "highest"), ("bf16", "highest")])
def test_tf32_products_are_chosen_by_the_precision_alone(tiny_run, tmp_path, precision, products):
    torch.set_float32_matmul_precision("medium")
    arguments(tiny_run(f"trainer={'default' if precision == 'fp32' else precision}"), tmp_path)
    assert torch.get_float32_matmul_precision() == products


def test_a_compiled_fp32_run_keeps_its_products_in_fp32(tiny_run, tmp_path, monkeypatch):
    """transformers turns TF32 on where it compiles for a GPU that has it, and nobody has said otherwise."""
    monkeypatch.setattr("transformers.training_args.is_torch_tf32_available", lambda: True)
    arguments(tiny_run("trainer.compile=true"), tmp_path)
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"


def test_cuda_graphs_are_a_compilation_of_one_shape(tiny_run, tmp_path):
    graphs, compiled, plain = (tiny_run(f"trainer.compile={how}") for how in ("cuda_graphs", "true", "false"))
    found = arguments(graphs, tmp_path)
    assert found.torch_compile and found.torch_compile_mode == "reduce-overhead"
    assert arguments(compiled, tmp_path).torch_compile and not arguments(plain, tmp_path).torch_compile
    assert padding_of(graphs, gpu=True) == "max_length"
    assert widths(graphs) == {graphs.task.max_length} != widths(plain)
    assert graphs.signature != compiled.signature
    with pytest.raises(UserError, match="cuda_graphs wants batches of one shape, task=math/metamathqa has none"):
        tiny_run("task=math/metamathqa", "model=smollm2_135m", "trainer=cuda_graphs")


def test_a_plan_counts_tf32_numbers_as_whole_ones(tiny_run):
    assert computed_bytes(tiny_run("trainer=tf32")) == computed_bytes(tiny_run()) == 4
    assert computed_bytes(tiny_run("trainer=bf16")) == 2
