"""LoRA-SB as a run: which rows its estimate sees, η's readings, what the record keeps, and what survives a kill."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from interrupted import killed_at
from peft import PeftModel
from safetensors.torch import load_file

from lora_xs.adapters.estimation import EstimationRows, sample_indices
from lora_xs.errors import UserError
from lora_xs.runner import run
from lora_xs.spec import RunSpec
from lora_xs.spec.compose import compose_spec
from lora_xs.spec.sections import InitSpec

SHORT = ("method=lora_sb", "trainer.epochs=1", "trainer.learning_rate=1e-3", "trainer.max_steps=4", "evaluation=end")


def spec_of(*overrides: str) -> RunSpec:
    return compose_spec(overrides)


def rows_of(spec: RunSpec, count: int = 96) -> EstimationRows:
    return EstimationRows(spec, [{"labels": n % 2, "number": n} for n in range(count)], lambda rows: {"rows": rows})


def factors(folder: Path) -> dict[str, torch.Tensor]:
    saved = load_file(folder / "adapter" / "last" / "adapter_model.safetensors")
    found = {name: tensor for name, tensor in saved.items() if "lora_A" in name or "lora_B" in name}
    assert len(found) == 16
    return found


def test_fewer_samples_are_the_beginning_of_more_and_the_seed_chooses_them():
    def chosen(n: int, seed: int = 0) -> list[int]:
        return sample_indices(1000, InitSpec("update", samples=n), seed)

    assert [len(set(chosen(n))) for n in (1, 5, 50, 500)] == [1, 5, 50, 500]
    assert chosen(500)[:50] == chosen(50) and chosen(50)[:1] == chosen(1)
    assert chosen(50) != chosen(50, seed=1) and chosen(50) != sorted(chosen(50))
    assert sample_indices(1000, InitSpec("update", samples=3, choice="first"), 0) == [0, 1, 2]
    assert len(sample_indices(10, InitSpec("update", samples=50), 0)) == 10


@pytest.mark.parametrize(("rows", "expected"), [(50_000, 50), (3_668, 4), (10, 1)])
def test_a_fraction_is_the_papers_reading_of_the_number_of_samples(rows: int, expected: int):
    assert len(sample_indices(rows, InitSpec("update", fraction=0.001), 0)) == expected


def test_the_protocol_says_how_many_samples_and_the_record_can_tell():
    papers = spec_of("task=glue/mrpc", "method=lora_sb", "rank=24", "protocol=lora_sb")
    assert (papers.init.samples, papers.alpha, papers.init.batch_size, papers.trainer.epochs) == (2, 24, None, 30)
    assert papers.provenance["init.samples"] == "LoRA-SB App. and its code"
    ours = spec_of("task=reviews", "method=lora_sb")
    assert ours.init.samples == 2 and ours.provenance["init.samples"].startswith("ours")
    assert spec_of("method=lora_sb", "init.samples=500").provenance["init.samples"] == "given"
    share = spec_of("method=lora_sb", "init.fraction=0.001")
    assert share.init.samples is None and share.init.fraction == 0.001
    assert "init.samples" not in spec_of("method=lora_xs").provenance


def test_eta_has_two_readings():
    common = ("method=lora_sb", "rank=4", "trainer.learning_rate=1e-3", "trainer.epochs=3", "trainer.batch_size=32")
    counted = {"init.eta=estimation_batches": 3 * 320, "init.eta=optimiser_steps": 3 * 30}
    for reading, steps in counted.items():
        eta, seen = rows_of(spec_of(*common, "init.batch_size=3", reading), 960).step()
        assert seen == steps and eta == pytest.approx(1e-3 / (0.06 * steps))
    # on GLUE the estimation batch is the optimiser's: both readings are one
    assert rows_of(spec_of(*common, "init.eta=estimation_batches"), 960).step()[1] == 90
    assert rows_of(spec_of(*common, "init.eta=optimiser_steps", "trainer.max_steps=70"), 960).step()[1] == 70
    assert rows_of(spec_of(*common, "trainer.warmup_ratio=0"), 960).step()[0] == 1e-3


@pytest.mark.parametrize("held", ["null", "2"])
def test_portions_weigh_what_the_normalisation_says(held: str):
    common = ("method=lora_sb", "init.samples=10", "init.batch_size=4", "trainer.batch_size=32",
              f"trainer.device_batch_size={held}")  # fmt: skip
    batches, rows = (list(rows_of(spec_of(*common, f"init.normalise={n}"))) for n in ("batches", "rows"))
    assert [row["number"] for portion in batches for row in portion.inputs["rows"]] == rows_of(spec_of(*common)).indices
    sizes = [len(portion.inputs["rows"]) for portion in batches]
    assert sizes == ([4, 4, 2] if held == "null" else [2, 2, 2, 2, 2])
    assert [portion.weight for portion in rows] == sizes
    assert sum(portion.weight for portion in batches) == pytest.approx(1.0)
    assert batches[-1].weight == pytest.approx(1 / 3)  # the last batch, of two rows, counts like the others


def test_the_record_keeps_what_the_factors_came_from(tiny_run):
    spec = tiny_run(*SHORT, "init.samples=6", "init.batch_size=4")
    record = run(spec)
    block = record.train["factors"]
    made = block["update"]
    assert made["samples"] == len(set(made["indices"])) == 6 and len(made["digest"]) == 64 and made["portions"] == 2
    assert made["steps"] == 24 and made["eta"] == pytest.approx(1e-3 / (0.06 * 24))
    assert made["gradient_bytes"] == 4 * (6 * 32 * 32 + 2 * 32 * 64) and made["peak_extra_bytes"] >= 0
    assert made["seconds"] > 0 and made["factors_in_adapter"] is True
    ratio = block["ratio"]
    assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"] < 1 and block["modules"] == 8
    assert record.train["parameters"]["adapter"] == 8 * 4 * 4
    config = json.loads((spec.folder / "adapter" / "last" / "adapter_config.json").read_text())
    assert config["init_weights"] == "update" and config["factors_in_checkpoint"] is True
    assert "update" not in config and "gradients" not in json.dumps(config)


def test_equal_seeds_give_equal_factors_and_others_do_not(tiny_run, tmp_path: Path):
    def made(place: str, *overrides: str) -> dict[str, torch.Tensor]:
        spec = tiny_run(*SHORT, f"results={tmp_path}/{place}", *overrides)
        run(spec)
        return factors(spec.folder)

    one = made("one")
    for same in (made("again"), made("checkpointed", "trainer.gradient_checkpointing=true")):
        assert all(torch.equal(one[name], same[name]) for name in one)
    other = made("other", "seed=1")
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_the_run_s_adapter_loads_with_stock_peft_calls_onto_the_base(tiny_run, tiny_model: Path):
    from transformers import AutoModelForSequenceClassification

    spec = tiny_run(*SHORT)
    run(spec)
    torch.manual_seed(0)
    base = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    model = PeftModel.from_pretrained(base, spec.folder / "adapter" / "last")
    found = {n: b for n, b in model.named_buffers() if "lora_A" in n or "lora_B" in n}
    assert all(torch.equal(found[f"{name}.default"], tensor) for name, tensor in factors(spec.folder).items())


@pytest.mark.parametrize("where", ["before the first step", "after step 3"])
def test_a_resumed_run_goes_on_with_the_factors_it_began_with(tiny_run, tmp_path: Path, monkeypatch, where: str):
    """Kept beside the checkpoints and not made again: other hardware would make other bits, and R belongs to these."""

    whole = tiny_run(*SHORT, f"results={tmp_path}/whole")
    run(whole)
    killed = tiny_run(*SHORT, f"results={tmp_path}/killed", "trainer.checkpoint_seconds=0")
    with killed_at(0, "on_train_begin") if where.startswith("before") else killed_at(3):
        run(killed)
    assert (killed.folder / "checkpoints" / "start" / "adapter_model.safetensors").is_file()
    with monkeypatch.context() as patch:
        patch.setattr("lora_xs.adapters.update.estimate_update", lambda *_, **__: 1 / 0)
        record = run(killed)
    expected = factors(whole.folder)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in factors(killed.folder).items())
    for file in ("adapter_model.safetensors", "head.safetensors"):
        ours, theirs = (load_file(s.folder / "adapter" / "last" / file) for s in (killed, whole))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert record.train["factors"]["update"]["seconds"] > 0
    assert not (killed.folder / "checkpoints").exists()


def test_rows_that_changed_since_the_factors_were_made_are_refused(tiny_run, monkeypatch):
    spec = tiny_run(*SHORT)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("lora_xs.training.trainer.RunTrainer.__init__", lambda *_, **__: 1 / 0)
        run(spec)
    with monkeypatch.context() as patch:
        patch.setattr(EstimationRows, "digest", lambda self: "0" * 64)
        with pytest.raises(UserError, match="its rows changed since its factors were made"):
            run(spec)


def test_starting_from_another_lora_sb_run_takes_its_bases_with_its_R(tiny_run):
    source = tiny_run(*SHORT)
    run(source)
    spec = tiny_run(*SHORT, "seed=1", f"start_from={source.folder}")
    record = run(spec)
    before = factors(source.folder)
    assert all(torch.equal(tensor, before[name]) for name, tensor in factors(spec.folder).items())
    assert record.status == "finished"
    other = tiny_run("trainer.epochs=1", "method.alpha=4")
    run(other)
    with pytest.raises(UserError, match="holds no lora_A"):
        run(tiny_run(*SHORT, f"start_from={other.folder}"))


@pytest.mark.parametrize(
    "variant",
    [
        ["init.sign=false"],
        ["init.orthonormal=false"],
        ["init.matrix=kaiming"],
        ["init.matrix=update_noise", "init.noise=1e-4"],
        ["init.dropout=false", "init.choice=first", "init.normalise=rows", "init.samples=null", "init.fraction=0.1"],
    ],
    ids=lambda v: v[0],
)
def test_every_ablation_trains_and_records_how_far_it_starts(tiny_run, variant: list[str]):
    record = run(tiny_run(*SHORT, *variant))
    assert record.status in ("finished", "diverged")
    assert math.isfinite(record.train["factors"]["ratio"]["max"]) and record.train["factors"]["ratio"]["min"] > 0
    if variant == ["init.matrix=kaiming"]:
        assert record.train["factors"]["update"]["samples"] is None and record.train["factors"]["ratio"]["min"] > 0.3


@pytest.mark.parametrize("bits", ["int8", "nf4"])
def test_a_quantised_base_trains(tiny_run, bits: str):
    pytest.importorskip("bitsandbytes")
    record = run(tiny_run(*SHORT, f"model.quantization={bits}", "trainer.max_steps=3"))
    assert record.status == "finished" and record.train["factors"]["ratio"]["median"] > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["init.samples=5", "init.fraction=0.1"], "say both; give one of them"),
        (["init.samples=0"], "init.samples=0 must be at least 1"),
        (["init.batch_size=0"], "init.batch_size=0 must be at least 1"),
        (["init.fraction=1.5"], "must be above 0 and at most 1"),
        (["init.noise=1e-3"], "goes with init.matrix=update_noise alone"),
        (["init.matrix=update_noise"], "init.noise=None goes with init.matrix=update_noise"),
        (["init.matrix=update_noise", "init.noise=-1"], "init.noise=-1.0 must not be negative"),
        (["init.matrix=hessian"], "choose one of update, update_noise, kaiming"),
        (["init.eta=guess"], "choose one of estimation_batches, optimiser_steps"),
        (["method.save_factors=false"], "the adapter's file holds them"),
        (["init=svd_w"], "init=svd_w does not go with method=lora_sb"),
        (["init.std=1e-3"], "unknown key init.std"),
    ],
)
def test_mistakes_are_refused_before_anything_heavy(overrides: list[str], message: str):
    with pytest.raises(UserError, match=message) as error:
        spec_of("method=lora_sb", *overrides)
    assert "\n" not in str(error.value)
