"""vLLM is asked for what was wanted, and its texts come back to their prompts; a stand-in answers for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from peft import get_peft_model

from lora_xs import LoraXsConfig, export_lora
from lora_xs.data.question_set import QuestionSet
from lora_xs.errors import UserError
from lora_xs.evaluation.generation import Completion, Decoding, PromptTooLong, VllmEngine, answer
from lora_xs.evaluation.generation.decoding import Finish


@dataclass
class Calls:
    """What the stand-in was told."""

    made: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[list[dict[str, Any]], Any, Any]] = field(default_factory=list)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    """A module `vllm` that writes a prompt's first token and why it ended."""
    seen = Calls()

    class LLM:
        def __init__(self, **options: Any) -> None:
            seen.made.append(options)

        def generate(self, prompts: list[dict[str, Any]], sampling: Any, *, lora_request: Any, use_tqdm: bool) -> Any:
            seen.asked.append((prompts, sampling, lora_request))
            ends = [("stop", None), ("stop", 105), ("stop", "Instruction:"), ("length", None)]
            return [
                SimpleNamespace(
                    outputs=[
                        SimpleNamespace(
                            text=f" {prompt['prompt_token_ids'][-1]}",
                            token_ids=(7, 8),
                            finish_reason=ends[prompt["prompt_token_ids"][-1] % 4][0],
                            stop_reason=ends[prompt["prompt_token_ids"][-1] % 4][1],
                        )
                    ]
                )
                for prompt in prompts
            ]

    library, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    library.LLM, library.SamplingParams = LLM, SimpleNamespace  # type: ignore[attr-defined]
    request.LoRARequest = lambda *arguments: arguments  # type: ignore[attr-defined]
    for module in (library, lora, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    yield seen


@pytest.fixture
def base(tiny_decoder: Any, tiny_tokenizer: Any, tmp_path: Path) -> Path:
    """The tiny model's folder."""
    tiny_decoder.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_texts_come_back_to_their_prompts(calls: Calls, base: Path, tiny_tokenizer: Any) -> None:
    prompts = ["a", "b", "c", "d", "How many"]
    engine = VllmEngine(base, dtype="float16", rows_at_once=4)
    ids = tiny_tokenizer(prompts)["input_ids"]
    finishes: tuple[Finish, ...] = ("eos", "eos", "stop", "length")
    assert {row[-1] % 4 for row in ids} == {0, 1, 2, 3}
    assert engine.complete(prompts, Decoding(9, 1, ("Instruction:",))) == [
        Completion(f" {row[-1]}", 2, finishes[row[-1] % 4]) for row in ids
    ]
    assert [[one["prompt_token_ids"] for one in asked] for asked, _, _ in calls.asked] == [ids[:4], ids[4:]]


def test_vllm_is_asked_for_greedy_decoding_with_the_same_ends(calls: Calls, base: Path) -> None:
    VllmEngine(base).complete(["a"], Decoding(9, 1, ("Instruction:", "Response")))
    _, sampling, adapter = calls.asked[0]
    assert vars(sampling) == {
        "temperature": 0.0,
        "max_tokens": 9,
        "stop": ["Instruction:", "Response"],
        "stop_token_ids": [1, *range(100, 108)],
    }
    assert adapter is None
    assert calls.made == [
        {
            "model": str(base),
            "dtype": "bfloat16",
            "seed": 0,
            "trust_remote_code": False,
            "generation_config": "vllm",
        }
    ]


@pytest.mark.parametrize(("rank", "room"), [(4, 8), (24, 32)])
def test_an_exported_adapter_is_handed_over(
    calls: Calls, base: Path, tiny_decoder: Any, tmp_path: Path, rank: int, room: int
) -> None:
    adapted = get_peft_model(tiny_decoder, LoraXsConfig(r=rank, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    exported = export_lora(adapted, tmp_path / "plain")
    VllmEngine(base, exported).complete(["a"], Decoding(9))
    assert calls.asked[0][2] == ("adapter", 1, str(exported))
    options = {"enable_lora": True, "max_loras": 1, "max_lora_rank": room}
    assert {name: calls.made[0][name] for name in options} == options


def test_a_set_is_answered_by_it_and_what_is_done_is_not_asked_again(
    calls: Calls, base: Path, questions: QuestionSet, tmp_path: Path
) -> None:
    file = tmp_path / "gsm8k.jsonl"
    engine = VllmEngine(base, rows_at_once=4)
    found = answer(questions, engine, Decoding(9), file, settings={})
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:6]))
    assert answer(questions, engine, Decoding(9), file, settings={}) == found
    assert [len(asked) for asked, _, _ in calls.asked] == [4, 4, 1, 3, 1]


def test_beams_and_long_prompts_are_refused(calls: Calls, base: Path) -> None:
    engine = VllmEngine(base)
    with pytest.raises(UserError, match=r"evaluation\.beams=4 with engine=vllm"):
        engine.complete(["a"], Decoding(9, beams=4))
    with pytest.raises(PromptTooLong, match="prompt 1: "):
        engine.complete(["a", "apples " * 200], Decoding(9))
    assert calls.asked == []


def test_a_missing_vllm_is_one_line_that_names_the_extra(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"lora-xs\[vllm\]") as refused:
        VllmEngine(base)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "no readable LoRA configuration"),
        ({"peft_type": "LORA_XS", "r": 4}, "of type LORA_XS"),
        ({"peft_type": "LORA"}, "no readable"),
        ({"peft_type": "LORA", "r": 8, "rank_pattern": {"q_proj": 1024}}, "rank 1024 is above 512"),
    ],
)
def test_an_adapter_vllm_cannot_take_is_refused_before_it_starts(
    calls: Calls, base: Path, tmp_path: Path, config: dict[str, Any] | None, said: str
) -> None:
    if config is not None:
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=said):
        VllmEngine(base, tmp_path)
    assert calls.made == []
