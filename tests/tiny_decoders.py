"""Tiny decoders and their tokenizers in the styles of the papers' models, made from nothing but a few sentences."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from lora_xs.spec.sections import ModelSpec

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SENTENCES = [
    "Below is an instruction that describes a task.",
    "### Instruction:\nA farmer has 12 hens and 7 cows. How many?\n\n### Response: 12 + 7 = 19. The answer is: 19",
    "She sold 48 clips in April, and then half as many in May.",
]
STYLES = {  # special tokens in the order of their ids, and which of them have a role
    "llama2": (["<unk>", "<s>", "</s>"], {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}),
    "llama3": (["<|begin|>", "<|end|>"], {"bos_token": "<|begin|>", "eos_token": "<|end|>"}),
    "gpt2": (["<|end|>"], {"unk_token": "<|end|>", "bos_token": "<|end|>", "eos_token": "<|end|>"}),
    "gemma": (
        ["<pad>", "<eos>", "<bos>", "<unk>"],
        {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"},
    ),
    "smollm": (
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        {
            "unk_token": "<|endoftext|>",
            "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>",
            "pad_token": "<|im_end|>",
        },
    ),
}
FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 8}),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM, {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8}),
}


def tokenizer(style: str, *, bos: bool | None = None) -> PreTrainedTokenizerFast:
    """A trained tokenizer of a few hundred tokens. bos: whether its post-processor adds one; None: the style's way."""
    special, roles = STYLES[style]
    pieces = style in ("llama2", "gemma")  # SentencePiece's spelling; the others are byte-level
    made = Tokenizer(models.BPE(unk_token=roles.get("unk_token") if pieces else None, byte_fallback=pieces))
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)] if pieces else []
    if pieces:
        spaces = normalizers.Replace(" ", "▁")
        made.normalizer = spaces if style == "gemma" else normalizers.Sequence([normalizers.Prepend("▁"), spaces])
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    else:
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
        digits = pre_tokenizers.Digits(individual_digits=True)
        made.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level]) if style == "smollm" else byte_level
        made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special + alphabet,
        initial_alphabet=[] if pieces else pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES, trainer)
    if style in ("llama2", "llama3", "gemma") if bos is None else bos:
        first = roles["bos_token"]
        made.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", pair=f"{first} $A $B", special_tokens=[(first, special.index(first))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=made, **roles)


def decoder(family: str = "llama", *, vocabulary: int = 400, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A random two-layer decoder, hidden 32, two query heads a key head, large enough weights to have opinions."""
    config_class, model_class, own = FAMILIES[family]
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": vocabulary}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2, "pad_token_id": None}
    torch.manual_seed(0)
    return model_class(config_class(**shape, **heads, **own)).to(dtype)


def save_decoder(folder: Path, family: str = "llama", style: str = "llama2") -> Path:
    """A model folder as `save_pretrained` leaves it."""
    words = tokenizer(style)
    decoder(family, vocabulary=len(words)).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def model_spec(folder: Path, **settings) -> ModelSpec:
    """The spec of a decoder in `folder`."""
    fixed = {"name": "tiny", "kind": "decoder", "target_modules": TARGETS, "head": (), "path": str(folder)}
    return ModelSpec(**{**fixed, **settings})
