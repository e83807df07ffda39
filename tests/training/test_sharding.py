"""A run whose model is sharded over two processes is the run of one: steps, scores, files, and where it resumes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from same_runs import assert_same_run, spec_of

from lora_xs.runner import run

SCRIPT = Path(__file__).with_name("sharded_ranks.py")


def ranks(plan: Path, runs: list[dict[str, Any]]) -> subprocess.Popen[bytes]:
    """Two processes that go through `runs` together."""
    plan.write_text(json.dumps(runs))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen([*torchrun, str(SCRIPT), str(plan)], stderr=subprocess.PIPE)


def test_try(still_overrides: list[str], decoder_overrides: list[str], tmp_path: Path) -> None:
    settings = {
        "bert full_ft": [*still_overrides, "method=full_ft"],
        "bert lora_xs": [*still_overrides, "method=lora_xs", "init.std=0.1"],
        "bert lora_sb": [*still_overrides, "method=lora_sb"],
        "bert lora": [*still_overrides, "method=lora"],
        "bert pissa": [*still_overrides, "method=pissa"],
        "bert vera": [*still_overrides, "method=vera"],
        "dec full_ft": [*decoder_overrides, "method=full_ft", "trainer.loss=tokens"],
        "dec sb": [*decoder_overrides, "method=lora_sb", "init.samples=5", "init.batch_size=2"],
        "dec xs bf16": [*decoder_overrides, "trainer.precision=bf16"],
        "dec xs ck": [*decoder_overrides, "trainer.gradient_checkpointing=true"],
    }
    import os
    if os.environ.get("ONLY"):
        settings = {k: v for k, v in settings.items() if k in os.environ["ONLY"].split(",")}
    rates = ["trainer.learning_rate=1e-3", "trainer.max_grad_norm=0.1"]
    alone = [spec_of(*s, *rates, f"results={tmp_path}/one") for s in settings.values()]
    split = ["trainer=fsdp2", "trainer.device_batch_size=2", "evaluation.batch_size=8"]
    together = [spec_of(*s, *split, *rates, f"results={tmp_path}/two") for s in settings.values()]
    plan = tmp_path / "plan.json"
    for name, spec, one in zip(settings, together, alone):
        started = ranks(plan, [spec.to_json()])
        run(one)
        _, errors = started.communicate(timeout=200)
        print(name, started.returncode)
        if started.returncode: print(errors.decode()[-6000:])
        else:
            print(Path(f"{plan}.0").read_text()[-60:])
            try:
                assert_same_run(one, spec)
            except AssertionError as e:
                print("DIFF", str(e)[:600])
