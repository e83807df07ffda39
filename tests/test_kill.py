"""Ten kill -9 at random moments, and the run still ends with the bits of one that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lora_xs.records import read_record
from lora_xs.runner import run

KILLS = 10


def bits(folder: Path) -> tuple[dict, str, dict[str, bytes]]:
    """Metrics, history and every trained tensor of a finished run."""
    record = read_record(folder)
    assert record is not None
    kept = ("evaluations", "best", "last", "steps", "tokens", "padded_tokens", "batches_digest", "parameters")
    files = sorted((folder / "adapter").rglob("*.safetensors"))
    tensors = {f"{f.relative_to(folder)}:{n}": t.numpy().tobytes() for f in files for n, t in load_file(f).items()}
    return {key: record.train[key] for key in kept}, (folder / "metrics.jsonl").read_text(), tensors


def newest_step(folder: Path) -> int:
    """The optimiser step of the newest checkpoint, 0 without one."""
    return max((int(p.name.removeprefix("step-")) for p in folder.glob("checkpoints/step-*")), default=0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_ten_kills_at_random_moments_change_nothing(tiny_run, tmp_path: Path) -> None:
    long = ["trainer.epochs=30", "trainer.log_steps=7", "trainer.checkpoint_seconds=0"]
    whole = tiny_run(*long, f"results={tmp_path}/whole")
    run(whole)
    killed = tiny_run(*long, f"results={tmp_path}/killed")
    chance, kills = random.Random(0), 0
    while read_record(killed.folder) is None:
        before = newest_step(killed.folder)
        child = os.fork()  # a fresh process without paying the imports again
        if child == 0:
            try:
                run(killed)
            finally:
                os._exit(0)
        if kills < KILLS:
            while newest_step(killed.folder) <= before and os.waitpid(child, os.WNOHANG) == (0, 0):
                time.sleep(0.005)  # some progress first, so that ten kills do not take for ever
            time.sleep(chance.uniform(0.0, 0.12))
            os.kill(child, signal.SIGKILL)
            kills += 1
        os.waitpid(child, 0)
    assert kills == KILLS, f"the run finished after {kills} kills: it must be longer for this test"
    assert bits(killed.folder) == bits(whole.folder)
    assert json.loads((killed.folder / "record.json").read_text())["status"] == "finished"
