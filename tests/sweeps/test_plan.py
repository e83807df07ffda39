"""A plan: what is to be run, what waits in vain, what does not fit, and how far estimates were off."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from planned_runs import Planned, checkpoint, hold, leave, planned
from rich.console import Console

from lora_xs.errors import UserError
from lora_xs.sweeps.board import Board
from lora_xs.sweeps.calibration import Calibration, Measured, calibrate, fit
from lora_xs.sweeps.cost import estimate
from lora_xs.sweeps.devices import device_named
from lora_xs.sweeps.plan import Plan, experiment_in, make_plan
from lora_xs.sweeps.show import print_plan
from lora_xs.sweeps.verdict import Verdict

H100 = device_named("h100")
CPU = {"hardware": {"gpu": None, "cores": 2}, "threads": {"torch": 1}, "world_size": 1}


@pytest.fixture
def runs(tmp_path: Path) -> list[Planned]:
    """An MNLI start, two runs that need it at two seeds, and a run that needs nothing."""
    first = planned(tmp_path, "task=glue/mnli", task="mnli", role="start")
    base = planned(tmp_path, task="mrpc", rank="4")
    return [
        first,
        dataclasses.replace(base, needs=(first.spec.signature,)),
        dataclasses.replace(base, spec=base.spec.replace(seed=1), needs=(first.spec.signature,)),
        planned(tmp_path, "task=glue/cola", task="cola", rank="4"),
    ]


def plan(runs: list[Planned], **settings: Any) -> Plan:
    return make_plan("x", runs, H100, **settings)


def test_states_are_counted_in_all_and_by_arm(runs: list[Planned]) -> None:
    leave(runs[0].spec, "finished")
    hold(runs[1].spec.folder)
    checkpoint(runs[2].spec.folder, 10)
    made = plan(runs)
    assert made.counts() == {"new": 1, "partial": 1, "running": 1, "finished": 1, "diverged": 0, "failed": 0}
    assert {arm: len(entries) for arm, entries in made.arms().items()} == {"mnli, start": 1, "mrpc, 4": 2, "cola, 4": 1}
    shown = made.to_json(made.choose())
    assert shown["arms"]["mrpc, 4"]["running"] == shown["arms"]["mrpc, 4"]["partial"] == 1
    assert json.loads(json.dumps(shown)) == shown


def test_new_and_partial_runs_are_to_be_run_and_others_when_asked(runs: list[Planned]) -> None:
    leave(runs[0].spec, "finished")
    leave(runs[1].spec, "failed")
    leave(runs[2].spec, "diverged")
    made = plan(runs)
    assert [entry.run for entry in made.choose().runs] == [runs[3]]
    assert [entry.run for entry in made.choose(["failed"]).runs] == [runs[1], runs[3]]
    assert [entry.run for entry in made.choose(["failed", "diverged"]).runs] == runs[1:]
    assert [entry.run for entry in made.choose(["failed", "diverged"], 2).runs] == runs[1:3]


def test_what_is_needed_is_finished_running_chosen_or_blocks(runs: list[Planned]) -> None:
    assert [entry.run for entry in plan(runs).choose(limit=2).runs] == runs[:2]
    hold(runs[0].spec.folder)
    assert [entry.run for entry in plan(runs).choose().runs] == runs
    assert [entry.run for entry in plan(runs).choose(limit=1).runs] == runs[:2]
    assert [entry.run for entry in plan(runs[::3]).choose().runs] == [runs[3]]  # nobody waits for it
    (runs[0].spec.folder / "lease.json").unlink()
    leave(runs[0].spec, "failed")
    choice = plan(runs).choose()
    assert [entry.run for entry in choice.runs] == [runs[3]]
    reason = f"needs {runs[0].spec.signature}, which is failed"
    assert choice.blocked == {run.spec.signature: reason for run in runs[1:3]}
    assert not plan(runs).choose(["failed"]).blocked


def test_a_launch_waits_for_a_start_that_is_trained_elsewhere(runs: list[Planned]) -> None:
    lease = hold(runs[0].spec.folder)
    board = Board([entry.run for entry in plan(runs[:3]).choose().runs], clock=iter(range(0, 10_000, 100)).__next__)
    assert board.take() == runs[0] and board.take() is None
    board.settle(runs[0], Verdict("busy", "process 1 has it"))
    assert not board.over
    lease.unlink()
    leave(runs[0].spec, "finished")
    assert [board.take(), board.take()] == runs[1:3]


def test_only_keeps_what_its_runs_need_and_names_what_it_does_not_know(runs: list[Planned]) -> None:
    made = plan(runs)
    assert [entry.run for entry in made.only("task=mrpc,seed=1").entries] == [runs[0], runs[2]]
    assert [entry.run for entry in made.only("task=mrpc,task=cola").entries] == runs
    assert [entry.run for entry in made.only("task=cola,method=lora_xs,rank=4").entries] == [runs[3]]
    assert made.only("") is made
    shown = made.only("task=mrpc,seed=1").to_json(made.choose())
    assert (shown["whole"]["runs"], sum(shown["counts"].values())) == (4, 2)
    for conditions, message in {
        "colour=red": "--only colour=red: no run has a colour; use method, rank, role, seed, task",
        "task=sst2": "--only task=sst2: no run is there; task is one of cola, mnli, mrpc",
        "task": "'task' is no key=value",
        "task=cola,seed=1": "no run is there; give fewer conditions",
    }.items():
        with pytest.raises(UserError, match=message):
            made.only(conditions)


def test_finished_runs_cost_nothing_more_and_partial_ones_what_is_left(runs: list[Planned]) -> None:
    whole = plan(runs)
    leave(runs[0].spec, "finished")
    half = whole.entries[1].cost.steps // 2
    checkpoint(runs[1].spec.folder, half)
    now = plan(runs)
    assert now.entries[0].left_hours == 0
    cost = now.entries[1].cost
    assert now.entries[1].left_hours == pytest.approx(cost.gpu_hours - cost.train_seconds / 7200, rel=1e-3)
    assert now.to_json(now.choose())["whole"] == whole.to_json(whole.choose())["whole"]


def test_what_does_not_fit_is_one_line_with_the_mend(tmp_path: Path) -> None:
    big = planned(tmp_path, "task=math/metamathqa", "model=gemma-7b", "rank=64", task="math")
    made = plan([big])
    with pytest.raises(UserError) as refused:
        made.check_fit(made.choose().runs)
    text = str(refused.value)
    assert "\n" not in text and text.startswith("math needs ") and "h100 has 79.0" in text
    rows = int(text.partition("trainer.device_batch_size=")[2].split()[0])
    fitting = big.spec.replace(trainer=dataclasses.replace(big.spec.trainer, device_batch_size=rows))
    assert estimate(fitting, H100).peak_gib <= H100.memory_gib < estimate(big.spec, H100).peak_gib
    assert fitting.signature == big.spec.signature  # it changes no result
    plan([dataclasses.replace(big, spec=fitting)]).check_fit(made.choose().runs[:0])


def test_a_whole_model_that_fits_no_gpu_is_to_be_shared_out(tmp_path: Path) -> None:
    def refusal(*words: str) -> str:
        run = planned(tmp_path, "task=math/metamathqa", "method=full_ft", *words, task="math")
        with pytest.raises(UserError) as refused:
            plan([run]).check_fit(plan([run]).choose().runs)
        return str(refused.value).partition("; ")[2]

    mend = "trainer.processes=4 trainer.sharding=fsdp trainer.gradient_checkpointing=true"
    assert refusal("trainer.precision=bf16") == f"{mend} fits (and changes no result)"
    four = ["trainer.precision=bf16", *mend.split()]
    fitting = plan([planned(tmp_path, "task=math/metamathqa", "method=full_ft", *four, task="math")])
    fitting.check_fit(fitting.choose().runs)
    assert refusal("trainer.precision=fp16") == "it does not fit there with any micro-batch; name a larger --device"


def test_the_plan_is_printed_with_its_assumptions(runs: list[Planned]) -> None:
    leave(runs[3].spec, "failed")
    console = Console(width=130, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    made = plan(runs)
    print_plan(made.only("task=cola"), made.choose(), console)
    text = console.export_text()
    for words in (
        "whole experiment       4 runs",
        "to be run now",
        "3 runs",
        "device hours",
        "peak memory",
        "disk",
        "checkpoints",
        "failed: ",
        "the loss is nan",
        "h100, encoders in fp32: no finished run to calibrate by",
        "AdamW in fp32",
    ):
        assert words in text, words


def test_finished_runs_calibrate_estimates_of_their_device_and_kind(tmp_path: Path) -> None:
    spec = planned(tmp_path, "model=minilm").spec
    cpu = device_named("cpu")
    one_thread = spec.replace(launcher=dataclasses.replace(spec.launcher, threads=1))
    expected = estimate(one_thread, cpu)
    for seed, slower in enumerate((1.8, 2.0, 2.0, 4.0)):
        seconds = {"train_seconds": slower * expected.train_seconds, "steps": expected.steps, "peak_memory_mib": 1000.0}
        leave(spec.replace(seed=seed), "finished", train=seconds, environment=CPU)
    leave(spec.replace(seed=9), "diverged", train=seconds, environment=CPU)
    short = {"train_seconds": 0.5, "steps": expected.steps, "peak_memory_mib": 1000.0}
    leave(spec.replace(seed=10), "finished", train=short, environment=CPU)
    (leave(spec.replace(seed=11), "finished", train=seconds, environment=CPU) / "spec.json").write_text("{")
    found = calibrate([tmp_path])
    assert len(found.fits) == 1
    learned = found.fits[0]
    assert (learned.device, learned.kind, learned.records) == ("cpu2", "encoder", 4)
    assert learned.factor == pytest.approx(2.0)
    assert learned.off == pytest.approx(2.0 / 1.9, rel=0.1) and learned.worst == pytest.approx(2.0, rel=1e-3)
    assert learned.numbers == "fp32" and found.factor(cpu, spec) == learned.factor
    bf16 = spec.replace(trainer=dataclasses.replace(spec.trainer, precision="bf16"))
    decoder = spec.replace(model=dataclasses.replace(spec.model, kind="decoder"))
    assert found.factor(cpu, bf16) == found.factor(cpu, decoder) == found.factor(H100, spec) == 1.0
    made = make_plan("x", [Planned(spec.replace(seed=20), {})], cpu)
    assert made.entries[0].cost.train_seconds == pytest.approx(2 * estimate(spec, cpu).train_seconds)
    told = found.in_words(cpu, [spec, bf16, spec])
    assert told[0].startswith("cpu2, encoders in fp32: 4 finished runs took 2.00 ×")
    assert told[1].startswith("cpu2, encoders in half precision: no finished run") and len(told) == 2


def test_a_single_record_says_nothing_of_how_far_estimates_are_off() -> None:
    alone = fit([Measured("h100", "decoder", "fp32", 1.5, 0.9)])
    assert (alone.factor, alone.off, alone.worst) == (1.5, None, None)
    assert "off by" not in alone.in_words()


def test_a_run_that_stopped_early_calibrates_by_the_steps_it_took(tmp_path: Path) -> None:
    spec = planned(tmp_path, "model=minilm").spec
    expected = estimate(spec.replace(launcher=dataclasses.replace(spec.launcher, threads=1)), device_named("cpu"))
    half = {"train_seconds": expected.train_seconds / 2, "steps": expected.steps // 2, "peak_memory_mib": 1000.0}
    leave(spec, "finished", train=half, environment=CPU)
    assert calibrate([tmp_path]).fits[0].factor == pytest.approx(1.0, rel=1e-3)


def test_no_results_no_calibration(tmp_path: Path) -> None:
    assert calibrate([tmp_path]) == calibrate([tmp_path / "nowhere"]) == Calibration()


def test_an_experiment_without_runs_has_no_plan() -> None:
    with pytest.raises(UserError, match="experiment=x has no runs; its file says why"):
        plan([])


def test_an_experiment_is_named_once() -> None:
    assert experiment_in(["experiment=demo", "seed=0"]) == ("demo", ["seed=0"])
    for words in (["seed=0"], ["experiment=a", "experiment=b"], ["experiment="]):
        with pytest.raises(UserError, match="name one experiment"):
            experiment_in(words)
