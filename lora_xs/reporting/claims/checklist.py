"""The checklist: every assertion of the papers that is tested, in their order."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from lora_xs.reporting.cells import Cell
from lora_xs.reporting.claims.claim import Claim, Pairs, Part
from lora_xs.reporting.claims.from_records import (
    PERCENT,
    first_epochs,
    other_alphas,
    run_pairs,
    start_loss,
    start_overhead,
    training_seconds,
)
from lora_xs.reporting.claims.matching import NATS, RATES, key_of, matched, named, number
from lora_xs.reporting.claims.pair import Found, Lost, Pair
from lora_xs.reporting.figures.efficiency import own_parameters, printed_parameters
from lora_xs.reporting.material import Material

XS, SB, LORA = {"method": "lora_xs"}, {"method": "lora_sb"}, {"method": "lora"}
GRIDS = tuple(f"table{n}_init_grid_{task}" for n, task in ((12, "sst2"), (13, "mrpc"), (14, "cola"), (15, "qnli")))
SIDES = tuple(f"table{n}_top_vs_bottom_{t}" for n, t in ((18, "cola"), (19, "qnli"), (20, "mrpc"), (21, "sst2")))
SIGMAS = tuple(f"table{n}_singular_values_{t}" for n, t in ((22, "sst2"), (23, "mrpc"), (24, "cola"), (25, "qnli")))
KEPT = tuple(f"table{n}_singular_value_retention_{t}" for n, t in (("08", "mrpc"), ("09", "sst2"), ("10", "mnli")))
NOISES = tuple(f"update_plus_noise_1e-{n}" for n in (2, 3, 4, 5))
SB_TABLES = ("sb_table01_math", "sb_table02_commonsense", "sb_table03_glue")
AT_BEST = "each variant at the best rates of its grid, seed by seed; a task's best printed cell against the other's"


def best_rates(key: str, better: str, worse: str, own: str) -> Pairs:
    """Two variants of a grid of rates. own: what `worse` is called among mini_init_best's initialisations."""

    def pairs(material: Material, ours: bool) -> Found:
        here = key if any(key in cell.place for cell in material.cells) else "init"
        names = (better, worse) if here == key else ("svd_w", own)
        return matched(material.cells, ours, {here: names[0]}, {here: names[1]}, best_over=RATES)

    return pairs


def sigma_but_for_mrpc(material: Material, ours: bool) -> Found:
    """With Σ minus without, of all tasks but MRPC."""
    cells = tuple(cell for cell in material.cells if cell.place.get("task") != "mrpc")
    return best_rates("a_init", "u_sigma", "u", "svd_w_no_sigma")(replace(material, cells=cells), ours)


def no_sigma_on_mrpc(material: Material, ours: bool) -> Found:
    """Without Σ minus with, of MRPC."""
    cells = tuple(cell for cell in material.cells if cell.place.get("task") == "mrpc")
    pairs = best_rates("a_init", "u_sigma", "u", "svd_w_no_sigma")(replace(material, cells=cells), ours)
    return [replace(one, difference=-one.difference) if isinstance(one, Pair) else one for one in pairs]


def fewer_parameters(material: Material, ours: bool) -> Found:
    """How many parameters VeRA trains for each of LoRA-XS's at rank 16."""
    found: dict[str, float] = {}
    for cell in material.cells:
        count = own_parameters(cell) if ours else printed_parameters(cell)
        if count and cell.place.get("method") == "vera":
            found.setdefault("vera", count)
        if count and cell.place.get("method") == "lora_xs" and cell.place.get("rank") == "16":
            found.setdefault("lora_xs", count)
    if len(found) < 2:
        return []
    return [Pair("parameters", None, found["vera"] / found["lora_xs"], "times")]


def next_rank(material: Material, ours: bool) -> Found:
    """LoRA-XS at each rank minus the rank before."""
    ranks = sorted({c.place["rank"] for c in material.cells if c.place.get("method") == "lora_xs"}, key=int)
    return [
        replace(one, split=f"rank {high} over {low}")
        for low, high in pairwise(ranks)
        for one in matched(
            material.cells, ours, {**XS, "rank": high}, {**XS, "rank": low}, words=f"rank {high} over {low}, "
        )
    ]


def start_below(material: Material, ours: bool) -> Found:
    """LoRA-XS's loss at the start minus LoRA-SB's."""
    if not ours:
        return []
    return run_pairs(material, SB, XS, start_loss(material), NATS, lambda sb, xs: xs - sb)


def speed(material: Material, ours: bool) -> Found:
    """How many percent of LoRA's seconds LoRA-XS saves, at equal rank and on equal machines."""
    if ours:
        return run_pairs(
            material, XS, LORA, training_seconds, PERCENT, lambda xs, lora: 100 * (lora - xs) / lora,
            equal_machines=True,
        )  # fmt: skip
    theirs = {key_of(c.place, {"method"}): number(c, False) for c in material.cells if c.place.get("method") == "lora"}
    pairs = []
    for cell in material.cells:
        place = key_of(cell.place, {"method"})
        lora, xs = theirs.get(place), number(cell, False)
        if cell.place.get("method") == "lora_xs" and lora and xs:
            pairs.append(Pair(named(place), None, 100 * (lora - xs) / lora, PERCENT))
    return pairs


def variants(key: str, better: str, *worse: str) -> Pairs:
    """One variant minus each of the others."""

    def pairs(material: Material, ours: bool) -> Found:
        return [
            one
            for other in worse
            for one in matched(material.cells, ours, {key: better}, {key: other}, words=f"over {other}, ")
        ]

    return pairs


def against(better: dict[str, str], worse: dict[str, str], by: str = "") -> Pairs:
    """One method minus another. by: the coordinate whose values are judged apart."""
    return lambda material, ours: matched(material.cells, ours, better, worse, by=by)


def _projected(material: Material) -> list[Cell]:
    there = [cell for cell in material.cells if "retained_fraction" in cell.place]
    return [cell for cell in there if cell.place.get("analysis", "projection") == "projection"]


def attention_kept(material: Material, ours: bool) -> Found:
    """Of the query: the score with 1 % of the singular vectors minus that with half of them."""
    return _fall(material, ours, "query")


def dense_falls_more(material: Material, ours: bool) -> Found:
    """How much more the output dense loses from half to 1 % than the query does."""
    query = {(p.place, p.seed): p.difference for p in _fall(material, ours, "query") if isinstance(p, Pair)}
    found: list[Pair | Lost] = []
    for one in _fall(material, ours, "output.dense"):
        if isinstance(one, Lost):
            found.append(one)
        elif (one.place, one.seed) in query:
            found.append(replace(one, difference=query[one.place, one.seed] - one.difference))
    return found


def _fall(material: Material, ours: bool, module: str) -> Found:
    few, half = {"module": module, "retained_fraction": "0.01"}, {"module": module, "retained_fraction": "0.5"}
    return matched(_projected(material), ours, few, half, ignoring=("analysis",))


def top_kept(material: Material, ours: bool) -> Found:
    """The top part of the singular values minus the bottom part, where a part is kept, of every module."""
    cells = [c for c in material.cells if "retained_fraction" in c.place]
    cells = [c for c in cells if c.place.get("analysis", "spectrum") == "spectrum"]
    cells = [c for c in cells if 0 < float(c.place["retained_fraction"]) < 1]
    return matched(cells, ours, {"subset": "top"}, {"subset": "bottom"})


def fifty_rows(material: Material, ours: bool) -> Found:
    """50 rows for the estimate minus 500."""
    return matched(material.cells, ours, {"init_samples": "50"}, {"init_samples": "500"})


def matches_lora(material: Material, ours: bool) -> Found:
    """LoRA-XS at rank 25 minus LoRA, task by task."""
    return matched(material.cells, ours, {**XS, "rank": "25"}, LORA, ignoring=("rank",))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "svd_beats_random", "The SVD of W beats random factors at equal rank", "LoRA-XS Tables 4, 12–15", GRIDS,
        ("mini_init_best",), (Part("SVD of W above random", best_rates("init", "svd_w", "random", "random")),), AT_BEST,
    ),
    Claim(
        "svd_of_w_beats_svd_of_noise", "The SVD of W beats the SVD of a random matrix of W's shape",
        "LoRA-XS Tables 4, 12–15", GRIDS, ("mini_init_best",),
        (Part("SVD of W above SVD of random", best_rates("init", "svd_w", "svd_random", "svd_random")),), AT_BEST,
    ),
    Claim(
        "top_beats_bottom", "Top singular vectors beat bottom ones", "LoRA-XS Tables 18–21", SIDES, ("mini_init_best",),
        (Part("top above bottom", best_rates("singular_vectors", "top", "bottom", "svd_w_bottom")),), AT_BEST,
    ),
    Claim(
        "sigma_helps_but_for_mrpc", "Singular values in A help, except on MRPC", "LoRA-XS Tables 22–25", SIGMAS,
        ("mini_init_best",), (
            Part("with Σ above without, but for MRPC", sigma_but_for_mrpc),
            Part("MRPC: without Σ above with", no_sigma_on_mrpc),
        ), AT_BEST,
    ),
    Claim(
        "xs_beats_vera", "LoRA-XS at rank 16 beats VeRA with 2.5 times fewer parameters", "LoRA-XS Table 1",
        ("table01_glue",), ("mini_glue",),
        (
            Part("LoRA-XS r=16 above VeRA", against({**XS, "rank": "16"}, {"method": "vera"})),
            Part("VeRA trains 2.5 times as many (2.4 counts: 61K / 24.6K)", fewer_parameters, -2.4, counted=True),
        ), "task by task and seed by seed, averages left out; parameters without the head",
    ),
    Claim(
        "xs_beats_lora", "LoRA-XS at rank 25 scores above LoRA", "LoRA-XS Table 1", ("table01_glue",), ("mini_glue",),
        (Part("LoRA-XS r=25 above LoRA", matches_lora),), "task by task and seed by seed, averages left out",
    ),
    Claim(
        "more_rank_is_better", "LoRA-XS gets better with rank", "LoRA-XS Table 1", ("table01_glue",), ("mini_glue",),
        (Part("each rank above the one before", next_rank),),
        "neighbouring ranks, each step by itself, task by task and seed by seed",
    ),
    Claim(
        "svd_takes_no_time", "The SVD takes less than 1 % of fine-tuning", "LoRA-XS Table 5", ("table05_svd_overhead",),
        ("mini_glue",), (Part("under 1 % of the seconds of training", start_overhead, 1.0),),
        "a run each; runs whose factors came from the store are left out",
    ),
    Claim(
        "xs_trains_as_fast_as_lora", "LoRA-XS trains as fast as LoRA", "LoRA-XS Table 6", ("table06_runtime",),
        (), (Part("at most 5 % slower", speed, 5.0),),
        "seconds of training at equal rank, hardware and threads; results/benchmarks.md times the methods in turns",
    ),
    Claim(
        "svd_learns_faster", "In the first epochs, LoRA-XS learns faster than with random factors", "LoRA-XS Table 16",
        ("table16_init_learning_curve",), ("mini_init_best",),
        (Part("SVD of W above random after epochs 1 and 2", first_epochs),),
        "task and rank, seed by seed, the mean of both epochs; of a grid, each at its best rates",
    ),
    Claim(
        "attention_needs_few_directions",
        "Self-attention tolerates 1 % of the singular vectors, the output dense does not", "LoRA-XS Table 11",
        ("table11_delta_projection",), ("mini_spectrum",),
        (
            Part("query with 1 % at most a point below query with half", attention_kept, 1.0),
            Part("output dense falls more than query", dense_falls_more),
        ), "ΔW projected; run by run, the mean of top, middle and bottom",
    ),
    Claim(
        "top_directions_carry_the_model", "The top singular vectors hold what fine-tuning learned, the bottom do not",
        "LoRA-XS Tables 8–10", KEPT, ("mini_spectrum",), (Part("top kept above bottom kept", top_kept),),
        "run by run, the mean over modules and fractions between 0 and 1",
    ),
    Claim(
        "sb_beats_xs", "LoRA-SB beats LoRA-XS at each rank", "LoRA-SB Tables 1–3", SB_TABLES,
        ("mini_glue", "mini_math", "mini_commonsense"), (Part("LoRA-SB above LoRA-XS", against(SB, XS, by="rank")),),
        "rank by rank and seed by seed, the mean of a run's tests, averages left out; held-out loss where there is one",
    ),
    Claim(
        "sb_starts_lower", "LoRA-SB starts at a lower loss than LoRA-XS", "LoRA-SB Figure 2",
        ("sb_figure02_training_loss",), ("mini_math", "mini_commonsense"),
        (Part("loss before the first step", start_below),), "seed by seed at equal rank; nothing is printed",
    ),
    Claim(
        "sb_needs_no_alpha", "LoRA-SB needs no tuning of alpha", "LoRA-SB §3", (*SB_TABLES,), ("mini_sb",),
        (Part("another alpha moves the score by less than a point", other_alphas, 1.0),),
        "runs that differ in alpha alone, wherever they lie; no table of the paper varies it",
    ),
    Claim(
        "few_rows_suffice", "50 rows suffice for LoRA-SB's estimate", "LoRA-SB version 4, table of init samples",
        ("sb_table_v4_init_samples",), ("mini_sb",), (Part("50 rows at most half a point below 500", fifty_rows, 0.5),),
        "seed by seed, the mean of a run's tests",
    ),
    Claim(
        "noise_hurts", "Noise on the estimated update hurts", "LoRA-SB Table 4", ("sb_table04_decomposed_matrix",),
        ("mini_sb",),
        (Part("ΔW above ΔW with noise", variants("decomposed_matrix", "update", *NOISES)),),
        "seed by seed, the mean of a run's tests and over the sizes of noise",
    ),
    Claim(
        "orthonormal_is_better", "Orthonormal factors beat others", "LoRA-SB Figure 3", ("sb_figure03_orthonormality",),
        ("mini_sb",), (Part("orthonormal above not", variants("variant", "orthonormal", "non_orthonormal")),),
        "seed by seed, the mean of a run's tests",
    ),
)  # fmt: skip
