"""A decoder of two layers and a byte-level tokenizer, made here, and a test of a few questions."""

from __future__ import annotations

from typing import Any

import pytest

from lora_xs.data.question_set import Question, QuestionSet

TEXT = [
    "### Instruction:\nHow many apples are left? There were 12 and 5 were eaten.\n\n### Response: 12 - 5 = 7.",
    "the correct answer is answer1 answer2 solution1 true false The answer is: 42",
]


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """Byte-level BPE with `<s>`, `</s>` and `<pad>`, ids 0 to 2; it adds none of them itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    rust.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=rust, bos_token="<s>", eos_token="</s>", pad_token="<pad>", clean_up_tokenization_spaces=False
    )


def random_decoder(kind: str, tokenizer: Any) -> Any:
    """A random two-layer decoder in fp32, its weights large enough for varied texts; 9 of its tokens end a completion.

    `kind`: `llama`, or `mistral` or `gemma2` with a sliding window of eight tokens (Gemma's in its first layer only).
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    special = {"gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8}}.get(kind, {})
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        **({} if kind == "llama" else {"sliding_window": 8}),
        **special,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.eos_token_id = [1, *range(100, 108)]
    return model


@pytest.fixture
def tiny_decoder(tiny_tokenizer: Any) -> Any:
    """A random Llama."""
    return random_decoder("llama", tiny_tokenizer)


@pytest.fixture(params=["mistral", "gemma2"])
def sliding_decoder(request: pytest.FixtureRequest, tiny_tokenizer: Any) -> Any:
    """A random Mistral, then a random Gemma 2, whose windows are shorter than most prompts."""
    return random_decoder(request.param, tiny_tokenizer)


@pytest.fixture
def questions() -> QuestionSet:
    """Nine prompts of different lengths."""
    numbers = (3, 40, 1, 17, 8, 25, 12, 2, 31)
    return QuestionSet(
        "gsm8k",
        "gsm8k",
        tuple(
            Question(f"gsm8k/{place}", f"{'There were apples. ' * (number // 4)}How many are {number}?", str(number))
            for place, number in enumerate(numbers)
        ),
        ("Instruction:",),
        {},
    )
