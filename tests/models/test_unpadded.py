"""Encoders that compute no padding: the same losses and gradients as padded ones, from fewer multiplications."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, DistilBertConfig, RobertaConfig
from transformers.models.auto.modeling_auto import AutoModelForSequenceClassification

from lora_xs.errors import UserError
from lora_xs.models.unpadded import BY_ROW, attend_by_row, compute_unpadded, unpad_as_asked
from lora_xs.runner import run
from lora_xs.spec.layout import padding_of

SHAPE = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
CONFIGS = {
    "bert": BertConfig(**SHAPE, max_position_embeddings=20),
    "roberta": RobertaConfig(**SHAPE, max_position_embeddings=20, pad_token_id=1, type_vocab_size=2),
}
LENGTHS = {"mixed": [12, 9, 9, 9, 3, 1], "unsorted": [3, 12, 3, 7], "equal": [6, 6, 6], "one": [5]}


def a_model(build: str) -> Any:
    """In fp64, without dropout's randomness, its gradient wanted everywhere."""
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(copy.deepcopy(CONFIGS[build])).double().eval()


def padded(lengths: list[int], pad: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    real = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]  # [rows, longest]
    ids = torch.randint(5, 50, real.shape, generator=generator).where(real, pad)
    kinds = (torch.arange(max(lengths))[None] > 2).long().expand(real.shape)  # a second sentence from the fourth token
    labels = torch.arange(len(lengths)) % 2
    return {"input_ids": ids, "attention_mask": real.long(), "token_type_ids": kinds * real, "labels": labels}


def outcome(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    found = model(**batch)
    found.loss.backward()
    return found.logits.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("build", CONFIGS)
def test_logits_and_every_gradient_are_those_of_padded_rows(build: str, lengths: list[int]) -> None:
    batch = padded(lengths, CONFIGS[build].pad_token_id)
    model, other = a_model(build), a_model(build)
    compute_unpadded(other)
    (logits, gradients), (free_logits, free_gradients) = outcome(model, batch), outcome(other, batch)
    assert free_logits.shape == (len(lengths), 2)
    torch.testing.assert_close(free_logits, logits, rtol=1e-10, atol=1e-12)
    for name, gradient in gradients.items():
        torch.testing.assert_close(free_gradients[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_checkpointed_layers_pass_again_to_the_same_gradients() -> None:
    batch = padded(LENGTHS["mixed"], 0)
    plain, other = a_model("bert"), a_model("bert")
    for model in (plain, other):
        compute_unpadded(model)
    other.gradient_checkpointing_enable({"use_reentrant": False})
    other.train()
    for module in other.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    between = padded(LENGTHS["unsorted"], 0)
    expected = outcome(plain, batch)[1]
    other.zero_grad()
    loss = other(**batch).loss
    with torch.no_grad():
        other(**between)  # another batch passes before the gradient is taken
    loss.backward()
    for name, parameter in other.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("build", CONFIGS)
def test_linear_layers_multiply_real_tokens_and_behind_the_last_attention_one_a_row(build: str) -> None:
    batch, model = padded(LENGTHS["mixed"], CONFIGS[build].pad_token_id), a_model(build)
    compute_unpadded(model)
    seen: dict[str, int] = {}
    for name, module in model.base_model.encoder.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, args, out, name=name: seen.update({name: out[..., 0].numel()}))
    model(**batch)
    rows, tokens = len(LENGTHS["mixed"]), sum(LENGTHS["mixed"])
    behind = ("layer.2.attention.output.dense", "layer.2.intermediate.dense", "layer.2.output.dense")
    assert seen == {name: rows if name in behind else tokens for name in seen}
    assert len(seen) == 3 * 6


def test_no_row_attends_to_another() -> None:
    query, key, value = torch.randn(3, 1, 2, 9, 4, generator=torch.Generator().manual_seed(0))
    before, _ = attend_by_row(nn.Module(), query, key, value, None, row_lengths=[4, 3, 2])
    key[:, :, 4:7], value[:, :, 4:7] = 7.0, -3.0
    after, _ = attend_by_row(nn.Module(), query, key, value, None, row_lengths=[4, 3, 2])
    changed = (before != after).flatten(2).any(dim=2)[0]
    assert changed.tolist() == [False] * 4 + [True] * 3 + [False] * 2


def test_a_run_without_padding_is_the_run_with_it(tiny_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    still(monkeypatch)
    records = {}
    for padding in ("auto", "longest", "max_length"):
        words = ["trainer.epochs=1", "init.std=0.1", "task.max_length=32", f"trainer.padding={padding}"]
        records[padding] = run(tiny_run(*words, f"results={tmp_path}/{padding}")).train
    free = records.pop("auto")
    for other in records.values():
        assert other["batches_digest"] == free["batches_digest"]
        assert other["tokens"] == free["tokens"] == free["padded_tokens"] < other["padded_tokens"]
        for key in ("train_loss", "loss"):
            assert abs(other["last"][key] - free["last"][key]) < 1e-5


@pytest.mark.parametrize("method", ["full_ft", "head_only", "lora", "pissa", "vera", "lora_xs", "lora_sb"])
def test_every_method_takes_the_same_steps_with_and_without_padding(
    tiny_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    still(monkeypatch)
    ends = []
    ranked = [] if method in ("full_ft", "head_only") else ["rank.r=4"]
    for padding in ("free", "longest"):
        where = [f"trainer.padding={padding}", f"results={tmp_path}/{padding}"]
        ends.append(run(tiny_run(f"method={method}", "trainer.max_steps=4", *ranked, *where)).train["last"])
    assert abs(ends[0]["train_loss"] - ends[1]["train_loss"]) < 1e-5
    assert abs(ends[0]["loss"] - ends[1]["loss"]) < 1e-4  # AdamW's first steps divide rounding by itself


def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No dropout: its masks are drawn for the tokens computed."""
    monkeypatch.setattr("torch.nn.functional.dropout", lambda x, p=0.5, training=True, inplace=False: x)
    monkeypatch.setattr("torch.nn.Dropout.forward", lambda self, x: x)
    attend = torch.nn.functional.scaled_dot_product_attention

    def undropped(*states: Tensor, dropout_p: float = 0.0, **named: Any) -> Tensor:
        return attend(*states, **named)

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", undropped)
    monkeypatch.setattr("lora_xs.models.unpadded.scaled_dot_product_attention", undropped)


def test_what_cannot_be_unpadded_is_padded_by_auto_and_refused_by_free(tiny_run) -> None:
    shape = {"vocab_size": 50, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    strange = AutoModelForSequenceClassification.from_config(DistilBertConfig(**shape))
    assert not unpad_as_asked(strange, tiny_run())
    with pytest.raises(UserError, match="free is not known for a distilbert, but for bert, roberta"):
        unpad_as_asked(strange, tiny_run("trainer.padding=free"))
    with pytest.raises(UserError, match=r"does not go with model\.attention=eager"):
        tiny_run("trainer.padding=free", "model.attention=eager")


def test_auto_pads_where_shapes_must_come_again_and_on_a_gpu_without_flash_attention(tiny_run) -> None:
    assert padding_of(tiny_run(), gpu=False) == "free"
    assert padding_of(tiny_run(), gpu=True) == "longest"
    assert padding_of(tiny_run("trainer.compile=true"), gpu=False) == "longest"
    assert padding_of(tiny_run("trainer.padding=max_length"), gpu=False) == "max_length"
    flash = tiny_run("model.attention=flash_attention_2", "trainer.precision=bf16")
    assert padding_of(flash, gpu=True) == "free"


def test_flash_attention_is_told_the_rows_bounds() -> None:
    model = a_model("bert")
    compute_unpadded(model)
    assert model.config._attn_implementation == BY_ROW
    told: dict[str, Any] = {}
    first = model.base_model.encoder.layer[0]
    first.register_forward_pre_hook(lambda _, args, named: told.update(named), with_kwargs=True)
    model(**padded(LENGTHS["unsorted"], 0))
    assert told["cu_seq_lens_q"].tolist() == told["cu_seq_lens_k"].tolist() == [0, 3, 15, 18, 25]
    assert told["cu_seq_lens_q"].dtype == torch.int32
    assert (told["max_length_q"], told["max_length_k"]) == (12, 12)
