"""A run whose model is sharded over two processes is the run of one: steps, scores, files, and where it resumes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from interrupted import killed_at
from same_runs import assert_same_run, spec_of
from tiny_decoders import save_decoder

from lora_xs.errors import UserError
from lora_xs.evaluation.examination import examine
from lora_xs.ingredients import Ingredients
from lora_xs.preparation import rebuilt
from lora_xs.records import read_record
from lora_xs.runner import run
from lora_xs.spec import RunSpec
from lora_xs.spec.rules import check
from lora_xs.training.preemption import StopRequest
from lora_xs.training.trainer import RunTrainer

SCRIPT = Path(__file__).with_name("sharded_ranks.py")
pytestmark = pytest.mark.slow
COMMON = ["trainer.epochs=1", "trainer.learning_rate=1e-3", "trainer.max_grad_norm=0.1", "trainer.log_steps=1"]
RESUMED = ("full_ft", "one_process_first")
"""Sharded runs that go on from a checkpoint of step 1, which two sharded processes and one process wrote."""
HALF = "full_ft of a tied decoder in bf16"


class Runs(NamedTuple):
    """alone, sharded: each setting's run in one process, and over two. told: what each of the two said of the sharded
    ones. norms: of each step's gradient, alone. cut: the folder of a sharded run that was killed."""

    alone: dict[str, RunSpec]
    sharded: dict[str, RunSpec]
    told: dict[str, list[dict[str, Any]]]
    norms: dict[str, list[float]]
    cut: Path


def run_all(still_overrides: list[str], decoder_overrides: list[str], place: Path) -> Runs:
    """All settings, alone and over one pair of processes."""
    tied = save_decoder(place / "tied", "gemma2", "gemma")
    decoder = [*decoder_overrides, "trainer.loss=tokens"]
    settings = {
        "full_ft": [*still_overrides, "method=full_ft"],
        "one_process_first": [*still_overrides, "method=lora_xs", "init.std=0.1", "evaluation=end"],
        "decoder lora_xs": [*decoder, "trainer.gradient_checkpointing=true", "init.std=0.1"],
        "decoder lora_sb": [*decoder, "method=lora_sb", "init.samples=5", "init.batch_size=2"],
    }
    alone = {name: spec_of(*s, *COMMON, f"results={place}/one") for name, s in settings.items()}
    sharded = {name: over_two(spec, place / "two", "fsdp") for name, spec in alone.items()}
    half = [*decoder, "method=full_ft", f"model.path={tied}", "model.attention=eager", "trainer.precision=bf16"]
    # bf16 rounds by what is computed at once: held against two whole models, which hold the same rows
    alone[HALF] = over_two(spec_of(*half, *COMMON, f"results={place}/one"), place / "one")
    sharded[HALF] = over_two(alone[HALF], place / "two", "fsdp")
    assert all(alone[name].signature == sharded[name].signature for name in alone)
    with killed_at(2):
        run(changed(alone["one_process_first"].replace(results=str(place / "two")), checkpoint_seconds=0))
    cut = changed(sharded["full_ft"], checkpoint_seconds=0)
    plan: list[dict[str, Any]] = [{**cut.to_json(), "kill_at": 2, "keep": str(place / "cut")}]
    plan += [spec.to_json() for spec in (*sharded.values(), alone[HALF])]
    file = place / "plan.json"
    file.write_text(json.dumps(plan))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    started = subprocess.Popen([*torchrun, str(SCRIPT), str(file)], stderr=subprocess.PIPE)
    norms = {}
    try:
        for name in settings:
            with pytest.MonkeyPatch.context() as patch:
                norms[name] = watched(patch)
                run(alone[name])
        _, errors = started.communicate(timeout=250)
    finally:
        started.terminate()
    assert started.returncode == 0, errors.decode()[-3000:]
    said = [json.loads(Path(f"{file}.{rank}").read_text())[1:-1] for rank in (0, 1)]
    told = {name: [one[number] for one in said] for number, name in enumerate(sharded)}
    return Runs(alone, sharded, told, norms, place / "cut")


def changed(spec: RunSpec, **trainer: Any) -> RunSpec:
    return spec.replace(trainer=dataclasses.replace(spec.trainer, **trainer))


def over_two(spec: RunSpec, results: Path, sharding: str = "none") -> RunSpec:
    smaller = spec.replace(results=str(results), evaluation=dataclasses.replace(spec.evaluation, batch_size=8))
    return changed(smaller, processes=2, sharding=sharding, device_batch_size=2)


def watched(patch: pytest.MonkeyPatch) -> list[float]:
    """The gradient's norm before it is clipped, step by step."""
    norms: list[float] = []
    usual = RunTrainer._clip_grad_norm

    def clip(trainer, model):
        norms.append(float(norm := usual(trainer, model)))
        return norm

    patch.setattr(RunTrainer, "_clip_grad_norm", clip)
    return norms


def same_as_alone(runs: Runs) -> None:
    for name, spec in runs.sharded.items():
        assert_same_run(runs.alone[name], spec)
        first, second = runs.told[name]
        assert first == second
        shards, parameters = first["sharded"]
        assert shards == parameters > 20, name
        assert not list(spec.folder.glob("checkpoints")) and not (spec.folder / "lease.json").exists()
    estimate = [read_record(s["decoder lora_sb"].folder).train["factors"]["update"] for s in (runs.alone, runs.sharded)]
    assert estimate[0]["digest"] == estimate[1]["digest"] and estimate[0]["indices"] == estimate[1]["indices"]


def clipped_by_the_whole_norm(runs: Runs) -> None:
    for name, norms in runs.norms.items():
        seen = runs.told[name][0]["norms"]
        assert seen == pytest.approx(norms[-len(seen) :], rel=1e-4), name
        assert any(norm > 0.1 for norm in seen), name  # so something was clipped


def saved_adapter_answers_the_tests(runs: Runs, place: Path) -> None:
    for name in ("decoder lora_xs", "decoder lora_sb", HALF):
        folders = [chosen[name].folder / "generations" for chosen in (runs.alone, runs.sharded)]
        texts = [[line for line in (f / "word_problems.jsonl").read_text().splitlines()[1:]] for f in folders]
        assert texts[0] == texts[1] and texts[0], name
        if name == HALF:
            continue  # its autocast is the trainer's
        spec, source = runs.alone[name], Ingredients()
        location = source.location(spec)
        model = rebuilt(spec, location, spec.folder / "adapter" / "last")
        _, tokenizer = source.base(spec, location, 0)
        tests = [source.test(spec, "word_problems")]
        examine(spec, model, tokenizer, tests, place / name, base=location.folder, stop=StopRequest())
        again = (place / name / "generations" / "word_problems.jsonl").read_text().splitlines()[1:]
        assert again == texts[0], name


def goes_on_from_the_other_kind_of_checkpoint(runs: Runs, place: Path, patch: pytest.MonkeyPatch) -> None:
    for name in RESUMED:
        assert len(runs.told[name][0]["norms"]) == len(runs.norms[name]) - 1, name  # the first step was not taken again
    alone = runs.alone["full_ft"]
    spec = alone.replace(results=str(place))
    shutil.copytree(runs.cut, spec.folder)
    norms = watched(patch)
    run(spec)
    assert len(norms) == len(runs.norms["full_ft"]) - 1
    assert_same_run(alone, spec)


def test_a_sharded_run_is_the_run_of_one_process_whoever_goes_on_with_it(
    still_overrides: list[str], decoder_overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = run_all(still_overrides, decoder_overrides, tmp_path)
    same_as_alone(runs)
    clipped_by_the_whole_norm(runs)
    saved_adapter_answers_the_tests(runs, tmp_path / "answered")
    goes_on_from_the_other_kind_of_checkpoint(runs, tmp_path / "went_on", monkeypatch)


def test_what_cannot_be_sharded_is_refused(still_overrides: list[str]) -> None:
    spec = spec_of(*still_overrides, "method=lora_sb", "trainer=ddp2")
    bits = [spec.replace(model=dataclasses.replace(spec.model, quantization=name)) for name in ("nf4", "int8")]
    for quantised in bits:
        check(quantised)  # DDP has the whole model in each process, quantised or not
        with pytest.raises(UserError, match=r"sharding=fsdp does not go with model.quantization=(nf4|int8) and"):
            check(changed(quantised, sharding="fsdp"))
    check(changed(spec, sharding="fsdp", precision="bf16"))
    with pytest.raises(UserError, match=r"trainer\.precision=fp16; use quantization=none and fp32 or bf16"):
        check(changed(spec, sharding="fsdp", precision="fp16"))
