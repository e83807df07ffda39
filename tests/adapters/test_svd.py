"""Truncated SVD: the stated accuracy on every route, signs, determinism, hard matrices, mistakes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lora_xs.adapters import krylov, svd
from lora_xs.adapters.svd import RESIDUAL, TruncatedSvd, certify, decompose, truncated_svd
from lora_xs.adapters.window import part_start
from lora_xs.errors import UserError

PARTS = ("top", "middle", "bottom")


def random(*shape: int, seed: int = 0) -> Tensor:
    """Gaussian entries in fp64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_spectrum(values: Tensor, m: int, n: int) -> tuple[Tensor, Tensor]:
    """An fp64 matrix [m, n] with these singular values, and its right singular vectors [k, n]."""
    k = min(m, n)
    U, V = torch.linalg.qr(random(m, k, seed=1)).Q, torch.linalg.qr(random(n, k, seed=2)).Q
    return (U * values) @ V.mT, V.mT


def power_law(m: int, n: int, exponent: float) -> tuple[Tensor, Tensor]:
    return with_spectrum(torch.arange(1, min(m, n) + 1, dtype=torch.float64) ** -exponent, m, n)


def sine(exact: Tensor, found: Tensor) -> float:
    """Sine of the largest principal angle between the spans of the rows [r, n] of two matrices."""
    found = found.double()
    return float(torch.linalg.matrix_norm(exact - (exact @ found.mT) @ found, ord=2))


def assert_accurate(weight: Tensor, found: TruncatedSvd, rank: int, part: str) -> None:
    exact = torch.linalg.svdvals(weight.double())
    first = part_start(part, rank, exact.numel())
    sigma_1 = float(exact[0])
    certificate = certify(weight, found, sigma_1)
    assert certificate.residual <= RESIDUAL
    assert certificate.orthogonality <= 5e-6
    assert (found.S[:-1] >= found.S[1:]).all()
    assert float((found.S.double() - exact[first : first + rank]).abs().max()) <= RESIDUAL * (sigma_1 or 1.0)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_part_and_dtype_meets_the_stated_accuracy(dtype: torch.dtype, part: str) -> None:
    for m, n, rank in ((96, 64, 5), (64, 96, 64), (600, 560, 9)):
        weight = (random(m, n) / 8).to(dtype)
        found = truncated_svd(weight, rank, part)
        assert found.U.shape == (m, rank) and found.S.shape == (rank,) and found.Vh.shape == (rank, n)
        assert {tensor.dtype for tensor in found} == {torch.float64 if dtype == torch.float64 else torch.float32}
        assert_accurate(weight, found, rank, part)


@pytest.mark.parametrize("mode", ["blocks", "single vectors", "tensors"])
@pytest.mark.parametrize("exponent", [0.25, 0.5, 1.0, 2.0])
def test_krylov_route_finds_the_leading_subspace(monkeypatch, exponent: float, mode: str) -> None:
    monkeypatch.setattr(krylov, "CACHED", 1 << 40 if mode == "single vectors" else 0)
    if mode == "tensors":  # as on a GPU, where nothing becomes a NumPy array
        monkeypatch.setattr(krylov, "_array", lambda tensor: tensor)
    matrix, V = power_law(576, 700, exponent)
    for rank in (1, 16, 25):
        triplets = krylov.krylov_triplets(matrix.float(), rank)
        assert triplets is not None
        assert certify(matrix.float(), TruncatedSvd(*triplets), 1.0).residual < RESIDUAL
        assert sine(V[:rank], triplets[2]) < 1e-4 / (1 if exponent <= 1 else 1e-2)  # steep: the gap is 3e-5 at the end


def test_subspace_error_on_a_large_power_law_is_below_1e_4() -> None:
    for m, n in ((1024, 1024), (4096, 1024)):
        matrix, V = power_law(m, n, 0.5)
        found = truncated_svd(matrix.float(), 25)
        for rank in (16, 25):
            assert sine(V[:rank], found.Vh[:rank]) < 1e-4


def test_flat_spectra_meet_the_stated_accuracy() -> None:
    weight = random(600, 640).sign().float()
    assert_accurate(weight, truncated_svd(weight, 25), 25, "top")


@pytest.mark.parametrize("cached", [0, 1 << 40], ids=["blocks", "single vectors"])
def test_repeated_singular_values_are_all_found(monkeypatch, cached: int) -> None:
    monkeypatch.setattr(krylov, "CACHED", cached)
    doubled, fivefold = ((torch.arange(600, dtype=torch.float64) // copies + 1) ** -0.5 for copies in (2, 5))
    one_pair = torch.arange(1, 601, dtype=torch.float64) ** -0.5
    one_pair[24] = one_pair[23]
    for values in (doubled, fivefold, one_pair):
        weight = with_spectrum(values, 600, 600)[0].float()
        assert_accurate(weight, truncated_svd(weight, 25), 25, "top")


HARD = {
    "zero": torch.zeros(600, 560),
    "ones": torch.ones(560, 600),
    "identity": torch.eye(600),
    "rank 3": (random(600, 3) @ random(3, 560)).float(),
    "one entry": torch.zeros(560, 560).index_put((torch.tensor(3), torch.tensor(5)), torch.tensor(2.0)),
    "small zero": torch.zeros(5, 9),
    "one by one": torch.full((1, 1), -3.0),
    "row": random(1, 40).float(),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", HARD)
def test_degenerate_matrices_give_orthonormal_factors(name: str, part: str) -> None:
    weight = HARD[name]
    rank = min(5, *weight.shape)
    found = truncated_svd(weight, rank, part)
    assert_accurate(weight, found, rank, part)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_scale_of_the_weight_only_scales_the_singular_values(scale: float) -> None:
    for m, n, part in ((600, 560, "top"), (64, 80, "middle")):
        weight = power_law(m, n, 0.5)[0].float()
        found, scaled = truncated_svd(weight, 7, part), truncated_svd(weight * scale, 7, part)
        torch.testing.assert_close(scaled.S / scale, found.S, rtol=1e-4, atol=0)
        assert sine(found.Vh.double(), scaled.Vh) < 1e-3
        assert certify(weight * scale, scaled).residual < RESIDUAL


def test_a_route_that_errs_is_caught_and_another_one_answers(monkeypatch) -> None:
    def wrong(A: Tensor, *window: int) -> krylov.Triplets:
        U, S, Vh = (tensor[:5] if tensor.dim() == 1 else tensor for tensor in torch.linalg.svd(A, full_matrices=False))
        return U[:, :5], S[:5], torch.linalg.qr((Vh[:5] + 1e-4 * random(5, A.shape[1]).float()).mT).Q.mT

    def skewed(A: Tensor, first: int, count: int) -> krylov.Triplets:
        U, S, Vh = torch.linalg.svd(A, full_matrices=False)
        return U[:, [0, 0, 0, 0, 0]], S[[0, 0, 0, 0, 0]], Vh[[0, 0, 0, 0, 0]]

    monkeypatch.setattr(svd, "krylov_triplets", wrong)
    monkeypatch.setattr(svd, "gram_triplets", skewed)
    weight = power_law(560, 560, 0.5)[0].float()
    assert_accurate(weight, truncated_svd(weight, 5), 5, "top")


def test_a_route_on_which_lapack_gives_up_is_passed_over(monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(svd, "gram_triplets", fail)
    weight = random(64, 80).float()
    assert_accurate(weight, truncated_svd(weight, 5), 5, "top")


def test_estimated_residual_is_close_to_the_measured_one() -> None:
    weight = power_law(600, 700, 0.5)[0].float()
    window = decompose(weight, 0, 20)
    spoilt = window.svd._replace(Vh=torch.linalg.qr((window.svd.Vh + 1e-4 * random(20, 700).float()).mT).Q.mT)
    measured = certify(weight, spoilt, window.sigma_1).residual
    assert measured > 1e-4
    assert svd._probed_residual(weight, spoilt, window.sigma_1) == pytest.approx(measured, rel=0.5)


def test_signs_follow_the_stated_rule_and_survive_rounding() -> None:
    for weight in (random(96, 64).float(), power_law(600, 560, 0.5)[0].float()):
        found = truncated_svd(weight, 6)
        index = torch.arange(weight.shape[1], dtype=torch.float64)
        sums = found.Vh.double() @ (1 + (index * (1 + math.sqrt(5)) / 2).frac())
        assert (sums > 0).all()
        shaken = truncated_svd(weight * (1 + 1e-7 * random(*weight.shape, seed=9)).float(), 6)
        assert ((found.U * shaken.U).sum(dim=0) > 0.99).all() and ((found.Vh * shaken.Vh).sum(dim=1) > 0.99).all()
        mirrored = truncated_svd(-weight, 6)
        torch.testing.assert_close(mirrored.U, -found.U, rtol=0, atol=1e-4)


def test_vectors_whose_entries_sum_to_zero_have_stable_signs() -> None:
    centred = random(80, 64)
    centred = (centred - centred.mean(dim=1, keepdim=True)).float()  # every right singular vector sums to zero
    found = truncated_svd(centred, 8)
    shaken = truncated_svd(centred + 1e-6 * random(80, 64, seed=9).float(), 8)
    assert ((found.Vh * shaken.Vh).sum(dim=1) > 0.99).all()


@pytest.mark.parametrize(
    ("m", "n", "part"), [(600, 560, "top"), (96, 64, "top"), (96, 64, "bottom"), (40, 40, "middle")]
)
def test_same_weight_gives_the_same_bits_and_leaves_the_global_generator_alone(m: int, n: int, part: str) -> None:
    weight = random(m, n).float()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = truncated_svd(weight, 8, part)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = truncated_svd(weight.clone(), 8, part)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_strides_gradients_and_precision_settings_do_not_matter() -> None:
    weight = random(96, 64).float()
    plain = truncated_svd(weight, 4)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            strided = truncated_svd(torch.nn.Parameter(weight.mT.contiguous().mT), 4)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert not strided.S.requires_grad
    for one, other in zip(plain, strided, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("weight", "rank", "part", "says"),
    [
        (torch.ones(8, 6), 7, "top", "rank 7 is not in 1…6"),
        (torch.ones(8, 6), 0, "top", "rank 0 is not in 1…6"),
        (torch.tensor([[1.0, float("nan")]]), 1, "top", "NaN or infinite"),
        (torch.tensor([[1.0], [float("-inf")]]), 1, "bottom", "NaN or infinite"),
        (torch.ones(8), 1, "top", r"shape \[8\]"),
        (torch.ones(2, 3, 4), 1, "top", r"shape \[2, 3, 4\]"),
        (torch.ones(0, 4), 1, "top", r"shape \[0, 4\]"),
        (torch.ones(4, 4, dtype=torch.int8), 1, "top", "torch.int8"),
        (torch.ones(4, 4, device="meta"), 1, "top", "meta device"),
        (torch.ones(4, 4), 1, "upper", "'upper'"),
    ],
)
def test_mistakes_name_the_module_and_what_is_wrong(weight: Tensor, rank: int, part: str, says: str) -> None:
    with pytest.raises(UserError, match=f"^encoder.query: .*{says}") as caught:
        truncated_svd(weight, rank, part, name="encoder.query")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("part", PARTS)
def test_gpu_results_stay_there_and_meet_the_stated_accuracy(part: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = True
    weight = power_law(1024, 1100, 0.5)[0].float().cuda()
    found = truncated_svd(weight, 16, part)
    assert {tensor.device.type for tensor in found} == {"cuda"}
    assert_accurate(weight.cpu(), TruncatedSvd(*(tensor.cpu() for tensor in found)), 16, part)
    assert torch.backends.cuda.matmul.allow_tf32
