"""Every key of the config is read by something that trains, counts or reports; none is decoration."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
from tiny_decoders import save_decoder

from lora_xs.command import main
from lora_xs.errors import UserError
from lora_xs.models import locate
from lora_xs.spec import RunSpec, sections
from lora_xs.sweeps import slurm
from lora_xs.sweeps.calibration import Calibration
from lora_xs.sweeps.cost import estimate
from lora_xs.sweeps.devices import device_named
from lora_xs.sweeps.launcher import split_launcher
from lora_xs.sweeps.manifest import Line

GROUPS = [c for c in vars(sections).values() if dataclasses.is_dataclass(c)] + [RunSpec]
ONLY_IN_RULES = {
    ("MethodSpec", "inits"): "which initialisations a method accepts",
    ("StartSpec", "content"): "the identity of a start, part of the signature",
}
COPY_OR_CHECK = ("lora_xs.spec.rules", "lora_xs.spec.bind", "lora_xs.spec.identity")


def test_every_config_key_is_read(
    tiny_run, tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[tuple[str, str]] = set()

    def watch(group: type) -> None:
        usual = group.__getattribute__

        def reading(self, name: str):
            frame = sys._getframe(1)
            caller = frame.f_globals.get("__name__", "")
            copies = caller in COPY_OR_CHECK and frame.f_code.co_name != "run_folder"
            if caller.startswith("lora_xs") and not copies:
                read.add((group.__name__, name))
            return usual(self, name)

        monkeypatch.setattr(group, "__getattribute__", reading)

    for group in GROUPS:
        watch(group)
    common = ["task=glue/cola", f"model.path={tiny_model}", "model=minilm", f"data.root={tiny_data}", "rank=4",
              f"results={tmp_path}", "trainer.epochs=1", "trainer.max_steps=2"]  # fmt: skip
    assert main([*common, "logger=tensorboard"]) == 0
    assert main([*common, "method=vera"]) == 0
    assert main([*common, "method=lora_sb"]) == 0
    decoder = save_decoder(tmp_path / "decoder", "llama", "smollm")
    assert main(["task=word_problems", f"model.path={decoder}", "model.package=null", "model.architecture={}",
                 "rank.r=4", "task.train_rows=8", "task.validation_rows=4", "task.test_rows=2", "trainer.batch_size=4",
                 "trainer.loss=micro_batches", "trainer.loss_rows=2",
                 "evaluation.max_new_tokens=2", f"results={tmp_path}"]) == 0  # fmt: skip
    source = next(tmp_path.glob("glue/cola/lora_xs-r4/s0-*"))
    assert main([*common, f"start_from={source}", "logger=wandb"]) == 0
    for lost in (["model=roberta-large"], ["model.path=null", "model.package=null"]):
        spec = tiny_run(*lost, "model.path=null")
        with pytest.raises(UserError):
            locate(spec.model)
    planned, device = tiny_run("model=roberta-large", "model.path=null"), device_named("h100")
    assert estimate(planned, device).flops * Calibration().factor(device, planned) > 0
    settings, _ = split_launcher(
        ["launcher=slurm", "launcher.slurm.snapshot=none", f"launcher.slurm.folder={tmp_path}"]
    )
    monkeypatch.setattr(slurm, "_check", lambda *cluster: None)
    monkeypatch.setattr(slurm, "_send", lambda *array: "1")
    slurm.submit([Line(tiny_run("seed=9"))], settings, name="keys")

    keys = {(g.__name__, f.name) for g in GROUPS for f in dataclasses.fields(g)}
    assert keys - read == set(ONLY_IN_RULES), "keys nothing reads, or that are read after all"
