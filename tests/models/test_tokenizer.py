"""Decoders' tokenizers: pad, BOS and EOS by a stated policy, and a wrong class or vocabulary refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_decoders import SENTENCES, decoder, model_spec, save_decoder, tokenizer
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from lora_xs.errors import UserError
from lora_xs.models import Location, describe_tokenizer, load_decoder, load_tokenizer

POLICY = {  # style: (pad, bos, adds_bos)
    "llama2": ("<unk>", "<s>", True),
    "llama3": ("<|end|>", "<|begin|>", True),
    "gpt2": ("<|end|>", "<|end|>", False),
    "gemma": ("<pad>", "<bos>", True),
    "smollm": ("<|im_end|>", "<|im_start|>", False),
}


def loaded(folder: Path) -> Any:
    return load_tokenizer(model_spec(folder), Location(folder, {}))


def edit(folder: Path, **settings: Any) -> Path:
    """`folder` with `settings` in its tokenizer_config.json."""
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    return folder


@pytest.mark.parametrize("style", POLICY)
def test_pad_bos_and_eos_follow_the_stated_policy(tmp_path: Path, style: str) -> None:
    words = loaded(save_decoder(tmp_path, style=style))
    pad, bos, adds_bos = POLICY[style]
    facts = describe_tokenizer(words)
    assert facts["pad"] == {"token": pad, "id": words.convert_tokens_to_ids(pad)}
    assert facts["eos"] == {"token": words.eos_token, "id": words.eos_token_id}
    assert facts["bos"] == {"token": bos, "id": words.convert_tokens_to_ids(bos)}
    assert (facts["adds_bos"], facts["vocabulary"], facts["padding_side"]) == (adds_bos, len(words), "right")
    ids = words(SENTENCES[1])["input_ids"]
    assert ids.count(words.eos_token_id) == 0
    assert (ids[0] == words.bos_token_id) == adds_bos
    assert words.decode(ids, skip_special_tokens=True).strip() == SENTENCES[1]
    assert json.loads(json.dumps(facts)) == facts


def test_a_llama_tokenizer_saved_without_its_post_processor_is_described_as_adding_no_bos(tmp_path: Path) -> None:
    save_decoder(tmp_path)
    tokenizer("llama2", bos=False).save_pretrained(tmp_path)
    words = loaded(tmp_path)
    facts = describe_tokenizer(words)
    assert facts["bos"] == {"token": "<s>", "id": 1} and facts["adds_bos"] is False
    assert words("a farmer")["input_ids"][0] != 1


@pytest.mark.parametrize(("style", "right"), [("llama2", "LlamaTokenizer"), ("gemma", "GemmaTokenizer")])
def test_the_class_the_models_declare_splits_text_as_their_file_does(tmp_path: Path, style: str, right: str) -> None:
    plain = loaded(save_decoder(tmp_path, style=style))
    own = loaded(edit(tmp_path, tokenizer_class=right))
    assert type(own).__name__ == right != type(plain).__name__
    assert all(own(text)["input_ids"] == plain(text)["input_ids"] for text in SENTENCES)


def test_a_byte_level_tokenizer_that_claims_to_be_llama_s_is_read_as_its_file_says(tmp_path: Path) -> None:
    plain = loaded(save_decoder(tmp_path, style="llama3"))
    claimed = loaded(edit(tmp_path, tokenizer_class="LlamaTokenizer"))
    assert all(claimed(text)["input_ids"] == plain(text)["input_ids"] for text in SENTENCES)


@pytest.mark.parametrize("style", ["llama2", "gpt2"])
def test_a_class_that_splits_text_otherwise_than_the_file_is_refused(tmp_path: Path, style: str) -> None:
    wrong = {"llama2": "GPT2Tokenizer", "gpt2": "GemmaTokenizer"}[style]
    edit(save_decoder(tmp_path, style=style), tokenizer_class=wrong)
    with pytest.raises(UserError, match=rf"\({wrong}\) splits text otherwise than its tokenizer.json[^\n]*$"):
        loaded(tmp_path)


def test_a_tokenizer_with_more_ids_than_the_model_has_embeddings_is_refused(tmp_path: Path) -> None:
    save_decoder(tmp_path)
    decoder(vocabulary=399).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has ids up to 399, the model 399 embeddings; give the tokenizer"):
        load_decoder(model_spec(tmp_path), Location(tmp_path, {}))


def test_a_tokenizer_that_appends_its_own_eos_or_has_none_is_refused(tmp_path: Path) -> None:
    save_decoder(tmp_path)
    ends = tokenizer("llama2")
    ends.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    ends.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="appends tokens itself, rows would end twice; save it"):
        loaded(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer("llama3").backend_tokenizer).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no EOS token, nothing would end a response"):
        loaded(tmp_path)


def test_a_folder_without_a_tokenizer_is_one_line(tmp_path: Path) -> None:
    decoder().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"^model=tiny: cannot be loaded from [^\n]*$"):
        loaded(tmp_path)
