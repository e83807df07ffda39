"""One process, many runs: to the bit what each is alone, within a bound of memory."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sweep_runs import decoder_run, leavings

from lora_xs.ingredients import Ingredients
from lora_xs.records import read_record
from lora_xs.runner import run
from lora_xs.spec import RunSpec
from lora_xs.sweeps.slate import clean_slate
from lora_xs.sweeps.warm import Warm

pytestmark = pytest.mark.heavy

GB = 10**9
ROOT = Path(__file__).resolve().parents[2]
ALONE = """
import json, os, sys
import transformers.trainer, peft  # once for all three processes
from lora_xs.runner import run
from lora_xs.spec import RunSpec

for values in json.load(sys.stdin):
    if os.fork() == 0:
        run(RunSpec.from_json(values))
        os._exit(0)
    assert os.wait()[1] == 0
"""
METHODS = ("full_ft", "head_only", "lora", "rslora", "pissa", "vera", "lora_xs", "lora_sb")


def test_runs_of_one_process_are_to_the_bit_those_of_their_own(tiny_run, tmp_path: Path) -> None:
    """A, B, A' in one process: A' is A's spec elsewhere, after a run that changed base weights, precision and head."""
    settings = {
        "A": ["method=lora_xs", "seed=3"],
        "B": ["method=full_ft", "trainer.learning_rate=1e-3", "trainer.precision=bf16", "seed=4"],
        "C": ["task=glue/stsb", "method=pissa", "trainer.learning_rate=1e-3"],
    }
    specs = {name: tiny_run(*overrides, f"results={tmp_path}/alone") for name, overrides in settings.items()}
    words = json.dumps([spec.to_json() for spec in specs.values()])
    subprocess.run([sys.executable, "-c", ALONE], input=words, text=True, check=True, cwd=ROOT)
    alone = {name: leavings(spec.folder) for name, spec in specs.items()}
    warm = Warm(GB)
    for count, name in enumerate("ABCAB"):
        spec = tiny_run(*settings[name], f"results={tmp_path}/warm{count}")
        warm.run(spec)
        assert leavings(spec.folder) == alone[name], name
    assert warm.hits["base"] == 3 and warm.misses["base"] == 2  # STS-B has one label, another head


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_the_kept_base_as_it_was(tiny_run, tmp_path: Path, method: str) -> None:
    warm = Warm(GB)
    short = ["trainer.max_steps=2", "trainer.learning_rate=1e-3", f"method={method}"]
    for place in ("one", "two"):
        spec = tiny_run(*short, f"results={tmp_path}/{place}")
        warm.run(spec)
    cold = tiny_run(*short, f"results={tmp_path}/cold")
    run(cold)
    assert leavings(spec.folder) == leavings(cold.folder)
    assert warm.hits == {"location": 1, "rows": 1, "base": 1, "material": 1}


def test_a_decoder_with_tests_is_the_same_warm_and_cold(tmp_path: Path) -> None:
    warm = Warm(GB)
    for place in ("one", "two"):
        spec = decoder_run(tmp_path, f"results={tmp_path}/{place}")
        warm.run(spec)
    cold = decoder_run(tmp_path, f"results={tmp_path}/cold")
    run(cold)
    assert leavings(spec.folder) == leavings(cold.folder)
    assert warm.hits["test"] == 1 and warm.hits["base"] == 1


def test_a_new_seed_draws_the_head_it_would_have_drawn(tiny_run) -> None:
    warm, plain = Warm(GB), Ingredients()
    for seed in (0, 1, 2):
        heads = []
        for source in (warm, plain):
            spec = tiny_run(f"seed={seed}")
            torch.manual_seed(seed)
            model, _ = source.base(spec, source.location(spec), 2)
            heads.append((model.classifier.weight.tolist(), torch.get_rng_state().tolist()))
        assert heads[0] == heads[1]
    assert warm.misses["base"] == 1


def test_a_base_whose_reading_draws_in_an_unknown_way_is_read_again(tiny_run, monkeypatch) -> None:
    from lora_xs.models import encoder

    usual = encoder.load_encoder

    def draws_more(*arguments):
        torch.rand(1)
        return usual(*arguments)

    monkeypatch.setattr(encoder, "load_encoder", draws_more)
    warm, spec = Warm(GB), tiny_run()
    heads = []
    for source in (warm, warm, Ingredients()):
        torch.manual_seed(5)
        model, _ = source.base(spec, source.location(spec), 2)
        heads.append(model.classifier.weight.tolist())
    assert heads[0] == heads[1] == heads[2] and warm.misses["base"] == 2


def test_what_is_kept_stays_below_the_bound_and_the_oldest_goes_first(tiny_run) -> None:
    warm = Warm(GB)
    specs = [tiny_run(f"task.train_rows={n}") for n in (10, 20, 30)]
    model = warm.base(specs[0], warm.location(specs[0]), 2)
    size = warm.bytes
    assert size > sum(p.nbytes for p in model[0].parameters())
    warm = Warm(size + 60_000)
    warm.base(specs[0], warm.location(specs[0]), 2)
    for spec in specs:
        warm.rows(spec)
        warm.base(spec, warm.location(spec), 2)
    assert warm.bytes <= warm.max_bytes and warm.hits["base"] == 3
    warm.max_bytes = 2000
    warm.rows(tiny_run("task.train_rows=40"))
    assert warm.bytes <= 2000
    none = Warm(0)
    one, other = (none.base(specs[0], none.location(specs[0]), 2)[0] for _ in range(2))
    assert none.bytes == 0 and one is not other


def test_the_slate_is_wiped_between_runs() -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    with pytest.raises(ZeroDivisionError), clean_slate():
        Accelerator(mixed_precision="bf16", cpu=True)
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"
        os.environ.pop("OMP_NUM_THREADS", None)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.set_float32_matmul_precision("medium")
        torch.use_deterministic_algorithms(True)
        torch.manual_seed(12345)
        root.addHandler(logging.NullHandler())
        root.setLevel(logging.CRITICAL)
        warnings.simplefilter("ignore")
        _ = 1 / 0
    assert "ACCELERATE_MIXED_PRECISION" not in os.environ and os.environ["OMP_NUM_THREADS"]
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
    assert torch.get_float32_matmul_precision() == "highest" and not torch.are_deterministic_algorithms_enabled()
    assert torch.initial_seed() != 12345
    assert not AcceleratorState._shared_state and not PartialState._shared_state
    assert (root.level, root.handlers) == (level, handlers)


def test_a_run_that_fails_leaves_the_next_one_as_it_would_be(tiny_run, tmp_path: Path, monkeypatch) -> None:
    from lora_xs.training import trainer

    alone = tiny_run(f"results={tmp_path}/alone")
    run(alone)
    warm = Warm(GB)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(trainer, "build_optimizer", lambda *_: 1 / 0)
        warm.run(tiny_run("method=pissa", "trainer.precision=bf16", f"results={tmp_path}/failed"))
    spec = tiny_run(f"results={tmp_path}/after")
    warm.run(spec)
    assert leavings(spec.folder) == leavings(alone.folder)
    assert (read_record(spec.folder) or pytest.fail()).status == "finished"
    assert load_file(spec.folder / "adapter" / "last" / "adapter_model.safetensors")
    assert RunSpec.from_json(json.loads((spec.folder / "spec.json").read_text())) == spec
