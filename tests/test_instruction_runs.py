"""Instruction tuning end to end on a tiny decoder: loss, tests answered, interruptions, selection, equal conditions."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from interrupted import Killed, killed_at
from safetensors.torch import load_file
from tiny_decoders import save_decoder

from lora_xs.errors import UserError
from lora_xs.evaluation.generation import read_generations
from lora_xs.records import read_record
from lora_xs.runner import run
from lora_xs.spec import RunSpec
from lora_xs.spec.compose import compose_spec

METHODS = ("full_ft", "lora", "rslora", "pissa", "vera", "lora_xs", "lora_sb")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(tmp_path_factory.mktemp("decoder"), "llama", "smollm")


@pytest.fixture
def tuned(folder: Path, tmp_path: Path):
    """A function (overrides) -> RunSpec of a run of seconds: 24 word problems, 8 held out, 5 asked."""

    def spec(*overrides: str) -> RunSpec:
        return compose_spec(
            [
                "task=word_problems",
                f"model.path={folder}",
                "model.package=null",
                "model.architecture={}",
                f"results={tmp_path}",
                "rank.r=4",
                "task.train_rows=24",
                "task.validation_rows=8",
                "task.test_rows=5",
                "task.max_length=400",
                "trainer.batch_size=6",
                "trainer.learning_rate=5e-2",
                "evaluation.max_new_tokens=6",
                *overrides,
            ]
        )

    return spec


def outcome(spec: RunSpec) -> tuple:
    """All of a run that interruptions must not change."""
    record = run(spec)
    timed = {"factors", "seconds", "train_seconds", "tokens_per_second", "peak_memory_mib", "tests"}
    _, completions = read_generations(spec.folder / "generations" / "word_problems.jsonl")
    weights = load_file(spec.folder / "adapter" / "last" / "adapter_model.safetensors")
    return (
        {key: value for key, value in record.train.items() if key not in timed},
        (spec.folder / "metrics.jsonl").read_text(),
        sorted((one.id, one.completion) for one in completions),
        {name: tensor.tolist() for name, tensor in weights.items()},
    )


def test_a_run_learns_answers_its_test_and_says_all_of_it_in_its_record(tuned) -> None:
    spec = tuned("trainer.epochs=3")
    record = run(spec)
    train = record.train
    assert record.status == "finished" and read_record(spec.folder) == record
    assert train["start"]["step"] == 0 and len(train["evaluations"]) == 3
    assert train["last"]["response_loss"] < train["start"]["response_loss"] - 0.02
    assert train["selected"] == {"which": "last", "step": 12, "epoch": 3.0}
    assert train["silent_rows"] == train["truncated_rows"] == {"train": 0, "validation": 0}
    test = train["tests"]["word_problems"]
    assert test["n"] == 5 and set(test["scores"]) >= {"strict", "published"} and test["scorer"] == "strict"
    assert test["decoding"]["max_new_tokens"] == 6 and 0 < test["tokens"] <= 30
    header, completions = read_generations(spec.folder / "generations" / "word_problems.jsonl")
    assert header["settings"]["signature"] == spec.signature and len(completions) == 5
    assert record.environment["tokenizer"]["eos"]["token"] == "<|im_end|>"
    assert record.environment["tests"]["word_problems"]["rows"] == 5
    assert not list(spec.folder.glob("checkpoints")) and not (spec.folder / "inputs.json").exists()


def test_all_methods_see_the_same_batches_and_all_of_them_train(tuned) -> None:
    records = {method: run(tuned(f"method={method}", "trainer.learning_rate=1e-2")) for method in METHODS}
    assert len({record.train["batches_digest"] for record in records.values()}) == 1
    assert len({record.train["tokens"] for record in records.values()}) == 1
    for method, record in records.items():
        assert record.train["parameters"]["head"] == 0, method
        assert record.train["last"]["response_loss"] < record.train["start"]["response_loss"], method
    update = records["lora_sb"].train["factors"]["update"]
    assert update["samples"] == 24 and update["digest"] and update["eta"] > 0


@pytest.mark.parametrize("loss", [["trainer.loss=tokens"], ["trainer.loss=micro_batches", "trainer.loss_rows=2"]])
def test_the_result_does_not_depend_on_what_a_device_holds_nor_on_padding(
    tuned, tmp_path: Path, loss: list[str]
) -> None:
    layouts = [["trainer.device_batch_size=6"], ["trainer.device_batch_size=2"], ["trainer.device_batch_size=1"]]
    layouts += [[*layouts[0], "trainer.padding=free"], [*layouts[1], "trainer.padding=max_length"]]
    ends = []
    for index, layout in enumerate(layouts):
        spec = tuned(*loss, *layout, "init.std=0.1", f"results={tmp_path}/{index}", "task.test_rows=1")
        record = run(spec)
        weights = load_file(spec.folder / "adapter" / "last" / "adapter_model.safetensors")
        R = torch.cat([tensor.flatten() for name, tensor in sorted(weights.items()) if "lora_R" in name])
        ends.append((record.train["evaluations"][-1]["train_loss"], R, record.train["batches_digest"]))
    for train_loss, R, digest in ends[1:]:
        assert abs(train_loss - ends[0][0]) < 1e-5 * ends[0][0]
        assert (R - ends[0][1]).norm() < 1e-3 * R.norm()  # AdamW's first steps divide rounding by itself
        assert digest == ends[0][2]


@pytest.mark.parametrize("method", ["lora_xs", "lora_sb"])
def test_a_run_killed_in_training_resumes_to_the_same_bits_and_completions(tuned, tmp_path: Path, method: str) -> None:
    expected = outcome(tuned(f"method={method}", f"results={tmp_path}/whole"))
    spec = tuned(f"method={method}", f"results={tmp_path}/killed", "trainer.checkpoint_seconds=0")
    with killed_at(3):
        run(spec)
    assert outcome(spec) == expected


def test_a_run_killed_while_it_answers_goes_on_with_what_is_missing(
    tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lora_xs.evaluation.generation import answering as room

    small = "evaluation.generation_tokens=1"  # a row a batch
    expected = outcome(tuned(small, f"results={tmp_path}/whole"))
    spec = tuned(small, f"results={tmp_path}/killed")
    usual, written = room.append, []

    def append(file, made):
        usual(file, made)
        written.extend(made)
        if len(written) == 3:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(room, "append", append)
        run(spec)
    assert read_record(spec.folder) is None and len(written) == 3
    monkeypatch.setattr(room, "append", lambda file, made: (usual(file, made), written.extend(made)))
    assert outcome(spec) == expected
    assert len({one.id for one in written}) == len(written) == 5


def test_best_is_the_lowest_validation_loss_and_it_answers_the_tests(tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    from lora_xs.evaluation import examination

    seen = []
    usual = examination.examine

    def examine(spec, model, *arguments, **named):
        seen.append({name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad})
        return usual(spec, model, *arguments, **named)

    monkeypatch.setattr(examination, "examine", examine)
    settings = ["evaluation.every=steps", "evaluation.steps=2", "evaluation.select=best", "trainer.schedule=constant"]
    spec = tuned(*settings, "trainer.epochs=3", "trainer.learning_rate=1.5")
    train = run(spec).train
    assert [line["step"] for line in train["evaluations"]] == [2, 4, 6, 8, 10, 12]
    losses = [line["response_loss"] for line in train["evaluations"]]
    assert train["best"]["response_loss"] == min(losses) and min(losses) < losses[-1]
    assert train["selected"]["which"] == "best" and train["selected"]["step"] == train["best"]["step"]
    saved = load_file(spec.folder / "adapter" / "best" / "adapter_model.safetensors")
    for name, parameter in seen[0].items():
        assert torch.equal(saved[name.replace(".default", "")], parameter)


def test_merged_and_unmerged_answer_alike(tuned, tmp_path: Path) -> None:
    texts = []
    for merged in ("false", "true"):
        spec = tuned(f"evaluation.merged={merged}", f"results={tmp_path}/{merged}", "init.std=0.1")
        run(spec)
        texts.append(
            [one.completion for one in read_generations(spec.folder / "generations" / "word_problems.jsonl")[1]]
        )
    assert texts[0] == texts[1]


def commonsense(root: Path, *names: str) -> Path:
    """OpenBookQA-like files of 30 training rows and 6 questions, for each test of these folders."""
    for name, split, count in ((name, *of) for name in names for of in (("train", 30), ("test", 6))):
        rows = []
        for index in range(count):
            label = f"answer{index % 4 + 1}"
            offered = " ".join(f"Answer{k}: {'yes' if f'answer{k}' == label else 'no'}" for k in range(1, 5))
            asked = f"Please choose the correct answer to the question: {index}?\n\n{offered}\n\n"
            asked += "Answer format: answer1/answer2/answer3/answer4"
            rows.append(
                {"instruction": asked, "input": "", "output": f"the correct answer is {label}", "answer": label}
            )
        file = root / "commonsense" / name / f"{split}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(rows))
    return root


def test_multiple_choice_is_read_by_generation_and_by_likelihood(tuned, tmp_path: Path) -> None:
    root = commonsense(tmp_path / "data", "openbookqa")
    spec = tuned(
        "task=commonsense/merged",
        f"data.root={root}",
        "task.tests=[obqa]",
        "task.test_rows=null",
        "task.train_rows=20",
        "evaluation.reading=both",
        "evaluation.every=epoch",
        "task.max_length=600",
    )
    test = run(spec).train["tests"]["obqa"]
    assert test["n"] == 6 and test["scorer"] == "strict" and test["decoding"]["beams"] == 4
    assert set(test["likelihood"]) == {"sum", "per_token"} and 0 <= test["likelihood"]["sum"] <= 100
    lines = (spec.folder / "likelihoods" / "obqa.jsonl").read_text().splitlines()
    assert len(lines) == 7 and len(json.loads(lines[1])["log_likelihoods"]) == 4  # the first is the header
    assert test["not_finite"] == test["unjudged"] == 0
    header, completions = read_generations(spec.folder / "generations" / "obqa.jsonl")
    assert header["decoding"]["beams"] == 4 and len(completions) == 6


def test_likelihoods_that_were_all_there_when_a_run_was_killed_are_not_computed_again(
    tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lora_xs.evaluation import likelihood as room

    spec = tuned(
        "task=commonsense/merged",
        f"data.root={commonsense(tmp_path / 'data', 'openbookqa', 'ARC-Easy')}",
        "task.tests=[obqa,arc_easy]",
        "task.test_rows=null",
        "task.train_rows=20",
        "evaluation.reading=likelihood",
        "evaluation.max_new_tokens={word_problems: 6}",  # none of the two generates, so none needs a limit
        "task.max_length=600",
    )
    usual, begun = room.choice_log_likelihoods, []

    def compute(model, tokenizer, questions, **settings):
        begun.append(questions.name)
        if begun == ["obqa", "arc_easy"]:
            raise Killed
        return usual(model, tokenizer, questions, **settings)

    monkeypatch.setattr(room, "choice_log_likelihoods", compute)
    with pytest.raises(Killed):
        run(spec)
    tests = run(spec).train["tests"]
    assert begun == ["obqa", "arc_easy", "arc_easy"] and set(tests) == {"obqa", "arc_easy"}
    monkeypatch.undo()
    again = run(spec, force=True).train["tests"]
    assert [again[name]["likelihood"] for name in tests] == [tests[name]["likelihood"] for name in tests]


def test_what_its_tests_lack_is_said_before_a_run_trains(tuned, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"word_problems/\d+: \d+ tokens and 5000 new ones are more than"):
        run(tuned("evaluation.max_new_tokens=5000"))
    if importlib.util.find_spec("vllm") is None:
        with pytest.raises(UserError, match="engine=vllm needs vLLM; run `pip install"):
            run(tuned("evaluation.engine=vllm"))
    assert not list(tmp_path.rglob("adapter")) and not list(tmp_path.rglob("metrics.jsonl"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["method=head_only"], "head_only has nothing to train"),
        (["model=minilm"], "needs a decoder"),
        (["trainer.loss=rows"], "trainer.loss=rows"),
        (["trainer.loss=micro_batches"], "loss_rows"),
        (["trainer.loss=micro_batches", "trainer.loss_rows=4"], "not a multiple of trainer.loss_rows"),
        (["task.tests=[gsm9k]"], "gsm9k"),
        (["task.prompt=alpaca_v0"], "task.prompt=alpaca_v0"),
        (["evaluation.every=steps"], "evaluation.steps"),
        (["evaluation.engine=vllm", "evaluation.beams=2"], "vllm decodes greedily"),
        (["evaluation.engine=vllm", "method=vera"], "plain LoRA"),
        (["evaluation.max_new_tokens={gsm8k: 3}"], "no limit for word_problems"),
        (["evaluation.max_new_tokens={gsm8k: 3}", "evaluation.reading=likelihood"], "no limit for word_problems"),
        (
            ["task=math/metamathqa", "rank.r=128", "trainer.learning_rate=null"],
            "trainer.learning_rate is an open field",
        ),
    ],
)
def test_mistakes_are_said_in_a_line_before_anything_is_loaded(tuned, overrides: list[str], said: str) -> None:
    with pytest.raises(UserError) as error:
        run(tuned(*overrides))
    assert said in str(error.value) and "\n" not in str(error.value)
