"""Costs in plain Python against what torch, the trainer and finished runs say themselves."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planned_runs import REPOSITORY, planned
from test_published_counts import CELLS, spec_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, addmm_flop

from lora_xs.adapters import attach
from lora_xs.adapters.trainable import count
from lora_xs.errors import UserError
from lora_xs.losses import response_loss
from lora_xs.models import load_on_meta
from lora_xs.models.architecture import architecture_of
from lora_xs.models.unpadded import compute_unpadded
from lora_xs.spec import RunSpec
from lora_xs.spec.compose import compose_config, compose_spec
from lora_xs.spec.layout import padding_of
from lora_xs.sweeps.cost import estimate
from lora_xs.sweeps.devices import device_called, device_named, devices
from lora_xs.sweeps.disk import disk_of
from lora_xs.sweeps.flops import _Pass
from lora_xs.sweeps.lengths import RowLengths, known_questions, known_rows
from lora_xs.sweeps.memory import Memory, layer_bytes, memory_of
from lora_xs.sweeps.parameters import count_parameters
from lora_xs.sweeps.workload import micro_rows, workload_of
from lora_xs.training.arguments import training_arguments
from lora_xs.training.batches import BatchOrder

ROWS, LENGTH = 4, 16
TINY = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 160, "vocab_size": 50}
TINY_BERT = {**TINY, "model_type": "bert", "max_position_embeddings": 32, "type_vocab_size": 2}
TINY_LLAMA = {**TINY, "model_type": "llama", "num_key_value_heads": 2, "tie_word_embeddings": False}


def test_plain_python_counts_the_parameters_the_papers_print() -> None:
    models: dict[str, RunSpec] = {}
    for cell in CELLS:
        if cell.model not in models:
            models[cell.model] = spec_of(dataclasses.replace(cell, method="lora", rank=8))
        spec = models[cell.model]
        method = dataclasses.replace(spec.method, name=cell.method, target_modules=cell.targets)
        counts = count_parameters(spec.replace(method=method, rank=cell.rank or cell.given))
        assert (counts.trainable if cell.method == "full_ft" else counts.adapter) == cell.computed, cell.name


def tiny_spec(kind: str, method: str, layers: int = 2, *overrides: str) -> RunSpec:
    """A run of a model with random weights; only its architecture is ever used."""
    task = ["task=reviews", "model=minilm"] if kind == "encoder" else ["task=word_problems", "model=smollm2_135m"]
    config = compose_config([*task, f"method={method}", *([] if method == "full_ft" else ["rank.r=4"]), *overrides])
    config.pop("force")
    shape = TINY_BERT if kind == "encoder" else TINY_LLAMA
    config["model"]["architecture"] = {**shape, "num_hidden_layers": layers}
    return RunSpec.from_config(config)


def test_a_method_whose_parameters_no_plan_counts_is_named() -> None:
    spec = tiny_spec("encoder", "vera")
    unknown = spec.replace(method=dataclasses.replace(spec.method, name="ia3"))
    with pytest.raises(UserError, match=r"method=ia3.*sweeps/parameters\.py"):
        count_parameters(unknown)


def tiny_model(spec: RunSpec, attention: str = "eager") -> nn.Module:
    """The model of `spec` with its method attached, in training mode; torch counts eager attention alone."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    torch.manual_seed(0)
    shape = dict(spec.model.architecture)
    config = AutoConfig.for_model(shape.pop("model_type"), **shape)
    builder = AutoModelForSequenceClassification if spec.model.kind == "encoder" else AutoModelForCausalLM
    base = builder.from_config(config, attn_implementation=attention).to(getattr(torch, spec.model.dtype))
    return attach(base, spec).train()


def batch_of(spec: RunSpec) -> dict[str, Any]:
    ids = torch.randint(0, 50, (ROWS, LENGTH))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("method", ["full_ft", "lora", "lora_xs", "vera"])
def test_counts_agree_with_the_model_itself(kind: str, method: str) -> None:
    spec = tiny_spec(kind, method)
    own = count(tiny_model(spec), spec.model.head)
    counts = count_parameters(spec)
    assert (counts.adapter, counts.head) == (own.adapter, own.head)
    assert counts.base == own.total - (0 if method == "full_ft" else own.adapter)


@pytest.mark.parametrize(("name", "total"), [("minilm", 22_713_986), ("smollm2_135m", 134_515_008)])
def test_the_packaged_models_have_as_many_parameters_as_their_records_say(name: str, total: int) -> None:
    spec = compose_spec([f"model={name}", *(["task=word_problems"] if name == "smollm2_135m" else [])])
    assert architecture_of(spec.model).parameters(2) == total


def test_every_model_config_has_the_architecture_its_config_class_has() -> None:
    for name in ("roberta-large", "minilm", "smollm2_135m", "gemma2-9b", "llama3.2-3b"):
        task = "reviews" if name in ("roberta-large", "minilm") else "word_problems"
        spec = compose_spec([f"task={task}", f"model={name}"])
        shape, model = architecture_of(spec.model), load_on_meta(spec.model)
        prefixes = ("model.layers.", "bert.encoder.", "roberta.encoder.")
        linear = {n: tuple(m.weight.shape) for n, m in model.named_modules() if isinstance(m, nn.Linear)}
        backbone = {n: shape_ for n, shape_ in linear.items() if n.startswith(prefixes)}
        assert {layer.name: (layer.out_features, layer.in_features) for layer in shape.linears()} == backbone


def test_targets_are_matched_as_peft_matches_them() -> None:
    shape = architecture_of(tiny_spec("encoder", "lora_xs").model)
    assert {t.name for t in shape.targets(["output.dense"])} == {
        f"bert.encoder.layer.{i}.{name}" for i in range(2) for name in ("attention.output.dense", "output.dense")
    }
    assert len(shape.targets([r".*\.1\..*(query|value)"])) == 2
    with pytest.raises(UserError, match="matches no layer"):
        shape.targets(["nothing"])


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("method", ["full_ft", "lora", "lora_xs"])
def test_flops_agree_with_torchs_own_count(kind: str, method: str) -> None:
    """Backward by the difference of depths: below the first adapted layer of a frozen base no gradient is needed."""
    (own2, torch2), (own4, torch4) = (both_counts(tiny_spec(kind, method, layers)) for layers in (2, 4))
    assert own4[0] == pytest.approx(torch4[0], rel=1e-3)
    assert own4[1] - own2[1] == pytest.approx(torch4[1] - torch2[1], rel=1e-3)
    assert own4[1] == pytest.approx(torch4[1], rel=0.15)


@pytest.mark.parametrize("method", ["full_ft", "lora", "lora_xs"])
def test_flops_without_padding_agree_with_torchs_own_count(method: str) -> None:
    (own2, torch2), (own4, torch4) = (both_counts(tiny_spec("encoder", method, layers), True) for layers in (2, 4))
    padded = both_counts(tiny_spec("encoder", method, 4))[1]
    assert own4[0] == pytest.approx(torch4[0], rel=1e-3) and torch4[0] < 0.9 * padded[0]
    assert own4[1] - own2[1] == pytest.approx(torch4[1] - torch2[1], rel=1e-3)
    assert own4[1] == pytest.approx(torch4[1], rel=0.15)


def both_counts(spec: RunSpec, unpadded: bool = False) -> tuple[tuple[float, float], tuple[int, int]]:
    """(forward, backward) by the plan and by torch."""
    model = tiny_model(spec, "sdpa" if unpadded else "eager")
    if unpadded:
        compute_unpadded(model.get_base_model() if hasattr(model, "get_base_model") else model)
    with counter() as forward:
        logits = model(**batch_of(spec)).logits
    with counter() as backward:
        logits.float().sum().backward()
    counted = (forward.get_total_flops(), backward.get_total_flops())
    one_way = _Pass(spec, architecture_of(spec.model), count_parameters(spec), unpadded=unpadded)
    arguments = (ROWS * LENGTH, LENGTH, 0.0 if spec.model.kind == "encoder" else 1.0, ROWS)
    return (one_way.forward(*arguments), one_way.backward(*arguments)), counted


def counter() -> FlopCounterMode:
    """Torch's counter, which by itself passes over products that are added in place."""

    def in_place(into: Any, one: Any, other: Any, *_: Any, out_val: Any = None, **__: Any) -> int:
        return addmm_flop(into, one, other)

    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place})


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("method", ["full_ft", "lora", "lora_xs"])
def test_a_layer_keeps_the_bytes_that_autograd_saves(kind: str, method: str) -> None:
    few, many = (saved_bytes(tiny_spec(kind, method, layers)) for layers in (1, 3))
    spec = tiny_spec(kind, method, 3)
    expected = layer_bytes(spec, architecture_of(spec.model), count_parameters(spec), LENGTH, gpu=False)
    assert expected == pytest.approx((many - few) / 2 / (ROWS * LENGTH), rel=0.15)


def saved_bytes(spec: RunSpec) -> int:
    """Bytes of distinct storages that autograd saves in one forward pass, weights apart."""
    model = tiny_model(spec, "sdpa")
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: (kept.append(tensor), tensor)[1], lambda tensor: tensor
    ):
        logits = model(**batch_of(spec), **({} if spec.model.kind == "encoder" else {"use_cache": False})).logits
    assert logits.requires_grad
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    return sum(size for place, size in storages.items() if place not in own)


def test_a_decoders_logits_are_counted_at_responses_alone() -> None:
    """The trainer's loss asks for no other logits; the plan's share of tokens is that of responses."""
    spec = tiny_spec("decoder", "lora_xs")
    model, counts = tiny_model(spec), count_parameters(spec)
    kept = 6
    batch = batch_of(spec) | {"labels": torch.randint(0, 50, (ROWS, kept)), "logits_to_keep": kept}
    batch["label_weights"] = torch.ones(ROWS, kept)
    with counter() as counted:
        response_loss(model, batch)
    own = _Pass(spec, architecture_of(spec.model), counts).forward(ROWS * LENGTH, LENGTH, kept / LENGTH, 0)
    assert own == pytest.approx(counted.get_total_flops(), rel=0.02)


def test_a_micro_batch_is_what_the_trainer_makes_it(tmp_path: Path) -> None:
    for words in ([], ["trainer.padding=longest"], ["trainer.device_batch_size=4"]):
        spec = planned(tmp_path, *words).spec
        arguments = training_arguments(spec, tmp_path, unpadded=padding_of(spec, False) == "free")
        assert micro_rows(spec, False) == arguments.per_device_train_batch_size
    math = planned(tmp_path, "task=math/metamathqa", "rank=64").spec
    assert micro_rows(math, False) == training_arguments(math, tmp_path).per_device_train_batch_size
    assert math.trainer.batch_size % micro_rows(math, True) == 0
    assert micro_rows(math, True) * math.task.max_length <= 8192


def test_padding_is_that_of_the_trainers_batches() -> None:
    lengths = np.random.default_rng(0).gamma(4.0, 12.0, 4000).astype(int) + 4
    percents = (0, 10, 25, 50, 75, 90, 95, 99, 100)
    known = RowLengths(4000, 0, tuple(p / 100 for p in percents), tuple(np.percentile(lengths, percents)), 0.0, "here")
    assert known.mean(10**6) == pytest.approx(lengths.mean(), rel=0.03)
    for micro in (8, 32):
        order = list(BatchOrder(lengths.tolist(), 32, 0))
        computed = sum(max(lengths[order[i : i + micro]]) * micro for i in range(0, 4000, micro))
        assert known.padded(10**6, 32, micro) == pytest.approx(computed / 4000, rel=0.05)
    assert known.padded(20, 32, 8) <= 20


def test_work_follows_from_rows_epochs_and_batches(tmp_path: Path) -> None:
    mrpc = planned(tmp_path).spec
    work = workload_of(mrpc, True)
    assert (work.steps, work.evaluations, work.micro_rows) == (50 * 115, 50, 32)  # 3,668 rows, 50 epochs
    unpadded = workload_of(mrpc, False)
    assert unpadded.unpadded and not work.unpadded
    assert unpadded.tokens == pytest.approx(50 * 195_290, rel=0.05)  # MiniLM's tokens of MRPC's training rows
    assert unpadded.tokens < unpadded.epochs * unpadded.rows * 60 < work.tokens
    assert 32 * unpadded.mean_width < unpadded.held < 0.7 * 32 * unpadded.longest == 0.7 * work.held
    limited = mrpc.replace(trainer=dataclasses.replace(mrpc.trainer, max_steps=23))
    assert (workload_of(limited, True).steps, workload_of(limited, True).evaluations) == (23, 1)
    assert workload_of(limited, True).tokens == pytest.approx(work.tokens * 23 / work.steps)
    mnli = planned(tmp_path, "task=glue/mnli").spec
    assert workload_of(mnli, True).rows == 392_702
    math = workload_of(planned(tmp_path, "task=math/metamathqa", "rank=64").spec, True)
    assert (math.rows, math.steps, math.evaluations) == (100_000, 2 * 782, 0)
    assert [test.questions for test in math.answering] == [1319, 5000]
    commonsense = workload_of(planned(tmp_path, "task=commonsense/all", "rank=64").spec, True)
    assert commonsense.rows == 170_420 - 120
    assert commonsense.evaluations == 1 + commonsense.steps // 40
    assert sum(test.questions for test in commonsense.answering) == 22_419


def test_likelihoods_and_generations_are_priced_apart(tmp_path: Path) -> None:
    of = {
        reading: workload_of(planned(tmp_path, "task=commonsense/all", f"evaluation.reading={reading}").spec, True)
        for reading in ("generation", "likelihood", "both")
    }
    assert [test.steps > 0 for test in of["likelihood"].answering] == [False] * 8
    assert of["both"].answering[0].scored == of["likelihood"].answering[0].scored > 0
    assert of["both"].answering[0].steps == of["generation"].answering[0].steps > 0


def test_every_task_and_test_of_the_project_has_measured_rows() -> None:
    from lora_xs.data import LOADERS
    from lora_xs.data.questions import TESTS

    assert set(known_rows()) == set(LOADERS)
    assert set(known_questions()) == set(TESTS)


def test_a_device_is_known_by_the_name_cuda_gives_it() -> None:
    for gpu, name in {
        "NVIDIA H100 80GB HBM3": "h100",
        "NVIDIA H200": "h200",
        "NVIDIA A100-SXM4-80GB": "a100-80",
        "NVIDIA A100-SXM4-40GB": "a100-40",
        "NVIDIA L4": "l4",
        "NVIDIA GeForce RTX 4090": "rtx4090",
    }.items():
        found = device_called(gpu)
        assert found is not None and found.name == name
    assert device_called("NVIDIA L40S") is None
    assert device_called("NVIDIA GH200 480GB") is None
    cpu = device_called(None)
    assert cpu is device_named("cpu") and not cpu.gpu
    with pytest.raises(UserError, match="choose one of h100"):
        device_named("h1000")


def test_a_gpu_computes_by_its_data_sheet_in_the_numbers_of_the_run(tmp_path: Path) -> None:
    of = {name: planned(tmp_path, f"trainer={name}").spec for name in ("default", "tf32", "bf16")}
    a100, cpu = device_named("a100-80"), device_named("cpu")
    assert [a100.peak(spec) / 1e12 for spec in of.values()] == pytest.approx([19.5, 156, 312])
    assert cpu.peak(of["tf32"]) == cpu.peak(of["default"])
    assert estimate(of["tf32"], a100).train_seconds < estimate(of["default"], a100).train_seconds / 2


def test_dearer_work_costs_more(tmp_path: Path) -> None:
    h100 = device_named("h100")
    base = planned(tmp_path, "task=math/metamathqa", "rank=64").spec
    cost = estimate(base, h100)
    halved = base.replace(task=dataclasses.replace(base.task, train_rows=50_000))
    assert estimate(halved, h100).train_seconds == pytest.approx(cost.train_seconds / 2, rel=0.02)
    assert estimate(base, device_named("a100-80")).gpu_hours > cost.gpu_hours
    assert estimate(base, h100, 2.0).train_seconds == pytest.approx(2 * cost.train_seconds)
    recomputed = base.replace(trainer=dataclasses.replace(base.trainer, gradient_checkpointing=True))
    assert estimate(recomputed, h100).peak_gib < cost.peak_gib
    assert estimate(recomputed, h100).flops > cost.flops
    fewer = base.replace(trainer=dataclasses.replace(base.trainer, device_batch_size=2))
    assert estimate(fewer, h100).peak_gib < cost.peak_gib
    quantised = base.replace(model=dataclasses.replace(base.model, quantization="nf4"))
    assert estimate(quantised, h100).peak_gib < cost.peak_gib - 8
    full = planned(tmp_path, "task=math/metamathqa", "method=full_ft").spec
    assert estimate(full, h100).peak_gib > 7.24 * 16e9 / 2**30  # AdamW of 7.24 billion fp32 weights alone


def test_memory_without_training_states_is_the_weights(tmp_path: Path) -> None:
    spec = planned(tmp_path, "task=math/metamathqa", "rank=64").spec
    memory = memory_of(spec, architecture_of(spec.model), count_parameters(spec), workload_of(spec, True), gpu=True)
    factors = 2 * count_parameters(spec).frozen
    assert memory.weights == 2 * 7_241_732_096 + factors
    assert memory.states == 16 * 917_504


def test_several_devices_share_a_model_that_is_sharded_and_repeat_one_that_is_not(tmp_path: Path) -> None:
    def at(*words: str) -> Memory:
        spec = planned(tmp_path, "task=math/metamathqa", "method=full_ft", "trainer.precision=bf16", *words).spec
        return memory_of(spec, architecture_of(spec.model), count_parameters(spec), workload_of(spec, True), gpu=True)

    one, eight = at(), at("trainer.processes=8", "trainer.sharding=fsdp")
    assert eight.states == one.states / 8
    assert one.weights / 8 < eight.weights < one.weights
    assert eight.whole > one.whole == one.weights  # the tests are put to a whole model, beside what training left
    assert at("trainer.processes=8", "trainer.sharding=fsdp", "task.tests=[]").whole == eight.weights
    assert at("trainer.processes=8").states == pytest.approx(one.states * 16 / 12)  # gradients again, to be sent
    lora = planned(tmp_path, "method=lora", "trainer.processes=4", "trainer.batch_size=32").spec
    assert micro_rows(lora, True) == 8
    alone = planned(tmp_path, "method=lora", "trainer.batch_size=32").spec
    both = [estimate(spec, device_named("h100")) for spec in (lora, alone)]
    assert both[0].steps == both[1].steps and both[0].peak_gib < both[1].peak_gib
    math = [planned(tmp_path, "task=math/metamathqa", "rank=64", f"trainer.processes={n}").spec for n in (1, 4)]
    hours = [estimate(spec, device_named("h100")).gpu_hours for spec in math]
    assert hours[0] < hours[1] < 1.1 * hours[0]  # each starts; training and answers are shared


def test_a_finished_run_left_what_was_planned_on_disk(tiny_run: Any) -> None:
    from lora_xs.runner import run

    spec = tiny_run("trainer.max_steps=6")  # 96 rows, not the 8,551 the task has
    run(spec)
    counts, work = count_parameters(spec), workload_of(spec, False)
    assert counts.adapter == 8 * 16  # the folder's own architecture, two layers, not MiniLM's
    kept = sum(file.stat().st_size for file in spec.folder.rglob("*") if file.is_file())
    adapters = sum(f.stat().st_size for f in spec.folder.rglob("*.safetensors"))
    planned_kept = disk_of(spec, counts, work).kept
    assert adapters < planned_kept and planned_kept == pytest.approx(kept, rel=0.3)


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from lora_xs.spec import RunSpec\n"
        "from lora_xs.spec.compose import compose_config\n"
        "config = compose_config(['task=glue/mrpc', 'rank=4', 'results=nowhere']); config.pop('force')\n"
        "from lora_xs.sweeps import calibration, compare, plan, retry, show, watch\n"
        "from lora_xs.sweeps.devices import device_named\n"
        "class Run:\n"
        "    spec, cell, needs = RunSpec.from_config(config), {'task': 'mrpc'}, ()\n"
        "made = plan.make_plan('x', [Run()], device_named('h100'))\n"
        "show.print_plan(made, made.choose(), show.console_of_output())\n"
        "heavy = {'torch', 'transformers', 'datasets', 'peft', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "1 runs" in done.stdout


def test_a_model_of_unknown_shape_is_a_line_that_names_it(tmp_path: Path) -> None:
    spec = planned(tmp_path).spec
    shapeless = spec.replace(model=dataclasses.replace(spec.model, architecture={"model_type": "bert"}))
    with pytest.raises(UserError, match=r"model=roberta-large: its architecture lacks 'num_attention_heads'"):
        estimate(shapeless, devices()["h100"])
