"""The product and its gradients, against the unfused formula; and how little is kept for backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from oracles import lora_xs as oracle
from peft import get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lora_xs import LoraXsConfig
from lora_xs.adapters.tuner import LoraXsLinear
from lora_xs.adapters.tuner.product import Frozen, adapted_linear, add_adapter

S = 0.7


def operands(dtype: torch.dtype, *batch: int, inputs: int = 9, outputs: int = 7, r: int = 3) -> dict[str, Tensor]:
    """Random x [*batch, in], W, bias, A, B, R of one dtype; x and R require gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "x": (*batch, inputs),
        "W": (outputs, inputs),
        "bias": (outputs,),
        "A": (r, inputs),
        "B": (outputs, r),
        "R": (r, r),
    }
    found = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for name, shape in shapes.items()
    }
    for name in ("x", "R"):
        found[name].requires_grad_(True)
    return found


def fused(x: Tensor, W: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, R: Tensor) -> Tensor:
    return adapted_linear(x, R, Frozen(W, bias, A, B, S))


def added(x: Tensor, W: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, R: Tensor) -> Tensor:
    return add_adapter(F.linear(x, W, bias), x, A, B, R, S)


def grown(model: nn.Module, **settings) -> nn.Module:
    """The model with an adapter on both layers whose R is large enough to matter."""
    config = LoraXsConfig(
        **{"r": 4, "lora_alpha": 6, "target_modules": ["first", "second"], "init_std": 0.3, **settings}
    )
    return get_peft_model(model, config)


def unfused(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """`grown(two_layers())` computed by the oracle's formula from the same tensors."""

    def product(layer: LoraXsLinear, x: Tensor) -> Tensor:
        base = layer.base_layer
        A, B, R = layer.lora_A["default"], layer.lora_B["default"], layer.lora_R["default"]
        return oracle.forward(x, base.weight, base.bias, A, B, R, layer.scaling["default"])

    inner = model.base_model.model
    return lambda x: product(inner.second, torch.tanh(product(inner.first, x)))


def R_gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad for name, p in model.named_parameters() if "lora_R" in name]


def assert_close_to(found: Tensor, expected: Tensor, relative: float = 1e-6) -> None:
    """‖found − expected‖ ≤ relative · ‖expected‖."""
    assert (found - expected).norm() <= relative * expected.norm(), f"{(found - expected).norm() / expected.norm():.1e}"


@pytest.mark.parametrize("product", [fused, added])
@pytest.mark.parametrize("batch", [(5,), (2, 3), ()])
def test_gradients_pass_gradcheck_in_fp64(product, batch):
    o = operands(torch.float64, *batch)
    assert torch.autograd.gradcheck(lambda x, R: product(**{**o, "x": x, "R": R}), (o["x"], o["R"]))
    assert torch.autograd.gradcheck(lambda x, R: product(**{**o, "x": x, "R": R, "bias": None}), (o["x"], o["R"]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("product", [fused, added])
def test_values_and_gradients_equal_autograd_on_the_unfused_formula(product, dtype):
    o = operands(dtype, 40, 25, inputs=96, outputs=64, r=8)
    y = product(**o)
    expected = oracle.forward(**o, s=S)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    assert_close_to(y, expected)
    for found, true in zip(
        torch.autograd.grad(y, (o["x"], o["R"]), dy), torch.autograd.grad(expected, (o["x"], o["R"]), dy), strict=True
    ):
        assert_close_to(found, true)


def test_gradient_of_R_is_the_projected_full_gradient():
    o = operands(torch.float64, 5)
    dy = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (dR,) = torch.autograd.grad(fused(**o), o["R"], dy)
    assert_close_to(dR, oracle.gradient_of_R(o["x"], dy, o["A"], o["B"], S), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_s_gradients_equal_the_unfused_ones(dtype):
    model = grown(oracle.two_layers(dtype=dtype))
    x = torch.randn(8, 5, 12, dtype=dtype, requires_grad=True)
    y, expected = model(x), unfused(model)(x)
    assert_close_to(y, expected)
    true = torch.autograd.grad(expected.square().sum(), [x, *(p for p in model.parameters() if p.requires_grad)])
    y.square().sum().backward()
    assert [g.dtype for g in R_gradients(model)] == [dtype, dtype]
    for found, wanted in zip([x.grad, *R_gradients(model)], true, strict=True):
        assert_close_to(found, wanted)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradients_are_the_same_under_gradient_checkpointing(reentrant):
    model = grown(oracle.two_layers())
    x = torch.randn(6, 12, requires_grad=True)
    model(x).square().sum().backward()
    plain = [g.clone() for g in R_gradients(model)]
    model.zero_grad()
    checkpoint(model, x, use_reentrant=reentrant).square().sum().backward()
    for found, wanted in zip(R_gradients(model), plain, strict=True):
        assert torch.equal(found, wanted)


def test_accumulated_gradients_equal_the_whole_batch_s():
    model = grown(oracle.two_layers(dtype=torch.float64))
    x = torch.randn(12, 12, dtype=torch.float64)
    model(x).square().sum().backward()
    whole = [g.clone() for g in R_gradients(model)]
    model.zero_grad()
    for part in x.split([5, 4, 3]):
        model(part).square().sum().backward()
    for found, wanted in zip(R_gradients(model), whole, strict=True):
        assert_close_to(found, wanted, 1e-12)


@pytest.mark.parametrize("product", [fused, added])
def test_input_of_any_layout_or_size_gives_the_same_rows(product):
    o = operands(torch.float64, 4, 6)
    expected = oracle.forward(**o, s=S)
    turned = o["x"].transpose(0, 1).contiguous().transpose(0, 1)
    assert not turned.is_contiguous()
    torch.testing.assert_close(product(**{**o, "x": turned}), expected)
    torch.testing.assert_close(product(**{**o, "x": o["x"][0, 0]}), expected[0, 0])
    empty = product(**{**o, "x": o["x"][:0]})
    assert empty.shape == (0, 6, 7)
    empty.sum().backward()
    assert torch.equal(o["R"].grad, torch.zeros(3, 3, dtype=torch.float64))


def test_gradient_of_R_needs_no_gradient_of_the_input():
    o = operands(torch.float64, 5)
    (expected,) = torch.autograd.grad(fused(**o).sum(), o["R"])
    y = fused(**{**o, "x": o["x"].detach()})
    assert torch.equal(torch.autograd.grad(y.sum(), o["R"])[0], expected)


def test_differentiating_twice_is_an_error_not_a_wrong_number():
    o = operands(torch.float64, 5)
    (dx,) = torch.autograd.grad(fused(**o).square().sum(), o["x"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


def test_a_base_weight_that_trains_gets_its_gradient_too():
    model = grown(oracle.two_layers(dtype=torch.float64))
    weight = model.base_model.model.first.base_layer.weight.requires_grad_(True)
    x = torch.randn(5, 12, dtype=torch.float64)
    wanted = torch.autograd.grad(unfused(model)(x).sum(), [weight, model.base_model.model.first.lora_R["default"]])
    model(x).sum().backward()
    assert_close_to(weight.grad, wanted[0])
    assert_close_to(R_gradients(model)[0], wanted[1])


def test_dropout_acts_on_the_adapter_s_input_in_training_only():
    model = grown(oracle.two_layers(dtype=torch.float64), lora_dropout=0.4, target_modules=["first"])
    layer = model.base_model.model.first
    x = torch.randn(50, 12, dtype=torch.float64)
    torch.manual_seed(3)
    found = layer(x)
    torch.manual_seed(3)
    dropped = F.dropout(x, 0.4)
    expected = (
        layer.base_layer(x)
        + layer.scaling["default"]
        * dropped
        @ (layer.lora_B["default"] @ layer.lora_R["default"] @ layer.lora_A["default"]).T
    )
    torch.testing.assert_close(found, expected)
    model.eval()
    assert torch.equal(layer(x), layer(x))


def test_a_bf16_base_keeps_R_and_its_gradient_in_fp32():
    model = grown(oracle.two_layers(dtype=torch.bfloat16))
    double = grown(oracle.two_layers(dtype=torch.bfloat16))
    double.load_state_dict(model.state_dict())
    double.double()
    x = torch.randn(64, 12).bfloat16()
    model(x).float().square().sum().backward()
    double(x.double()).square().sum().backward()
    for found, wanted in zip(R_gradients(model), R_gradients(double), strict=True):
        assert found.dtype == torch.float32
        assert_close_to(found.double(), wanted, 2e-2)


def kept_bytes(module: nn.Module, x: Tensor, owned: tuple[Tensor, ...] = ()) -> int:
    """Bytes of the tensors packed for backward by one forward, those sharing memory with `owned` left out."""
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        module(x)
    mine = {t.untyped_storage().data_ptr() for t in owned}
    return sum(t.numel() * t.element_size() for t in kept if t.untyped_storage().data_ptr() not in mine)


@pytest.mark.parametrize("shape", [(64, 48), (4, 16, 48)])
def test_backward_keeps_what_the_frozen_layer_keeps_plus_tokens_times_r(shape):
    r, tokens, itemsize = 4, 64, 4
    frozen = nn.Linear(48, 32).requires_grad_(False)
    model = nn.Sequential(frozen)
    layer = get_peft_model(model, LoraXsConfig(r=r, target_modules=["0"])).base_model.model[0]
    x = torch.randn(shape, requires_grad=True)
    own = kept_bytes(frozen, x)
    assert kept_bytes(layer, x) <= own + (tokens * r + r * r) * itemsize
    frozen.weight.requires_grad_(True)  # the base trains: the layer is called, the adapter added to its product
    assert kept_bytes(layer, x) <= kept_bytes(frozen, x) + (tokens * r + r * r) * itemsize


def test_a_frozen_adapter_keeps_nothing_of_its_input():
    model = nn.Sequential(nn.Linear(48, 32)).requires_grad_(False)
    layer = get_peft_model(model, LoraXsConfig(r=4, target_modules=["0"])).base_model.model[0]
    layer.set_requires_grad("default", False)
    x = torch.randn(64, 48, requires_grad=True)
    assert kept_bytes(layer, x, (layer.base_layer.weight, layer.lora_R["default"])) == 0
