"""One run over two processes is the run of one: same batches, losses, weights and scores; and it never hangs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_decoders import save_decoder

from lora_xs.command import main
from lora_xs.errors import UserError
from lora_xs.records import read_attempt, read_record
from lora_xs.runner import run
from lora_xs.spec import RunSpec
from lora_xs.spec.compose import compose_config
from lora_xs.training import milestones
from lora_xs.training.batches import BatchOrder, WeightedOrder
from lora_xs.training.shares import MicroBatches, ScoredRows

SCRIPT = Path(__file__).with_name("runs_of_ranks.py")
LABELS = ("lora_xs", "lora", "lora_sb", "full_ft")


@pytest.fixture(scope="module")
def still_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT without dropout, whose masks follow the split of a batch."""
    folder = tmp_path_factory.mktemp("still") / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    )
    return folder


@pytest.fixture(scope="module")
def still_overrides(still_model: Path, tiny_data: Path) -> list[str]:
    # 33 rows in steps of 16: the last of an epoch has one row, so one of two processes has none; 37 rows are scored
    return ["task=glue/cola", "model=minilm", f"model.path={still_model}", f"data.root={tiny_data}", "rank=4",
            "trainer.epochs=2", "trainer.batch_size=16", "trainer.learning_rate=1e-2",
            "trainer.head_learning_rate=1e-2", "task.train_rows=33", "task.validation_rows=37", "trainer.log_steps=2"]  # fmt: skip


@pytest.fixture(scope="module")
def decoder_overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = save_decoder(tmp_path_factory.mktemp("decoder"), "llama", "smollm")
    return ["task=word_problems", f"model.path={folder}", "model.package=null", "model.architecture={}", "rank.r=4",
            "task.train_rows=13", "task.validation_rows=5", "task.test_rows=3", "trainer.batch_size=4",
            "trainer.epochs=2", "trainer.learning_rate=1e-2", "trainer.log_steps=2",
            "evaluation.max_new_tokens=3"]  # fmt: skip


def spec_of(*overrides: str) -> RunSpec:
    config = compose_config(overrides)
    config.pop("force")
    return RunSpec.from_config(config)


def weights(spec: RunSpec) -> dict[str, torch.Tensor]:
    files = sorted((spec.folder / "adapter" / "last").glob("*.safetensors"))
    return {f"{f.name}:{name}": t for f in files for name, t in load_file(f).items() if "fingerprint" not in name}


def assert_same_run(one: RunSpec, other: RunSpec) -> None:
    """Both finished, with the same batches, losses within 1e-6, trained weights within 1e-5, scores equal."""
    records = [read_record(spec.folder) for spec in (one, other)]
    assert all(record is not None and record.status == "finished" for record in records)
    first, second = (record.train for record in records)
    for key in ("batches_digest", "tokens", "steps"):
        assert first[key] == second[key], key
    histories = [[json.loads(line) for line in (spec.folder / "metrics.jsonl").read_text().splitlines()]
                 for spec in (one, other)]  # fmt: skip
    assert len(histories[0]) == len(histories[1])
    for a, b in zip(*histories, strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            same = pytest.approx(value, abs=1e-6, rel=1e-6) if isinstance(value, float) else value
            assert b[key] == same, key
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=1e-5, msg=name)


def test_two_processes_are_one_run_for_labels_and_responses_whatever_the_method(
    still_overrides: list[str], decoder_overrides: list[str], tmp_path: Path
) -> None:
    settings = [[*still_overrides, f"method={method}"] for method in LABELS]
    settings[0].append("init.std=0.1")
    settings += [[*decoder_overrides, "trainer.loss=tokens"],
                 [*decoder_overrides, "trainer.loss=micro_batches", "trainer.loss_rows=2", "method=lora_sb",
                  "init.samples=5", "init.batch_size=2"]]  # fmt: skip
    rates = ["trainer.learning_rate=1e-3"]
    alone = [spec_of(*s, *rates, f"results={tmp_path}/one") for s in settings]
    split = ["trainer.processes=2", "trainer.device_batch_size=2", "evaluation.batch_size=8"]
    together = [spec_of(*s, *rates, f"results={tmp_path}/two", *split) for s in settings]
    assert [s.signature for s in alone] == [s.signature for s in together]
    plan = tmp_path / "specs.json"
    plan.write_text(json.dumps([spec.to_json() for spec in together]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    started = subprocess.Popen([*torchrun, str(SCRIPT), str(plan)], stderr=subprocess.PIPE)
    for spec in alone:
        run(spec)
    _, errors = started.communicate(timeout=200)
    assert started.returncode == 0, errors.decode()[-2000:]
    assert Path(f"{plan}.0").read_text() == Path(f"{plan}.1").read_text()
    for one, two in zip(alone, together, strict=True):
        assert_same_run(one, two)
        record = read_record(two.folder)
        assert record.environment["world_size"] == 2
        assert not list(two.folder.glob("checkpoints")) and not (two.folder / "lease.json").exists()
    tests = [read_record(spec.folder).train["tests"]["word_problems"] for spec in (alone[4], together[4])]
    assert tests[0]["scores"] == tests[1]["scores"] and tests[0]["tokens"] == tests[1]["tokens"]
