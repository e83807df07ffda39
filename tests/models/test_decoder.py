"""Decoders load whole or not at all: dtype, attention, quantisation, and nothing missing or misfitting."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_decoders import FAMILIES, decoder, model_spec, save_decoder

from lora_xs.errors import UserError
from lora_xs.models import load_decoder, locate


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_decoder_loads_in_the_asked_dtype_with_the_weights_of_its_file(
    tmp_path: Path, family: str, dtype: str
) -> None:
    save_decoder(tmp_path, family)
    spec = model_spec(tmp_path, dtype=dtype, attention="eager")
    model, _ = load_decoder(spec, locate(spec))
    expected = decoder(family).state_dict()
    own = model.state_dict()
    assert expected.keys() == own.keys()
    assert all(torch.equal(own[name], expected[name].to(getattr(torch, dtype))) for name in own)
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_both_attentions_give_the_same_logits(tmp_path: Path, family: str) -> None:
    save_decoder(tmp_path, family)
    ids = torch.randint(3, 400, (2, 20), generator=torch.Generator().manual_seed(1))
    found = []
    for attention in ("eager", "sdpa"):
        spec = model_spec(tmp_path, attention=attention)
        model, _ = load_decoder(spec, locate(spec))
        assert model.config._attn_implementation == attention
        with torch.no_grad():
            found.append(model.eval()(ids).logits)
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


def test_gemma2_refuses_the_attention_that_would_drop_its_soft_cap(tmp_path: Path) -> None:
    spec = model_spec(save_decoder(tmp_path, "gemma2"), attention="sdpa")
    with pytest.raises(UserError, match=r"has no model.attention=sdpa; use model.attention=eager"):
        load_decoder(spec, locate(spec))


def test_flash_attention_is_refused_without_its_package_and_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = model_spec(save_decoder(tmp_path), attention="flash_attention_2")
    usual = importlib.util.find_spec

    def find(present: bool):
        return lambda name, *rest: (object() if present else None) if name == "flash_attn" else usual(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find(False))
    with pytest.raises(UserError, match=r"needs the package flash-attn; run `pip install flash-attn[^\n]*sdpa$"):
        locate(spec)
    monkeypatch.setattr(importlib.util, "find_spec", find(True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"needs a CUDA GPU, there is none here; use model.attention=sdpa"):
        load_decoder(spec, locate(spec))


@pytest.mark.parametrize("what", ["missing", "of another shape"])
def test_weights_that_are_missing_or_of_another_shape_are_refused(tmp_path: Path, what: str) -> None:
    file = save_decoder(tmp_path) / "model.safetensors"
    tensors, name = load_file(file), "model.layers.1.mlp.up_proj.weight"
    if what == "missing":
        del tensors[name]
    else:
        tensors[name] = tensors[name][:-1].contiguous()
    save_file(tensors, file, metadata={"format": "pt"})
    spec = model_spec(tmp_path)
    with pytest.raises(UserError, match=rf"lacks or misfits {name}$"):
        load_decoder(spec, locate(spec))


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_a_quantised_decoder_keeps_its_output_over_the_vocabulary_whole(tmp_path: Path, quantization: str) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    spec = model_spec(save_decoder(tmp_path), quantization=quantization)
    location = locate(spec)
    assert location.identity["quantization"]["float"] == ["lm_head"]
    model, _ = load_decoder(spec, location)
    packed = {name for name, p in model.named_parameters() if not p.is_floating_point()}
    assert len(packed) == 14 and all(".layers." in name for name in packed)
    assert torch.equal(model.lm_head.weight, decoder().lm_head.weight)
