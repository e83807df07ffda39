"""LoRA-SB's estimate: the right gradient, and nothing else of the model touched, whatever the base is."""

from __future__ import annotations

import pytest
import torch
from oracles import lora_sb
from oracles import lora_xs as tiny
from peft import get_peft_model
from torch import Tensor, nn

from lora_xs import LoraXsConfig
from lora_xs.adapters.update import estimate_update
from lora_xs.errors import UserError

TARGETS = ["attention.self.query", "attention.self.value", "attention.output.dense", "output.dense"]
LABELS = torch.tensor([0, 1, 1])


def config(**settings) -> LoraXsConfig:
    return LoraXsConfig(**{"r": 4, "lora_alpha": 4, "init_weights": "update", "target_modules": TARGETS, **settings})


def batches(count: int = 3) -> list[dict[str, Tensor]]:
    return [{"input_ids": (tiny.tokens() + 5 * k) % 50, "labels": LABELS.roll(k)} for k in range(count)]


def own_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(**batch).loss


def estimate(model: nn.Module, rows=None, **options):
    return estimate_update(model, config(), rows or batches(), **{"eta": 1e-3, "dropout": False, **options})


def test_each_sum_is_the_weight_s_own_gradient_as_autograd_gives_it():
    model = tiny.bert().double()
    found = estimate(model).gradients
    expected = lora_sb.gradients(model, list(found), batches(), own_loss)
    assert len(found) == 8
    for name, gradient in found.items():
        assert gradient.dtype == torch.float64
        torch.testing.assert_close(gradient, expected[name], rtol=1e-10, atol=1e-14)


def test_the_step_is_the_one_AdamW_takes_first():
    model = tiny.bert().double()
    made = estimate(model, eta=3e-4)
    for name, gradient in dict(made.gradients).items():
        expected = lora_sb.first_step(gradient.clone(), 3e-4)
        torch.testing.assert_close(made.take(name), expected, rtol=1e-12, atol=0)
    raw = estimate(model, eta=3e-4, sign=False)
    name, gradient = next((n, g.clone()) for n, g in raw.gradients.items())
    assert torch.equal(raw.take(name), -3e-4 * gradient)


def test_no_parameter_gets_a_gradient_and_the_model_is_left_as_it_was():
    model = tiny.bert()
    model.bert.pooler.train()
    model.classifier.bias.requires_grad_(False)
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    modes = [m.training for m in model.modules()]
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    rng = torch.get_rng_state()
    estimate(model, dropout=True)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None and torch.equal(p, weights[n]) for n, p in model.named_parameters())
    assert torch.equal(torch.get_rng_state(), rng)
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())


def test_a_failing_loss_leaves_no_hook_and_no_flag_behind():
    model = tiny.bert()
    with pytest.raises(ZeroDivisionError):
        estimate(model, loss=lambda model, batch: 1 / 0)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_backward_gives_the_same_bits_as_plain(reentrant: bool):
    plain = estimate(tiny.bert(), dropout=True).gradients  # in evaluation mode transformers checkpoints nothing
    model = tiny.bert()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    calls = []
    model.bert.encoder.layer[0].output.dense.register_forward_pre_hook(lambda *_: calls.append(1))
    checkpointed = estimate(model, dropout=True).gradients
    assert len(calls) == 2 * len(batches()), "nothing was recomputed: the test shows nothing"
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)
    assert all(p.grad is None for p in model.parameters())


def test_what_checkpointing_drops_the_estimate_does_not_hold():
    def held(checkpointed: bool) -> int:
        model = tiny.bert()
        if checkpointed:
            model.activation_checkpointing_enable({"use_reentrant": False})
        kept = []

        def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
            with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
                return own_loss(model, batch)

        estimate(model, batches(1), loss=loss, dropout=True)
        return sum(kept)

    assert held(True) < held(False) / 2


def test_dropout_depends_on_seed_and_position_alone():
    model = tiny.bert()
    torch.manual_seed(1)
    one = estimate(model, dropout=True, seed=3).gradients
    torch.manual_seed(2)
    again, other = estimate(model, dropout=True, seed=3).gradients, estimate(model, dropout=True, seed=4).gradients
    without = estimate(model).gradients
    for name in one:
        assert torch.equal(one[name], again[name])
        assert not torch.equal(one[name], other[name]) and not torch.equal(one[name], without[name])


def test_a_loss_may_weigh_its_batches():
    model = tiny.bert().double()
    weighted = estimate(
        model, list(zip(batches(2), (2.0, 0.5), strict=True)), loss=lambda m, b: own_loss(m, b[0]) * b[1]
    )
    first, second = (estimate(model, [batch]).gradients for batch in batches(2))
    for name, gradient in weighted.gradients.items():
        torch.testing.assert_close(gradient, 2.0 * first[name] + 0.5 * second[name], rtol=1e-12, atol=1e-16)


def test_a_half_precision_base_is_summed_in_fp32():
    found = estimate(tiny.bert().bfloat16()).gradients
    exact = estimate(tiny.bert().bfloat16().double()).gradients
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32
        assert float((gradient - exact[name]).norm() / exact[name].norm()) < 0.05


def test_a_transposed_base_layer_is_estimated_as_out_by_in():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=1, n_head=2)).eval()
    rows = [{"input_ids": tiny.tokens(), "labels": tiny.tokens()}]
    found = estimate_update(model, config(target_modules=["c_attn"]), rows, eta=1.0, dropout=False).gradients
    (gradient,) = found.values()
    model(**rows[0]).loss.backward()
    torch.testing.assert_close(gradient, model.transformer.h[0].attn.c_attn.weight.grad.t(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_base_is_estimated_close_to_its_dequantised_self(bits: int):
    bnb = pytest.importorskip("bitsandbytes")
    from lora_xs.adapters.tuner.targets import float_weight

    def quantise(layer: nn.Linear) -> nn.Linear:
        made = (
            bnb.nn.Linear4bit(layer.in_features, layer.out_features, quant_type="nf4", compute_dtype=torch.float32)
            if bits == 4
            else bnb.nn.Linear8bitLt(layer.in_features, layer.out_features, has_fp16_weights=False)
        )
        made.load_state_dict(layer.state_dict())
        return made.to("cpu")

    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))
    packed = nn.Sequential(quantise(whole[0]), nn.Tanh(), quantise(whole[2]))
    x = torch.randn(16, 64)
    for index in (0, 2):
        whole[index].weight.data = float_weight(packed[index]).float()
    settings = config(target_modules=["0", "2"])
    options = {"eta": 1.0, "dropout": False, "loss": lambda model, batch: model(batch).square().mean()}
    found, expected = (estimate_update(m, settings, [x], **options).gradients for m in (packed, whole))
    for name, gradient in found.items():
        assert float((gradient - expected[name]).norm() / expected[name].norm()) < (1e-5 if bits == 4 else 0.05)
    settings.update = estimate_update(packed, settings, [x], **options)
    assert get_peft_model(packed, settings).to("cpu")(x).isfinite().all()  # `.to` as a trainer does


def test_estimates_are_used_up_layer_by_layer():
    model, settings = tiny.bert(), config()
    settings.update = made = estimate(model)
    size = made.bytes
    assert size == 4 * sum(g.numel() for g in made.gradients.values()) and made.batches == 3 and made.peak_bytes >= 0
    left = []
    usual = made.take
    made.take = lambda name: (usual(name), left.append(sum(g.nbytes for g in made.gradients.values())))[0]
    get_peft_model(model, settings)
    assert left == sorted(left, reverse=True) and left[0] < size and left[-1] == 0
    assert settings.update is None


@pytest.mark.parametrize(
    ("arrange", "message"),
    [
        (lambda: estimate(tiny.bert(), [{"input_ids": tiny.tokens()}]), "no loss for these batches"),
        (lambda: estimate_update(tiny.bert(), config(), iter(()), eta=1.0), "no batches"),
        (
            lambda: estimate_update(tiny.bert(), config(target_modules=["nope"]), batches(), eta=1.0),
            "matches no module",
        ),
        (lambda: estimate(tiny.bert(), loss=lambda m, b: m.classifier.weight.sum()), "does not depend on"),
        (lambda: estimate(get_peft_model(tiny.bert(), config(init_weights="random"))), "carries adapters"),
        (lambda: get_peft_model(tiny.bert(), config()), "needs an estimate of the first step"),
    ],
)
def test_mistakes_are_one_line_that_says_what_to_do(arrange, message: str):
    with pytest.raises(UserError, match=message) as error:
        arrange()
    assert "\n" not in str(error.value)


def test_a_module_without_an_estimate_and_a_gradient_that_is_not_finite_are_named():
    model, settings = tiny.bert(), config()
    settings.update = estimate_update(model, config(target_modules=["query"]), batches(), eta=1.0)
    with pytest.raises(UserError, match=r"layer\.0\.attention\.self\.value: the estimate has no gradient"):
        get_peft_model(model, settings)
    made = estimate(tiny.bert(), loss=lambda m, b: own_loss(m, b) * float("nan"))
    with pytest.raises(UserError, match="gradient is not finite"):
        made.take(next(iter(made.gradients)))
