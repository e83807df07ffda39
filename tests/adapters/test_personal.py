"""A batch whose rows belong to different users gives each row what its user's adapter alone would give it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from oracles import lora_xs as oracle
from peft import PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn
from users import refused, save_users

from lora_xs import LoraXsConfig
from lora_xs.adapters.bundle import Bundle
from lora_xs.adapters.packing import add_adapters, pack_adapters
from lora_xs.adapters.personal import PerRow, attach_bundle
from lora_xs.adapters.update import estimate_update

USERS = ["ada", "bob", "eve", "zoe"]
WIDE = [*oracle.ROBERTA_TARGETS, "key"]
LLAMA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CLOSE = {"atol": 1e-5, "rtol": 0.0}


def llama() -> nn.Module:
    """A two-layer Llama with grouped keys, in evaluation mode."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def bundle_of_users(folder: Path, base: nn.Module, **settings) -> Path:
    """A bundle of `USERS`, whose R's are large enough to set their answers far apart; their folders beside it."""
    pack_adapters(folder / "users.safetensors", save_users(folder, USERS, base, seed=1, scale=20.0, **settings))
    return folder / "users.safetensors"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return bundle_of_users(tmp_path_factory.mktemp("encoder"), oracle.bert())


@pytest.fixture(scope="module")
def decoder(tmp_path_factory) -> Path:
    return bundle_of_users(tmp_path_factory.mktemp("decoder"), llama(), target_modules=LLAMA_TARGETS)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    return bundle_of_users(tmp_path_factory.mktemp("classifier"), oracle.bert(), task_type="SEQ_CLS")


def one_at_a_time(path: Path, build, users, run) -> list[Tensor]:
    """`run(model, i)` with row i's user loaded as PEFT loads an adapter; the base model for None."""
    found = []
    for i, user in enumerate(users):
        model = build() if user is None else PeftModel.from_pretrained(build(), str(path.parent / user))
        with torch.no_grad():
            found.append(run(model.eval(), i))
    return found


def ids(rows: int, tokens: int = 7) -> Tensor:
    return torch.randint(1, 50, (rows, tokens), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    "users",
    [
        ["ada", "bob", "eve", "zoe"],
        ["eve", "ada", "eve", None, "ada", "eve"],
        ["bob", "bob", "bob"],
        [None, None],
        ["zoe"],
    ],
)
def test_an_encoder_s_rows_are_what_each_user_alone_gives(encoder, users):
    batch = ids(len(users))
    mask = torch.ones_like(batch)
    mask[0, 4:] = 0
    with Bundle(encoder) as bundle:
        per_row = PerRow(attach_bundle(oracle.bert(), bundle), bundle)
        with per_row(users):
            found = per_row.model(batch, attention_mask=mask).logits
    wanted = one_at_a_time(
        encoder, oracle.bert, users, lambda m, i: m(batch[i : i + 1], attention_mask=mask[i : i + 1]).logits[0]
    )
    torch.testing.assert_close(found, torch.stack(wanted), **CLOSE)
    if len(set(users)) > 1:
        other = users[1:] + users[:1]
        with Bundle(encoder) as bundle, (per_row := PerRow(attach_bundle(oracle.bert(), bundle), bundle))(other):
            shifted = per_row.model(batch, attention_mask=mask).logits
        assert (shifted - found).abs().max() > 1e-2  # users do differ


def test_two_dimensional_inputs_are_mapped_too(tmp_path):
    """The pooler sees [rows, in]."""
    path = bundle_of_users(tmp_path, oracle.bert(), target_modules=["query", "pooler.dense"])
    users, batch = ["ada", None, "zoe"], ids(3)
    with Bundle(path) as bundle:
        assert any(module.name == "bert.pooler.dense" for module in bundle.family.modules)
        per_row = PerRow(attach_bundle(oracle.bert(), bundle), bundle)
        with per_row(users):
            found = per_row.model(batch).logits
    wanted = one_at_a_time(path, oracle.bert, users, lambda m, i: m(batch[i : i + 1]).logits[0])
    torch.testing.assert_close(found, torch.stack(wanted), **CLOSE)


def test_flattened_tokens_are_mapped_to_their_rows(encoder):
    with Bundle(encoder) as bundle:
        model = attach_bundle(oracle.bert(), bundle)
        per_row = PerRow(model, bundle)
        layer = model.base_model.model.bert.encoder.layer[0].output.dense
        x = torch.randn(3, 5, 48)
        with per_row(["ada", "bob", None]):
            torch.testing.assert_close(layer(x.view(15, 48)).view(3, 5, 32), layer(x), **CLOSE)


def test_a_decoder_s_rows_are_what_each_user_alone_gives(decoder):
    users, batch = ["ada", "zoe", None, "ada"], ids(4)
    with Bundle(decoder) as bundle:
        per_row = PerRow(attach_bundle(llama(), bundle), bundle)
        with per_row(users):
            found = per_row.model(batch).logits
    wanted = one_at_a_time(decoder, llama, users, lambda m, i: m(batch[i : i + 1]).logits[0])
    torch.testing.assert_close(found, torch.stack(wanted), **CLOSE)


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_with_a_cache_gives_each_row_its_user_s_text(decoder, beams):
    users, batch = ["ada", "zoe", None, "bob", "ada"], ids(5)
    settings = {"max_new_tokens": 8, "do_sample": False, "num_beams": beams, "use_cache": True}
    settings |= {"return_dict_in_generate": True, "output_logits": True}
    mask = torch.ones_like(batch)
    mask[1, :3] = 0  # a shorter prompt, padded on the left
    with Bundle(decoder) as bundle:
        per_row = PerRow(attach_bundle(llama(), bundle), bundle)
        with per_row(users, copies=beams):
            found = per_row.model.generate(input_ids=batch, attention_mask=mask, **settings)

    def alone(model, i):
        return model.generate(input_ids=batch[i : i + 1], attention_mask=mask[i : i + 1], **settings)

    wanted = one_at_a_time(decoder, llama, users, alone)
    assert torch.equal(found.sequences, torch.cat([one.sequences for one in wanted]))
    assert len({tuple(row.tolist()) for row in found.sequences[:, 7:]}) == 5
    for step, logits in enumerate(found.logits):
        together = torch.cat([one.logits[step] for one in wanted])
        torch.testing.assert_close(logits, together, **CLOSE)


def test_a_conv1d_base_works(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    def gpt2() -> nn.Module:
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=60, n_positions=32)).eval()

    path = bundle_of_users(tmp_path, gpt2(), target_modules=["c_attn", "c_proj"])
    users, batch = ["ada", "bob"], ids(2)
    with Bundle(path) as bundle, (per_row := PerRow(attach_bundle(gpt2(), bundle), bundle))(users):
        found = per_row.model(batch).logits
    wanted = one_at_a_time(path, gpt2, users, lambda m, i: m(batch[i : i + 1]).logits[0])
    torch.testing.assert_close(found, torch.stack(wanted), **CLOSE)


def test_each_row_has_its_user_s_head(classifier):
    users, batch = ["ada", "zoe", None, "ada", "bob"], ids(5)
    with Bundle(classifier) as bundle:
        model = attach_bundle(oracle.bert(), bundle)
        with (per_row := PerRow(model, bundle))(users):
            found = per_row.model(batch).logits
        with PerRow(model, bundle, heads=False)(users):
            without = model(batch).logits
    wanted = one_at_a_time(classifier, oracle.bert, users, lambda m, i: m(batch[i : i + 1]).logits[0])
    torch.testing.assert_close(found, torch.stack(wanted), **CLOSE)
    torch.testing.assert_close(without[2], wanted[2], **CLOSE)
    assert (without[0] - wanted[0]).abs().max() > 1e-2


def test_a_head_beside_the_adapter_is_used_by_row_too(tmp_path):
    bundle_of_users(tmp_path, oracle.bert())
    heads = {u: {"classifier.weight": torch.randn(2, 32), "classifier.bias": torch.randn(2)} for u in USERS}
    for user, head in heads.items():
        save_file(head, tmp_path / user / "head.safetensors")
    pack_adapters(tmp_path / "heads.safetensors", {user: tmp_path / user for user in USERS})
    users, batch = ["bob", "ada"], ids(2)

    def alone(model: nn.Module, i: int) -> Tensor:
        model.get_base_model().load_state_dict(heads[users[i]], strict=False)
        return model(batch[i : i + 1]).logits[0]

    with Bundle(tmp_path / "heads.safetensors") as bundle:
        with (per_row := PerRow(attach_bundle(oracle.bert(), bundle), bundle))(users):
            found = per_row.model(batch).logits
        three = oracle.bert()
        three.classifier = nn.Linear(32, 3)
        assert "the bundle's is [2], the model's [3]" in refused(lambda: PerRow(attach_bundle(three, bundle), bundle))
        odd = oracle.bert()
        odd.classifier = nn.Sequential(nn.Linear(32, 2))
        assert "heads=False" in refused(lambda: PerRow(attach_bundle(odd, bundle), bundle))
    torch.testing.assert_close(found, torch.stack(one_at_a_time(tmp_path / "x", oracle.bert, users, alone)), **CLOSE)


@pytest.mark.parametrize(
    "settings", [{"save_factors": True}, {"rank_pattern": {"query": 2}, "alpha_pattern": {"query": 9}}]
)
def test_embedded_factors_and_mixed_ranks_and_scales_are_followed(tmp_path, settings):
    path = bundle_of_users(tmp_path, oracle.bert(), **settings)
    users, batch = ["zoe", "bob", None], ids(3)
    with Bundle(path) as bundle, (per_row := PerRow(attach_bundle(oracle.bert(), bundle), bundle))(users):
        found = per_row.model(batch).logits
    wanted = one_at_a_time(path, oracle.bert, users, lambda m, i: m(batch[i : i + 1]).logits[0])
    torch.testing.assert_close(found, torch.stack(wanted), **CLOSE)


def test_users_of_lora_sb_share_a_bundle_if_they_share_the_estimate(tmp_path):
    def from_estimate(seed: int) -> PeftModel:
        base, rows = oracle.bert(), torch.randint(1, 50, (4, 7), generator=torch.Generator().manual_seed(seed))
        config = LoraXsConfig(r=4, lora_alpha=4, target_modules=oracle.ROBERTA_TARGETS, init_weights="update")
        batch = {"input_ids": rows, "labels": torch.tensor([0, 1, 0, 1])}
        config.update = estimate_update(base, config, [batch], eta=0.01)
        return get_peft_model(base, config)

    model = from_estimate(0)
    model.save_pretrained(str(tmp_path / "ada"))
    for name, parameter in model.named_parameters():
        if "lora_R" in name:
            parameter.data += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    model.save_pretrained(str(tmp_path / "bob"))
    from_estimate(1).save_pretrained(str(tmp_path / "eve"))
    users, batch, path = ["bob", "ada"], ids(2), tmp_path / "users.safetensors"
    pack_adapters(path, {user: tmp_path / user for user in users})
    with Bundle(path) as bundle, (per_row := PerRow(attach_bundle(oracle.bert(), bundle), bundle))(users):
        found = per_row.model(batch).logits
    wanted = one_at_a_time(path, oracle.bert, users, lambda m, i: m(batch[i : i + 1]).logits[0])
    torch.testing.assert_close(found, torch.stack(wanted), **CLOSE)
    message = refused(lambda: add_adapters(path, {"eve": tmp_path / "eve"}))
    assert "follow from the rows of its estimate" in message and "pack it apart" in message


def test_any_loaded_adapter_on_the_same_factors_serves(encoder):
    """The model's own R and alpha are not what runs; after the block they are again, untouched."""
    model = PeftModel.from_pretrained(oracle.bert(), str(encoder.parent / "bob")).eval()
    batch = ids(1)
    before = model(batch).logits.detach()
    with Bundle(encoder) as bundle, PerRow(model, bundle)(["ada"]):
        inside = model(batch).logits
        with model.disable_adapter():
            torch.testing.assert_close(model(batch).logits, oracle.bert()(batch).logits.detach(), **CLOSE)
    assert torch.equal(model(batch).logits.detach(), before)
    assert not any("forward" in module.__dict__ for module in model.modules())
    wanted = one_at_a_time(encoder, oracle.bert, ["ada"], lambda m, i: m(batch).logits)
    torch.testing.assert_close(inside, wanted[0], **CLOSE)


def test_a_bundle_in_half_precision_and_a_half_precision_base_run(tmp_path, encoder):
    pack_adapters(tmp_path / "half.safetensors", {u: encoder.parent / u for u in USERS}, dtype="float16")
    users, batch = ["ada", "bob"], ids(2)
    wanted = one_at_a_time(encoder, oracle.bert, users, lambda m, i: m(batch[i : i + 1]).logits[0])
    with Bundle(tmp_path / "half.safetensors") as bundle:
        per_row = PerRow(attach_bundle(oracle.bert(), bundle), bundle)
        with per_row(users):
            found = per_row.model(batch).logits
    torch.testing.assert_close(found, torch.stack(wanted), atol=2e-3, rtol=0)
    path = bundle_of_users(tmp_path / "bf16", oracle.bert().bfloat16())
    with Bundle(path) as bundle, (per_row := PerRow(attach_bundle(oracle.bert().bfloat16(), bundle), bundle))(users):
        found = per_row.model(batch).logits
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), torch.stack(wanted), atol=0.06, rtol=0.06)


def test_autocast_keeps_its_dtype(encoder):
    users, batch = ["ada", "bob"], ids(2)
    wanted = one_at_a_time(encoder, oracle.bert, users, lambda m, i: m(batch[i : i + 1]).logits[0])
    with Bundle(encoder) as bundle:
        per_row = PerRow(attach_bundle(oracle.bert(), bundle), bundle)
        with per_row(users), torch.autocast("cpu", torch.bfloat16):
            found = per_row.model(batch).logits
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), torch.stack(wanted), atol=0.06, rtol=0.06)


def test_training_is_refused(encoder):
    with Bundle(encoder) as bundle:
        model = attach_bundle(oracle.bert(), bundle)
        per_row = PerRow(model, bundle)
        with per_row(["ada"]):
            logits = model(ids(1)).logits
            assert not logits.requires_grad
            with torch.enable_grad():
                assert "for inference" in refused(lambda: model(ids(1)))
            model.train()
            assert "for inference" in refused(lambda: model(ids(1)))
        assert "training mode" in refused(lambda: per_row(["ada"]).__enter__())


def test_batches_that_do_not_fit_the_users_are_refused(encoder, decoder):
    with Bundle(encoder) as bundle:
        model = attach_bundle(oracle.bert(), bundle)
        per_row = PerRow(model, bundle)
        for rows in (1, 3, 4):
            with per_row(["ada", "bob"]):
                assert "2 users were named" in refused(lambda rows=rows: model(ids(rows)))
        assert "no user 'max'" in refused(lambda: per_row(["ada", "max"]).__enter__())
        assert "list each row's user" in refused(lambda: per_row([]).__enter__())
        assert "list each row's user" in refused(lambda: per_row("ada").__enter__())
        with per_row(["ada"]):
            assert "set already" in refused(lambda: per_row(["bob"]).__enter__())
            model(ids(1))
        model.merge_adapter()
        assert "merged" in refused(lambda: per_row(["ada"]).__enter__())
    with Bundle(decoder) as bundle:
        per_row = PerRow(attach_bundle(llama(), bundle), bundle)
        with per_row(["ada", "bob"]):
            assert "copies=num_beams" in refused(
                lambda: per_row.model.generate(input_ids=ids(2), num_beams=2, max_new_tokens=2)
            )


def test_a_bundle_onto_other_factors_is_refused_in_the_tuner_s_words(encoder):
    def other_weight() -> nn.Module:
        base = oracle.bert()
        base.bert.encoder.layer[1].output.dense.weight.data[0, 0] *= 1.0001
        return base

    def attached(base: nn.Module, **settings) -> PeftModel:
        defaults = {"r": 4, "lora_alpha": 6, "target_modules": oracle.ROBERTA_TARGETS}
        return get_peft_model(base, LoraXsConfig(**{**defaults, **settings})).eval()

    with Bundle(encoder) as bundle:
        for build, said in (
            (lambda: attach_bundle(other_weight(), bundle), "another base weight"),
            (lambda: PerRow(attached(other_weight()), bundle), "another base weight"),
            (lambda: PerRow(attached(oracle.bert(), part="bottom"), bundle), "factors were made by"),
            (lambda: PerRow(attached(oracle.bert(), r=3), bundle), "the rank is 3"),
            (lambda: PerRow(attached(oracle.bert(), target_modules=["query"]), bundle), "this model does not"),
            (
                lambda: PerRow(attached(oracle.bert(), target_modules=WIDE), bundle),
                "has no R for",
            ),
            (lambda: PerRow(oracle.bert(), bundle), "attach_bundle"),
            (lambda: PerRow(attached(oracle.bert()), bundle, adapter_name="other"), "'other'"),
        ):
            assert said in refused(build)


def test_the_cache_is_bounded_and_forgets_the_least_recently_used(encoder, monkeypatch):
    read: list[str] = []
    whole = Bundle.R

    def counted(self, user):
        read.append(user)
        return whole(self, user)

    monkeypatch.setattr(Bundle, "R", counted)
    with Bundle(encoder) as bundle:
        size = bundle.family.R_numel * 4
        model = attach_bundle(oracle.bert(), bundle)
        per_row = PerRow(model, bundle, cache_bytes=2 * size + 1)
        wanted = None
        for users in (["ada", "bob"], ["ada"], ["eve"], ["ada", "eve"], ["bob"]):
            with per_row(users):
                model(ids(len(users)))
            assert per_row.cached_bytes <= 2 * size
        assert read == ["ada", "bob", "eve", "bob"]  # eve drove bob out, ada having been used since
        with per_row(USERS):  # a batch of more users than the cache holds still runs
            wanted = model(ids(4)).logits
        assert per_row.cached_bytes == 2 * size
        with (none := PerRow(model, bundle, cache_bytes=0))(USERS):
            assert torch.equal(model(ids(4)).logits, wanted)
        assert none.cached_bytes == 0
