"""The initialisations: what A and B are, that they can be made again, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import lora_xs as oracle

from lora_xs.adapters.factors import Recipe, build_factors
from lora_xs.errors import UserError


def weight(out_features: int = 20, in_features: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randn(out_features, in_features, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("part", "first"), [("top", 0), ("middle", 4), ("bottom", 8)])
def test_svd_factors_are_the_singular_triplets_of_their_part(part, first):
    W = weight()
    A, B, R0, _, report = build_factors(W, Recipe(r=4, part=part), name="m")
    expected_A, expected_B = oracle.factors(W, 4, first)
    torch.testing.assert_close((B @ A).double(), expected_B @ expected_A, atol=1e-5, rtol=0)
    torch.testing.assert_close(B.T @ B, torch.eye(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(A.norm(dim=1).double(), expected_A.norm(dim=1), atol=1e-5, rtol=0)
    assert R0 is None
    assert report.residual is not None and report.residual <= 1e-5
    assert report.gap is not None and report.gap > 0


def test_without_sigma_A_has_orthonormal_rows_and_B_is_the_same():
    W = weight()
    with_sigma, without = build_factors(W, Recipe(r=4), name="m"), build_factors(W, Recipe(r=4, sigma=False), name="m")
    torch.testing.assert_close(without.A @ without.A.T, torch.eye(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(without.A * with_sigma.A.norm(dim=1, keepdim=True), with_sigma.A, atol=1e-5, rtol=0)
    assert torch.equal(without.B, with_sigma.B)


@pytest.mark.parametrize(("bounds", "fan_a", "fan_b"), [("official", 4, 2000), ("fan_in", 1000, 4)])
def test_random_factors_fill_the_bounds_of_their_reading(bounds, fan_a, fan_b):
    A, B, *_ = build_factors(torch.zeros(2000, 1000), Recipe("random", r=4, kaiming_bounds=bounds), name="m")
    for factor, fan in ((A, fan_a), (B, fan_b)):
        assert 0.99 / math.sqrt(fan) < factor.abs().max() <= 1 / math.sqrt(fan)
        assert factor.std() == pytest.approx(1 / math.sqrt(3 * fan), rel=0.03)


def test_random_factors_depend_on_seed_name_and_shape_alone():
    recipe = Recipe("random", r=3, seed=5)
    torch.manual_seed(1)
    one = build_factors(weight(seed=1), recipe, name="layer.0.query")
    torch.manual_seed(2)
    build_factors(weight(seed=3), recipe, name="layer.1.query")
    again = build_factors(weight(seed=2), recipe, name="layer.0.query")
    assert torch.equal(one.A, again.A) and torch.equal(one.B, again.B)
    assert one.digest != again.digest
    for other in (
        build_factors(weight(), recipe, name="layer.1.query"),
        build_factors(weight(), Recipe("random", r=3, seed=6), name="layer.0.query"),
    ):
        assert not torch.equal(one.A, other.A) and not torch.equal(one.B, other.B)


def test_random_factors_are_the_ones_of_every_earlier_version():
    # Golden: what the next line gave with torch 2.13.0 on x86-64.
    A, B, *_ = build_factors(torch.zeros(6, 5), Recipe("random", r=2, seed=42), name="golden")
    torch.testing.assert_close(A[0, :3], torch.tensor([0.1586077, -0.0518294, -0.645211]), atol=1e-6, rtol=0)
    torch.testing.assert_close(B[0], torch.tensor([0.0485695, 0.1515018]), atol=1e-6, rtol=0)


def test_svd_random_ignores_the_weight_and_has_the_form_of_an_svd():
    recipe = Recipe("svd_random", r=4)
    one, other = build_factors(weight(seed=1), recipe, name="m"), build_factors(weight(seed=2), recipe, name="m")
    assert torch.equal(one.A, other.A) and torch.equal(one.B, other.B)
    torch.testing.assert_close(one.B.T @ one.B, torch.eye(4), atol=1e-5, rtol=0)
    rows = one.A @ one.A.T
    torch.testing.assert_close(rows, torch.diag(rows.diag()), atol=1e-5, rtol=0)
    assert not torch.equal(one.A, build_factors(weight(seed=1), recipe, name="another").A)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("init", ["svd_w", "random"])
def test_factors_come_in_the_weight_s_dtype(dtype, init):
    A, B, *_ = build_factors(weight().to(dtype), Recipe(init, r=4), name="m")
    assert A.dtype == B.dtype == dtype
    assert A.is_contiguous() and B.is_contiguous()


def test_recipe_json_holds_only_what_the_factors_depend_on():
    assert (
        Recipe(r=4, seed=7).json() == Recipe(r=4, seed=8).json() == '{"init":"svd_w","part":"top","r":4,"sigma":true}'
    )
    assert Recipe("random", part="top").json() == Recipe("random", part="bottom").json()
    assert Recipe("random", seed=1).json() != Recipe("random", seed=2).json()
    assert Recipe(r=4).json() != Recipe(r=5).json() != Recipe(r=5, part="bottom").json()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"init": "svd"}, "svd_w, svd_random, random"),
        ({"r": 0}, "r=0"),
        ({"r": True}, "r=True"),
        ({"part": "upper"}, "part='upper'"),
        ({"kaiming_bounds": "fan_out"}, "kaiming_bounds='fan_out'"),
        ({"seed": 1.5}, "init_seed=1.5"),
    ],
)
def test_unknown_values_are_refused_by_name(values, named):
    with pytest.raises(UserError, match=named) as error:
        Recipe(**values)
    assert "\n" not in str(error.value)


def test_rank_above_a_dimension_names_module_and_both_numbers():
    with pytest.raises(UserError, match=r"encoder\.query.*13.*12"):
        build_factors(weight(), Recipe("random", r=13), name="encoder.query")


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_names_the_module(poison):
    W = weight()
    W[3, 4] = poison
    with pytest.raises(UserError, match=r"encoder\.query"):
        build_factors(W, Recipe(r=4), name="encoder.query")
