"""Composition, published values, identity, and every mistake as one line before torch is imported."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lora_xs.errors import UserError
from lora_xs.spec import RunSpec, canonical_json, difference
from lora_xs.spec.compose import compose_spec, options

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE_7 = REPOSITORY / "results" / "published" / "lora_xs" / "table07_glue_hparams.csv"


def spec_of(*overrides: str) -> RunSpec:
    return compose_spec(overrides)


def test_the_papers_run_is_three_words() -> None:
    spec = spec_of("task=glue/mrpc", "method=lora_xs", "rank=16")
    assert (spec.model.name, spec.seed, spec.rank, spec.alpha) == ("roberta-large", 0, 16, 16.0)
    trainer = spec.trainer
    assert (trainer.learning_rate, trainer.head_learning_rate, trainer.epochs) == (1e-3, 6e-4, 50)
    assert (trainer.batch_size, trainer.warmup_ratio, trainer.weight_decay) == (32, 0.06, 0.01)
    assert (trainer.schedule, trainer.max_grad_norm, spec.task.max_length, spec.start_from.run) == (
        "linear",
        1.0,
        128,
        None,
    )
    assert spec.provenance["trainer.learning_rate"] == "LoRA-XS Table 7"


def test_task_configs_carry_table_7_cell_by_cell() -> None:
    rows = list(csv.DictReader(TABLE_7.open()))
    assert len(rows) == 36
    for row in rows:
        spec = spec_of(f"task=glue/{row['task']}", f"rank={row['rank']}")
        ours = (spec.trainer.learning_rate, spec.trainer.head_learning_rate, spec.trainer.epochs)
        assert ours == (float(row["lr"]), float(row["classifier_lr"]), int(row["epochs"])), row


def test_what_is_given_wins_over_what_is_published_and_the_record_can_tell() -> None:
    spec = spec_of("task=glue/mrpc", "rank=16", "trainer.learning_rate=2e-3")
    assert spec.trainer.learning_rate == 2e-3
    assert spec.provenance["trainer.learning_rate"] == "given"
    assert spec.provenance["trainer.epochs"] == "LoRA-XS Table 7"


def test_protocols_differ_where_the_papers_do() -> None:
    spec = spec_of("task=glue/sst2", "rank=16", "protocol=lora_sb")
    assert (spec.trainer.batch_size, spec.trainer.epochs, spec.trainer.max_grad_norm) == (128, 15, 0.0)


def test_a_field_nobody_published_is_named_and_never_guessed() -> None:
    with pytest.raises(UserError, match=r"trainer.learning_rate is an open field.*give trainer.learning_rate="):
        spec_of("model=mistral-7b", "rank=128")


@pytest.mark.parametrize("task", options("task"))
@pytest.mark.parametrize("method", ["full_ft", "head_only", "lora", "rslora", "pissa", "vera", "lora_xs", "lora_sb"])
def test_every_task_composes_with_every_built_method(task: str, method: str) -> None:
    if method == "head_only" and not task.startswith(("glue", "reviews")):
        with pytest.raises(UserError, match="a language model has no new head"):
            spec_of(f"task={task}", f"method={method}")
        return
    spec = spec_of(f"task={task}", f"method={method}")
    assert RunSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_all_seven_models_of_the_papers_and_both_packaged_ones_are_offered() -> None:
    papers = {"roberta-large", "mistral-7b", "gemma-7b", "gemma2-9b", "llama2-7b", "llama3-8b", "llama3.2-3b"}
    assert papers | {"minilm", "smollm2_135m"} == set(options("model"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rank=17"], "give rank.r=17"),
        (["method=nope"], "method=nope is unknown; choose one of full_ft"),
        (["trainer.lr=1"], "unknown key trainer.lr"),
        (["+trainer.learning_rat=1"], "unknown key trainer.learning_rat; did you mean trainer.learning_rate"),
        (["trainer.epochs=x"], "trainer.epochs='x' must be a whole number"),
        (["trainer.epochs=0"], "trainer.epochs=0 must be at least 1"),
        (["trainer.precision=fp8"], "choose one of fp32, tf32, bf16, fp16"),
        (["trainer.betas=0.9"], "must be a list"),
        (["trainer.learning_rate=-1"], "must not be negative"),
        (["trainer.learning_rate=inf"], "must be a finite number"),
        (["method=vera", "init=update"], "init=update does not go with method=vera; allowed: method"),
        (["rank.r=385"], "rank.r=385 is above 384"),
        (["rank.r=0"], "must be a whole number of at least 1"),
        (["method=full_ft", "model.quantization=int8"], "cannot be trained by method=full_ft"),
        (["method=pissa", "model.quantization=nf4"], "cannot be trained by method=pissa"),
        (["method=vera", "method.d_initial=null"], "method.d_initial=None is VeRA's"),
        (["method=lora", "method.save_factors=true"], "has no meaning for method=lora"),
        (["trainer.device_batch_size=5"], "not a multiple of"),
        (["task.main_metric=pearson"], "is not among task.metrics"),
        (["start_from="], "start_from.run= has no value"),
        (["data.root="], "data.root= has no value"),
        (["start_from=nowhere"], "no adapter_model.safetensors"),
        (["launcher=slurm"], "use launcher=local"),
        (["task=glue/mrpc", "rank=16", "model=llama3-8b", "trainer.learning_rate=1e-3"], "is a decoder"),
        (["force=maybe"], "force='maybe' must be true or false"),
    ],
)
def test_a_mistake_is_one_line_exit_2_and_imports_no_torch(
    overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from lora_xs.command import main

    assert main(overrides) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1 and printed.out == ""


def test_help_and_mistakes_never_import_torch() -> None:
    program = (
        "import sys; from lora_xs.command import main;"
        "statuses = [main(['--help']), main(['rank=17']), main(['--spec']), main(['--cfg'])];"
        "assert statuses == [0, 2, 0, 0], statuses; heavy = {'torch', 'transformers', 'datasets'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_signature_ignores_what_cannot_change_a_result() -> None:
    base = spec_of()
    same = spec_of(
        "results=elsewhere",
        "data.root=somewhere",
        "logger=wandb",
        "launcher.threads=1",
        "trainer.device_batch_size=8",
        "trainer.checkpoint_seconds=5",
        "evaluation.batch_size=7",
    )
    assert base.signature == same.signature
    assert base.folder.name == same.folder.name == f"s0-{base.signature}"


@pytest.mark.parametrize(
    "override",
    ["seed=1", "rank=8", "trainer.learning_rate=3e-3", "init.std=0", "task.train_rows=100", "init=svd_w_bottom",
     "protocol=lora_sb", "trainer.precision=bf16", "method.dropout=0.1", "model.dtype=bfloat16"],
)  # fmt: skip
def test_signature_changes_with_whatever_can_change_a_result(override: str) -> None:
    one, other = spec_of(), spec_of(override)
    assert one.signature != other.signature
    key = (
        override.partition("=")[0].replace("init", "init.part")
        if override.startswith("init=")
        else override.partition("=")[0]
    )
    assert key in difference(json.loads(canonical_json(one)), json.loads(canonical_json(other)))


def test_signature_of_the_papers_run_is_pinned() -> None:
    # a change here means old records no longer answer to their spec: raise PROTOCOL_VERSION and say so in CHANGELOG.md
    assert spec_of("task=glue/mrpc", "method=lora_xs", "rank=16").signature == "968f094ab338"


def test_warm_up_of_a_run_that_starts_from_another_task_follows_the_code(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"content")
    spec = spec_of("task=glue/rte", "rank=16", f"start_from={tmp_path}")
    assert spec.trainer.warmup_ratio == 0.0
    assert spec.start_from.content is not None and spec.signature != spec_of("task=glue/rte", "rank=16").signature
