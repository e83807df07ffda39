"""The main job on a tiny model: records, reruns, resumes, divergence, starts, equal conditions for all methods."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from interrupted import Killed, killed_at
from safetensors.torch import load_file

from lora_xs.errors import UserError
from lora_xs.lease import Lease, RunBusy
from lora_xs.records import Record, read_attempt, read_record
from lora_xs.runner import run
from lora_xs.spec import RunSpec
from lora_xs.training import milestones

METHODS = ("full_ft", "head_only", "lora", "rslora", "pissa", "vera", "lora_xs", "lora_sb")


def trained(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors a run left, by file and name."""
    files = sorted((folder / "adapter").rglob("*.safetensors"))
    return {f"{f.relative_to(folder)}:{name}": t for f in files for name, t in load_file(f).items()}


def outcome(record: Record, folder: Path) -> tuple[dict, str, dict[str, list]]:
    """Everything of a run that must not depend on interruptions."""
    ignore = {"factors", "seconds", "train_seconds", "tokens_per_second", "peak_memory_mib"}
    train = {k: v for k, v in record.train.items() if k not in ignore}
    return train, (folder / "metrics.jsonl").read_text(), {k: v.tolist() for k, v in trained(folder).items()}


def test_a_run_leaves_its_spec_record_metrics_and_an_r_only_adapter(tiny_run) -> None:
    spec = tiny_run()
    record = run(spec, command="python train.py")
    folder = spec.folder
    assert {p.name for p in folder.iterdir()} == {"spec.json", "record.json", "metrics.jsonl", "adapter", "log.txt"}
    assert RunSpec.from_json(json.loads((folder / "spec.json").read_text())) == spec
    assert read_record(folder) == record
    assert (record.status, record.run["signature"], record.run["seed"]) == ("finished", spec.signature, 0)
    train = record.train
    assert train["parameters"]["adapter"] == 8 * 4 * 4 and train["parameters"]["head"] == 2 * 32 + 2
    assert train["steps"] == 12 and [e["epoch"] for e in train["evaluations"]] == [1.0, 2.0]
    assert train["best"]["matthews"] == max(e["matthews"] for e in train["evaluations"])
    assert train["last"] == train["evaluations"][-1]
    assert set(train["seconds"]) == {"rows", "model", "tokens", "adapter", "training", "saving"}
    assert record.environment["versions"]["torch"] == torch.__version__
    assert len(record.environment["model"]["files"]["model.safetensors"]) == 64
    names = list(load_file(folder / "adapter" / "last" / "adapter_model.safetensors"))
    assert sum("lora_R" in name for name in names) == 8 and not any("lora_A" in n or "lora_B" in n for n in names)
    assert set(load_file(folder / "adapter" / "last" / "head.safetensors")) == {"classifier.weight", "classifier.bias"}


def test_the_record_names_no_path_of_the_machine(tiny_run, tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
    spec = tiny_run("trainer.epochs=1")
    run(spec)
    for name in ("record.json", "adapter/last/adapter_config.json"):
        text = (spec.folder / name).read_text()
        assert str(tiny_model) not in text and str(tiny_data) not in text and str(tmp_path) not in text


def test_a_finished_run_is_shown_not_trained_again_unless_forced(tiny_run) -> None:
    spec = tiny_run("trainer.epochs=1")
    first = run(spec)
    stamp = (spec.folder / "record.json").stat().st_mtime_ns
    assert run(spec) == first and (spec.folder / "record.json").stat().st_mtime_ns == stamp
    again = run(spec, force=True)
    assert again.run["started"] >= first.run["started"]
    assert (spec.folder / "record.json").stat().st_mtime_ns != stamp
    assert again.train["evaluations"] == first.train["evaluations"]


def test_the_same_spec_elsewhere_gives_the_same_bits(tiny_run, tmp_path: Path) -> None:
    one, other = tiny_run(f"results={tmp_path}/one"), tiny_run(f"results={tmp_path}/other")
    assert outcome(run(one), one.folder) == outcome(run(other), other.folder)


@pytest.mark.parametrize("step", [1, 3, 6, 7, 11])
def test_a_killed_run_resumes_to_the_same_bits(tiny_run, tmp_path: Path, step: int) -> None:
    undisturbed = tiny_run(f"results={tmp_path}/whole", "trainer.log_steps=4")
    expected = outcome(run(undisturbed), undisturbed.folder)
    spec = tiny_run(f"results={tmp_path}/killed", "trainer.log_steps=4", "trainer.checkpoint_seconds=0")
    with killed_at(step):
        run(spec)
    assert read_record(spec.folder) is None
    (spec.folder / "lease.json").unlink(missing_ok=True)
    assert outcome(run(spec), spec.folder) == expected


@pytest.mark.parametrize("method", METHODS)
def test_every_method_resumes_to_the_same_bits(tiny_run, tmp_path: Path, method: str) -> None:
    settings = [f"method={method}", "trainer.max_steps=6", "trainer.learning_rate=1e-3"]
    undisturbed = tiny_run(*settings, f"results={tmp_path}/whole")
    expected = outcome(run(undisturbed), undisturbed.folder)
    spec = tiny_run(*settings, f"results={tmp_path}/killed", "trainer.checkpoint_seconds=0")
    with killed_at(3):
        run(spec)
    assert outcome(run(spec), spec.folder) == expected


def test_a_corrupt_newest_checkpoint_costs_steps_not_the_result(tiny_run, tmp_path: Path) -> None:
    undisturbed = tiny_run(f"results={tmp_path}/whole")
    expected = outcome(run(undisturbed), undisturbed.folder)
    spec = tiny_run(f"results={tmp_path}/killed", "trainer.checkpoint_seconds=0")
    with killed_at(5):
        run(spec)
    newest = sorted((spec.folder / "checkpoints").glob("step-*"))[-1]
    (newest / "trainable.safetensors").write_bytes(b"rubbish")
    assert outcome(run(spec), spec.folder) == expected


def test_a_resumed_run_refuses_other_data(tiny_run, tiny_data: Path, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "data"
    shutil.copytree(tiny_data, root)
    spec = tiny_run(f"data.root={root}", "trainer.checkpoint_seconds=0")
    with killed_at(3):
        run(spec)
    file = root / "glue" / "cola" / "train.jsonl"
    file.write_text(file.read_text().replace("cat", "dog", 1))
    with pytest.raises(UserError, match="data, tokens changed since this run began"):
        run(spec)


def test_a_stop_request_writes_a_checkpoint_and_the_run_goes_on(tiny_run, tmp_path: Path) -> None:
    import os
    import signal

    from lora_xs.training.preemption import Preempted

    undisturbed = tiny_run(f"results={tmp_path}/whole")
    expected = outcome(run(undisturbed), undisturbed.folder)
    spec = tiny_run(f"results={tmp_path}/stopped")
    patch = pytest.MonkeyPatch()
    usual = milestones.Milestones.on_step_end

    def on_step_end(callback, args, state, control, **rest):
        if state.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return usual(callback, args, state, control, **rest)

    patch.setattr(milestones.Milestones, "on_step_end", on_step_end)
    with pytest.raises(Preempted) as stopped:
        run(spec)
    patch.undo()
    assert stopped.value.signum == signal.SIGTERM
    attempt = read_attempt(spec.folder)
    assert attempt is not None and attempt.status == "cancelled"
    assert [p.name for p in (spec.folder / "checkpoints").iterdir()] == ["step-00000004"]
    assert outcome(run(spec), spec.folder) == expected
    assert read_attempt(spec.folder) is None


def test_a_run_in_another_process_is_left_alone(tiny_run) -> None:
    spec = tiny_run()
    with Lease(spec.folder), pytest.raises(RunBusy):
        run(spec)


def test_a_loss_that_is_not_finite_is_a_diverged_record_that_says_where(tiny_run) -> None:
    spec = tiny_run("trainer.learning_rate=1e30", "trainer.head_learning_rate=1e30", "trainer.max_grad_norm=0")
    record = run(spec)
    assert record.status == "diverged"
    assert 1 <= record.run["error"]["step"] <= 12 and "the loss is" in record.run["error"]["what"]
    assert read_record(spec.folder) == record and (spec.folder / "metrics.jsonl").is_file()
    assert all(math.isfinite(v) for line in record.train["evaluations"] for v in (line["matthews"], line["loss"]))


def test_answers_that_collapse_to_a_constant_are_a_diverged_record(tiny_run, monkeypatch: pytest.MonkeyPatch) -> None:
    from lora_xs.training import labels

    usual, calls = labels.scorer, []

    def scorer(spec):
        score = usual(spec)

        def scored(prediction):
            calls.append(1)
            return {**score(prediction), "constant_prediction": len(calls) > 1}

        return scored

    monkeypatch.setattr(labels, "scorer", scorer)
    record = run(tiny_run("trainer.epochs=3"))
    assert (record.status, record.run["error"]["epoch"]) == ("diverged", 2.0)
    assert len(record.train["evaluations"]) == 3


def test_all_methods_see_the_same_batches_and_start_from_the_same_head(tiny_run, monkeypatch) -> None:
    heads = {}
    from lora_xs.training import trainer as room

    usual = room.RunTrainer.__init__

    def watched(self, spec, folder, **arguments):
        named = arguments["model"].named_parameters()
        heads[spec.method.name] = {n.split(".classifier.")[-1].removeprefix("classifier."): p.detach().clone()
                                   for n, p in named if "classifier" in n}  # fmt: skip
        usual(self, spec, folder, **arguments)

    monkeypatch.setattr(room.RunTrainer, "__init__", watched)
    records = {m: run(tiny_run(f"method={m}", "trainer.epochs=1", "trainer.learning_rate=1e-3")) for m in METHODS}
    assert len({r.train["batches_digest"] for r in records.values()}) == 1
    assert len({(r.train["steps"], r.train["tokens"]) for r in records.values()}) == 1
    for head in heads.values():
        assert all(torch.equal(head[name], heads["full_ft"][name]) for name in ("weight", "bias"))
    counts = {m: r.train["parameters"]["adapter"] for m, r in records.items()}
    assert counts["head_only"] == 0 and counts["lora_xs"] == 8 * 16
    assert counts["pissa"] == counts["rslora"] == sum(4 * (i + o) for i, o in [(32, 32)] * 6 + [(64, 32)] * 2)
    assert counts["lora"] == 4 * 4 * (32 + 32) and counts["vera"] == 4 * (4 + 32)  # query and value, as in Table 1


def test_another_seed_means_other_batches_and_another_r(tiny_run) -> None:
    one, other = tiny_run("trainer.epochs=1"), tiny_run("trainer.epochs=1", "seed=1")
    assert run(one).train["batches_digest"] != run(other).train["batches_digest"]


def test_accumulated_micro_batches_take_the_same_step_as_the_whole_batch(tiny_run, tmp_path: Path) -> None:
    # 96 rows in batches of 20: the last batch has 16 rows, its micro-batches of 8 too: uneven on purpose
    still = ["trainer.batch_size=20", "trainer.epochs=1", "init.std=0.1"]
    whole = tiny_run(*still, f"results={tmp_path}/whole")
    parts = tiny_run(*still, f"results={tmp_path}/parts", "trainer.device_batch_size=4")
    assert whole.signature == parts.signature
    patch = pytest.MonkeyPatch()
    patch.setattr("torch.nn.functional.dropout", lambda x, p=0.5, training=True, inplace=False: x)
    patch.setattr("torch.nn.Dropout.forward", lambda self, x: x)
    specs = [dataclasses.replace(s, model=dataclasses.replace(s.model, attention="eager")) for s in (whole, parts)]
    records = [run(s) for s in specs]
    patch.undo()
    one, other = (trained(s.folder) for s in specs)
    for name in one:
        if "fingerprint" not in name:
            torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-6)
    assert records[0].train["batches_digest"] == records[1].train["batches_digest"]


def test_regression_is_trained_and_scored_as_such(tiny_run) -> None:
    record = run(tiny_run("task=glue/stsb", "model=minilm", "trainer.epochs=1"))
    assert set(record.train["best"]) >= {"pearson", "spearman"}
    assert record.train["parameters"]["head"] == 33


def test_start_from_loads_r_with_a_fresh_head_unless_asked(tiny_run, tmp_path: Path, monkeypatch) -> None:
    source = tiny_run("trainer.epochs=1", "init.std=0.1")
    run(source)
    seen = {}
    from lora_xs.training import trainer as room

    usual = room.RunTrainer.__init__

    def watched(self, spec, folder, **arguments):
        seen[spec.start_from.head] = {n: p.detach().clone() for n, p in arguments["model"].named_parameters()}
        usual(self, spec, folder, **arguments)

    monkeypatch.setattr(room.RunTrainer, "__init__", watched)
    for head in ("false", "true"):
        run(tiny_run("trainer.epochs=1", f"start_from={source.folder}", f"start_from.head={head}"))
    left = trained(source.folder)
    prefix = "adapter/best/adapter_model.safetensors:"
    left_r = {n.removeprefix(prefix): t for n, t in left.items() if n.startswith(prefix) and n.endswith("lora_R")}
    for started in seen.values():
        assert len(left_r) == 8 and all(torch.equal(started[f"{n}.default"], t) for n, t in left_r.items())
    weight = left["adapter/best/head.safetensors:classifier.weight"]
    name = next(n for n in seen[True] if n.endswith("classifier.weight"))
    assert torch.equal(seen[True][name], weight) and not torch.equal(seen[False][name], weight)


def test_starting_from_another_rank_or_method_says_what_differs(tiny_run) -> None:
    source = tiny_run("trainer.epochs=1")
    run(source)
    with pytest.raises(UserError, match="saved with r=4, this run has r=2"):
        run(tiny_run("rank=2", f"start_from={source.folder}"))
    with pytest.raises(UserError, match="peft_type"):
        run(tiny_run("method=lora", "rank=4", f"start_from={source.folder}"))


def test_early_stopping_happens_only_when_asked(tiny_run) -> None:
    still = ["trainer.learning_rate=0", "trainer.head_learning_rate=0", "trainer.epochs=4"]
    assert len(run(tiny_run(*still)).train["evaluations"]) == 4
    assert len(run(tiny_run(*still, "trainer.early_stopping=2")).train["evaluations"]) == 3


@pytest.mark.parametrize(
    "settings",
    [
        ["trainer.max_steps=4"],
        ["trainer.learning_rate=0", "trainer.head_learning_rate=0", "trainer.epochs=4", "trainer.early_stopping=1"],
    ],
    ids=["in the middle of an epoch", "out of patience"],
)
def test_a_run_killed_after_its_training_trains_no_further(tiny_run, tmp_path: Path, monkeypatch, settings) -> None:
    undisturbed = tiny_run(*settings, f"results={tmp_path}/whole")
    expected = outcome(run(undisturbed), undisturbed.folder)
    spec = tiny_run(*settings, f"results={tmp_path}/killed")

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("lora_xs.runner._Attempt._save", killed)
        run(spec)
    (spec.folder / "lease.json").unlink(missing_ok=True)
    record = run(spec)
    assert outcome(record, spec.folder) == expected
    first, second = record.run["attempts"]
    assert record.run["started"] == first["started"] <= second["started"]
    assert record.train["seconds"]["training"] >= record.train["train_seconds"] * 0.5
    assert record.run["seconds"] >= record.train["seconds"]["training"]


def test_a_forced_run_looks_unfinished_before_anything_else_goes(tiny_run, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_run("trainer.epochs=1")
    run(spec)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lora_xs.runner.shutil.rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(spec, force=True)
    assert read_record(spec.folder) is None


def test_predictions_beyond_any_loss_are_a_diverged_record(tiny_run, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_run("task=glue/stsb", "trainer.epochs=1")
    usual = milestones.Milestones.on_evaluate
    monkeypatch.setattr(
        milestones.Milestones,
        "on_evaluate",
        lambda self, args, state, control, metrics, **rest: usual(
            self, args, state, control, metrics | {"eval_loss": math.inf}, **rest
        ),
    )
    record = run(spec)
    assert record.status == "diverged" and record.run["error"]["step"] > 0


def test_evaluating_only_at_the_end(tiny_run) -> None:
    record = run(tiny_run("evaluation=end"))
    assert len(record.train["evaluations"]) == 1 and record.train["score"] == record.train["last"]


def test_a_failed_run_leaves_its_evidence_and_can_be_started_again(tiny_run, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_run("trainer.epochs=1")
    with monkeypatch.context() as patch:
        patch.setattr("lora_xs.adapters.attach", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(spec)
    attempt = read_attempt(spec.folder)
    assert attempt is not None and attempt.run["error"]["what"].startswith("ZeroDivisionError")
    assert "Traceback" in (spec.folder / "log.txt").read_text()
    assert run(spec).status == "finished"
