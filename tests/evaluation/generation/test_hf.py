"""Batches change nothing: completions are those of plain decoding, one prompt at a time, whatever model it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import GenerationConfig

from lora_xs import LoraXsConfig
from lora_xs.data.question_set import QuestionSet
from lora_xs.errors import UserError
from lora_xs.evaluation.generation import Completion, Decoding, HfEngine, PromptTooLong

PROMPTS = [
    "a",
    "How many apples",
    "There were 12 and 5 were eaten. " * 4,
    "x = 7.",
    "the correct answer is",
    "###",
    "?!",
]


@torch.inference_mode()
def greedy(model: Any, tokenizer: Any, prompt: str, limit: int) -> tuple[list[int], bool]:
    """The plain loop, no cache and no padding: new tokens, and whether the last one is an end token."""
    ids = tokenizer(prompt)["input_ids"]
    ends = {tokenizer.eos_token_id, *model.generation_config.eos_token_id}
    new: list[int] = []
    while len(new) < limit and not (new and new[-1] in ends):
        new.append(int(model(torch.tensor([ids + new]), use_cache=False).logits[0, -1].argmax()))
    return new, new[-1] in ends


@pytest.mark.parametrize(("tokens_at_once", "drop_at"), [(16384, 0.25), (16384, 1.0), (130, 0.25), (1, 0.25)])
def test_greedy_batches_give_what_a_plain_loop_gives(
    tiny_decoder: Any, tiny_tokenizer: Any, tokens_at_once: int, drop_at: float
) -> None:
    engine = HfEngine(tiny_decoder, tiny_tokenizer, tokens_at_once=tokens_at_once, drop_at=drop_at)
    found = engine.complete(PROMPTS, Decoding(40))
    expected = []
    for prompt in PROMPTS:
        new, ended = greedy(tiny_decoder, tiny_tokenizer, prompt, 40)
        text = tiny_tokenizer.decode(new, skip_special_tokens=True)
        expected.append(Completion(text, len(new), "eos" if ended else "length"))
    assert found == expected
    assert {completion.finish for completion in found} == {"eos", "length"}  # the prompts cover both
    assert len({completion.tokens for completion in found}) > 3


def test_the_same_batches_give_the_same_completions_again(tiny_decoder: Any, tiny_tokenizer: Any) -> None:
    engine = HfEngine(tiny_decoder, tiny_tokenizer)
    for beams in (1, 3):
        first = engine.complete(PROMPTS, Decoding(24, beams))
        torch.manual_seed(beams)
        assert engine.complete(PROMPTS, Decoding(24, beams)) == first


@pytest.mark.parametrize("beams", [2, 4])
def test_beam_search_gives_what_generate_gives_for_one_prompt(
    tiny_decoder: Any, tiny_tokenizer: Any, beams: int
) -> None:
    found = HfEngine(tiny_decoder, tiny_tokenizer).complete(PROMPTS, Decoding(12, beams))
    ends = tiny_decoder.generation_config.eos_token_id
    for prompt, completion in zip(PROMPTS, found, strict=True):
        ids = tiny_tokenizer(prompt, return_tensors="pt")["input_ids"]
        config = GenerationConfig(
            num_beams=beams, do_sample=False, max_new_tokens=12, eos_token_id=ends, pad_token_id=2, use_cache=False
        )
        new = tiny_decoder.generate(ids, generation_config=config)[0, ids.shape[1] :].tolist()
        assert completion.text == tiny_tokenizer.decode(new, skip_special_tokens=True)
        assert completion.tokens == len(new)
        assert completion.finish == ("eos" if new[-1] in ends else "length")


@pytest.mark.parametrize("beams", [1, 3])
def test_sliding_windows_make_no_difference(sliding_decoder: Any, tiny_tokenizer: Any, beams: int) -> None:
    found = HfEngine(sliding_decoder, tiny_tokenizer).complete(PROMPTS, Decoding(24, beams))
    ends = sliding_decoder.generation_config.eos_token_id
    config = GenerationConfig(
        num_beams=beams, do_sample=False, max_new_tokens=24, eos_token_id=ends, pad_token_id=2, use_cache=False
    )
    for prompt, completion in zip(PROMPTS, found, strict=True):
        ids = tiny_tokenizer(prompt, return_tensors="pt")["input_ids"]
        new = sliding_decoder.generate(ids, generation_config=config)[0, ids.shape[1] :].tolist()
        assert (completion.text, completion.tokens) == (tiny_tokenizer.decode(new, skip_special_tokens=True), len(new))


@pytest.mark.parametrize("beams", [1, 3])
def test_text_is_cut_before_a_stop_string_that_lies_across_tokens(
    tiny_decoder: Any, tiny_tokenizer: Any, beams: int
) -> None:
    engine = HfEngine(tiny_decoder, tiny_tokenizer)
    whole = max(engine.complete(PROMPTS, Decoding(40, 1)), key=lambda completion: completion.tokens)
    prompt = PROMPTS[engine.complete(PROMPTS, Decoding(40, 1)).index(whole)]
    middle = len(whole.text) // 2
    stop = whole.text[middle : middle + 4]
    found = engine.complete([prompt, "a"], Decoding(40, beams, (stop, "never written")))[0]
    assert stop not in found.text
    if beams == 1:
        assert found.finish == "stop"
        assert found.text == whole.text[: whole.text.index(stop)]
        assert found.tokens < whole.tokens


def test_a_stop_string_in_the_prompt_or_begun_by_it_stops_nothing(tiny_decoder: Any, tiny_tokenizer: Any) -> None:
    engine = HfEngine(tiny_decoder, tiny_tokenizer)
    prompt = "### Response"
    plain = engine.complete([prompt], Decoding(8))[0]
    begun = "Response" + plain.text[0]
    for beams in (1, 2):
        expected = engine.complete([prompt], Decoding(8, beams))
        assert engine.complete([prompt], Decoding(8, beams, ("Response", begun))) == expected


def test_nothing_of_the_models_generation_configuration_is_used_but_its_end_tokens(
    tiny_decoder: Any, tiny_tokenizer: Any
) -> None:
    plain = {beams: HfEngine(tiny_decoder, tiny_tokenizer).complete(PROMPTS, Decoding(12, beams)) for beams in (1, 3)}
    config = tiny_decoder.generation_config
    config.update(repetition_penalty=5.0, no_repeat_ngram_size=1, min_new_tokens=10, do_sample=True, temperature=3.0)
    config.update(length_penalty=-4.0, early_stopping=True, use_cache=False, suppress_tokens=[5, 6, 7])
    tiny_decoder.config.use_cache = False
    for beams, expected in plain.items():
        assert HfEngine(tiny_decoder, tiny_tokenizer).complete(PROMPTS, Decoding(12, beams)) == expected
    assert tiny_decoder.generation_config is config and config.repetition_penalty == 5.0


def test_the_tokenizers_end_token_ends_although_the_model_names_another(tiny_decoder: Any, tiny_tokenizer: Any) -> None:
    tiny_decoder.generation_config.eos_token_id = 100
    assert HfEngine(tiny_decoder, tiny_tokenizer).ends == [1, 100]


def test_an_adapter_counts_unmerged_merged_and_not_at_all_when_disabled(tiny_decoder: Any, tiny_tokenizer: Any) -> None:
    base = HfEngine(tiny_decoder, tiny_tokenizer).complete(PROMPTS, Decoding(16))
    adapted = get_peft_model(
        copy.deepcopy(tiny_decoder), LoraXsConfig(r=4, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_R" in name:
                parameter.add_(0.2 * torch.eye(4))
    engine = HfEngine(adapted, tiny_tokenizer)
    unmerged = {beams: engine.complete(PROMPTS, Decoding(16, beams)) for beams in (1, 2)}
    assert unmerged[1] != base
    with adapted.disable_adapter():
        assert engine.complete(PROMPTS, Decoding(16)) == base
    assert engine.complete(PROMPTS, Decoding(16)) == unmerged[1]
    merged = HfEngine(adapted.merge_and_unload(), tiny_tokenizer)
    assert {beams: merged.complete(PROMPTS, Decoding(16, beams)) for beams in (1, 2)} == unmerged


def test_a_model_in_training_is_evaluated_and_goes_on_training(tiny_decoder: Any, tiny_tokenizer: Any) -> None:
    tiny_decoder.config.attention_dropout = 0.9
    expected = HfEngine(tiny_decoder, tiny_tokenizer).complete(PROMPTS, Decoding(8))
    tiny_decoder.train()
    tiny_decoder.gradient_checkpointing_enable()
    tiny_decoder.lm_head.eval()
    assert HfEngine(tiny_decoder, tiny_tokenizer).complete(PROMPTS, Decoding(8)) == expected
    assert tiny_decoder.training and tiny_decoder.model.layers[0].training and not tiny_decoder.lm_head.training


def test_half_precision_stays_half_precision(tiny_decoder: Any, tiny_tokenizer: Any) -> None:
    engine = HfEngine(tiny_decoder.to(torch.bfloat16), tiny_tokenizer)
    seen = []
    handle = tiny_decoder.lm_head.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    assert len(engine.complete(PROMPTS[:2], Decoding(3))) == 2
    handle.remove()
    assert set(seen) == {torch.bfloat16}


def test_a_row_that_has_ended_is_not_computed_for_long(tiny_decoder: Any, tiny_tokenizer: Any) -> None:
    def rows_computed(drop_at: float) -> int:
        seen = []
        handle = tiny_decoder.lm_head.register_forward_hook(lambda _, __, output: seen.append(output.shape[0]))
        HfEngine(tiny_decoder, tiny_tokenizer, drop_at=drop_at).complete(PROMPTS, Decoding(40))
        handle.remove()
        return sum(seen)

    lengths = [
        completion.tokens for completion in HfEngine(tiny_decoder, tiny_tokenizer).complete(PROMPTS, Decoding(40))
    ]
    assert rows_computed(1e-9) == sum(lengths)  # dropped at once
    assert rows_computed(0.25) <= 4 / 3 * sum(lengths)
    assert rows_computed(1.0) == len(lengths) * max(lengths)


@pytest.mark.parametrize("beams", [1, 4])
def test_a_prompt_is_computed_once_whatever_the_beams(tiny_decoder: Any, tiny_tokenizer: Any, beams: int) -> None:
    seen = []
    handle = tiny_decoder.model.embed_tokens.register_forward_hook(lambda _, __, output: seen.append(output.shape[:2]))
    HfEngine(tiny_decoder, tiny_tokenizer).complete([PROMPTS[2]], Decoding(4, beams))
    handle.remove()
    prompt = len(tiny_tokenizer(PROMPTS[2])["input_ids"])
    assert sum(rows * width for rows, width in seen) <= prompt + beams * 4


def test_a_prompt_that_leaves_no_room_is_refused_before_anything_is_generated(
    tiny_decoder: Any, tiny_tokenizer: Any, questions: QuestionSet
) -> None:
    engine = HfEngine(tiny_decoder, tiny_tokenizer)
    room = 256 - len(tiny_tokenizer(PROMPTS[2])["input_ids"])
    assert engine.complete([PROMPTS[2]], Decoding(room))[0].tokens >= 1
    tiny_decoder.forward = None  # nothing may be computed
    with pytest.raises(PromptTooLong, match=r"prompt 2: \d+ tokens and \d+ new ones are more than the model's 256"):
        engine.complete(PROMPTS, Decoding(room + 1))


def test_no_prompts_no_completions(tiny_decoder: Any, tiny_tokenizer: Any) -> None:
    assert HfEngine(tiny_decoder, tiny_tokenizer).complete([], Decoding(4)) == []


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"beams": 0}, {"stop": ("",)}, {"stop": "Response:"}])
def test_a_decoding_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Decoding(**{"max_new_tokens": 4, **wrong})
