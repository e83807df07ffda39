"""What the tests of launchers share: what a run leaves that nothing may change, and how often it was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from tiny_decoders import save_decoder

from lora_xs.records import read_record
from lora_xs.spec import RunSpec
from lora_xs.spec.compose import compose_spec

TIMED = {"seconds", "train_seconds", "tokens_per_second", "peak_memory_mib"}


def leavings(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, bytes]]:
    """Of a finished run, all but times: the record, other files' content, and every tensor's bits."""
    record = read_record(folder)
    assert record is not None, f"no record in {folder}"
    train = {key: value for key, value in record.train.items() if key not in TIMED}
    if train["factors"]:
        train["factors"] = {k: v for k, v in train["factors"].items() if k not in ("seconds", "cached")}
        for name in ("seconds", "peak_extra_bytes"):
            train["factors"].get("update", {}).pop(name, None)
    for test in train.get("tests", {}).values():
        for name in [name for name in test if name.endswith("seconds")]:
            del test[name]
    block = {
        key: value for key, value in record.run.items() if key not in ("seconds", "started", "attempts", "command")
    }
    environment = {key: value for key, value in record.environment.items() if key not in ("commit", "dirty")}
    texts: dict[str, Any] = {"metrics.jsonl": (folder / "metrics.jsonl").read_text()}
    for file in sorted(folder.glob("adapter/*/*.json")):
        config = json.loads(file.read_text())
        if isinstance(config.get("target_modules"), list):
            config["target_modules"].sort()  # a set in PEFT, in an order of the process's own
        texts[str(file.relative_to(folder))] = config
    files = sorted((folder / "adapter").rglob("*.safetensors"))
    tensors = {f"{f.relative_to(folder)}:{n}": t.numpy().tobytes() for f in files for n, t in load_file(f).items()}
    return {"status": record.status, "run": block, "train": train, "environment": environment}, texts, tensors


def times_trained(folder: Path) -> int:
    """How often this run was trained to its end, by its log."""
    log = folder / "log.txt"
    return log.read_text().count("lora_xs.runner: recorded as") if log.is_file() else 0


def decoder_run(folder: Path, *overrides: str) -> RunSpec:
    """A run of seconds on a tiny decoder that answers three questions afterwards."""
    model = folder / "decoder"
    if not model.is_dir():
        save_decoder(model, "llama", "smollm")
    return compose_spec(
        [
            "task=word_problems",
            f"model.path={model}",
            "model.package=null",
            "model.architecture={}",
            "rank.r=4",
            "task.train_rows=24",
            "task.validation_rows=8",
            "task.test_rows=3",
            "task.max_length=400",
            "trainer.batch_size=6",
            "trainer.learning_rate=5e-2",
            "evaluation.max_new_tokens=6",
            *overrides,
        ]
    )
