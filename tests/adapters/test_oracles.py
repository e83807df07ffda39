"""Every method against its derivation from the paper: whole models, logits and gradients, in fp64."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from oracles import lora_sb, rslora, vera
from oracles import lora_xs as tiny
from torch import Tensor, nn

from lora_xs.adapters import attach
from lora_xs.adapters.estimation import EstimationRows

BATCH = {"input_ids": tiny.tokens(), "labels": torch.tensor([0, 1, 1])}
ROWS = [{"input_ids": [(token + 3 * k) % 50 for token in range(7)], "labels": k % 2} for k in range(9)]
Forward = Callable[[Tensor, Tensor, Tensor, dict[str, Tensor]], Tensor]


class Unfused(nn.Module):
    """A base layer whose product is an oracle's, over constants and parameters of its own."""

    def __init__(self, base: nn.Linear, forward: Forward, trained: dict[str, Tensor]) -> None:
        super().__init__()
        self.base, self.product = base, forward
        self.trained = nn.ParameterDict({name: nn.Parameter(t.detach().clone()) for name, t in trained.items()})

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.base.weight, self.base.bias, dict(self.trained))


def collate(rows: list[dict]) -> dict[str, Tensor]:
    return {key: torch.tensor([row[key] for row in rows]) for key in rows[0]}


def adapt(tiny_run, method: str, *overrides: str) -> tuple[nn.Module, nn.Module]:
    """(the plain model, the adapted one) in fp64, the trained parameters moved away from their start."""
    spec = tiny_run(f"method={method}", "rank=4", "init.samples=5" if method == "lora_sb" else "seed=0", *overrides)
    plain = tiny.bert().double()
    torch.manual_seed(0)
    adapted = attach(copy.deepcopy(plain), spec, EstimationRows(spec, ROWS, collate)).double().eval()
    adapted.get_base_model().classifier._forward_pre_hooks.clear()  # a trained head takes fp32 over other bases
    return plain, adapted


def move(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "classifier" not in name:
            parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)


def adapted_layers(model: nn.Module) -> dict[str, nn.Module]:
    found = {n.removeprefix("base_model.model."): m for n, m in model.named_modules() if hasattr(m, "base_layer")}
    assert found
    return found


def check(
    plain: nn.Module, adapted: nn.Module, derive: Callable[[nn.Module], tuple[Forward, dict[str, Tensor]]]
) -> None:
    """Logits and gradients of the adapted model are those of `plain` with every adapted layer derived again."""
    unfused = copy.deepcopy(plain)
    for name, layer in adapted_layers(adapted).items():
        parent, _, child = name.rpartition(".")
        setattr(unfused.get_submodule(parent), child, Unfused(plain.get_submodule(name), *derive(layer)))
    ours, theirs = adapted(**BATCH), unfused(**BATCH)
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-9, atol=1e-10)
    assert (ours.logits - plain(**BATCH).logits).abs().max() > 1e-5, "the adapter does nothing: the test shows nothing"
    ours.loss.backward()
    theirs.loss.backward()
    for name, layer in adapted_layers(adapted).items():
        again = unfused.get_submodule(name).trained
        for key, parameter in derive(layer)[1].items():
            assert parameter.grad.abs().max() > 0
            torch.testing.assert_close(parameter.grad, again[key].grad, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    "overrides", [[], ["init=random"], ["init=svd_random"], ["init=svd_w_bottom", "method.alpha=3"]]
)
def test_lora_xs(tiny_run, overrides: list[str]):
    plain, adapted = adapt(tiny_run, "lora_xs", *overrides)
    move(adapted)

    def derive(layer):
        A, B, s = layer.lora_A["default"], layer.lora_B["default"], layer.lora_alpha["default"] / 4
        return (lambda x, W, b, own: tiny.forward(x, W, b, A, B, own["R"], s)), {"R": layer.lora_R["default"]}

    check(plain, adapted, derive)


@pytest.mark.parametrize("alpha", [4, 10])
def test_lora_sb(tiny_run, alpha: int):
    """From the rows on: the oracle makes its own gradients, step, factors and R; vectors may differ in sign."""
    plain, adapted = adapt(tiny_run, "lora_sb", f"method.alpha={alpha}", "init.dropout=false", "init.batch_size=2")
    spec = tiny_run("method=lora_sb", "rank=4", "init.samples=5", "init.batch_size=2")
    rows = EstimationRows(spec, ROWS, collate)
    chosen = rows.indices
    batches = [collate([ROWS[i] for i in chosen[k : k + 2]]) for k in range(0, 5, 2)]
    names = list(adapted_layers(adapted))
    sums = lora_sb.gradients(plain, names, batches, lambda model, batch: model(**batch).loss)
    unfused, s = copy.deepcopy(plain), alpha / 4
    for name in names:
        A, B, R = lora_sb.factors(lora_sb.first_step(sums[name], rows.step()[0]), 4, s)
        parent, _, child = name.rpartition(".")
        forward = lambda x, W, b, own, A=A, B=B: tiny.forward(x, W, b, A, B, own["R"], s)  # noqa: E731
        layer = Unfused(plain.get_submodule(name), forward, {"R": R})
        layer.factors = (A, B)
        setattr(unfused.get_submodule(parent), child, layer)
    ours, theirs = adapted(**BATCH), unfused(**BATCH)
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=1e-6)  # R is kept in fp32 before .double()
    assert (ours.logits - plain(**BATCH).logits).abs().max() > 1e-3
    ours.loss.backward()
    theirs.loss.backward()
    for name, layer in adapted_layers(adapted).items():
        A, B = unfused.get_submodule(name).factors
        expected = B @ unfused.get_submodule(name).trained["R"].grad @ A  # no sign is left in it
        found = layer.lora_B["default"] @ layer.lora_R["default"].grad @ layer.lora_A["default"]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(("method", "stabilised"), [("lora", False), ("rslora", True)])
def test_lora_and_rslora(tiny_run, method: str, stabilised: bool):
    plain, adapted = adapt(tiny_run, method, "method.alpha=10")
    move(adapted)
    s = rslora.scale(10, 4, stabilised)

    def derive(layer):
        own = {"A": layer.lora_A["default"].weight, "B": layer.lora_B["default"].weight}
        return (lambda x, W, b, own: rslora.forward(x, W, b, own["A"], own["B"], s)), own

    check(plain, adapted, derive)


def test_vera(tiny_run):
    plain, adapted = adapt(tiny_run, "vera")
    move(adapted)

    def derive(layer):
        A, B = layer.vera_A["default"], layer.vera_B["default"]
        own = {"d": layer.vera_lambda_d["default"], "b": layer.vera_lambda_b["default"]}
        return (lambda x, W, b, own: vera.forward(x, W, b, A, B, own["d"], own["b"])), own

    check(plain, adapted, derive)


def test_the_derivations_own_gradients_are_those_of_their_products():
    """The closed forms that the oracles state, against autograd through their forward."""
    generator = torch.Generator().manual_seed(0)
    x, W, bias, A, B, dy, d, b = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in [(7, 12), (20, 12), (20,), (4, 12), (20, 4), (7, 20), (4,), (20,)]
    )
    for wanted in (A, B, d, b):
        wanted.requires_grad_(True)
    for found, wanted in zip(
        torch.autograd.grad(rslora.forward(x, W, bias, A, B, 2.5), (A, B), dy),
        rslora.gradients(x, dy, A, B, 2.5),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)
    for found, wanted in zip(
        torch.autograd.grad(vera.forward(x, W, bias, A, B, d, b), (d, b), dy),
        vera.gradients(x, dy, A, B, d, b),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)
