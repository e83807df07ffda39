"""Every parameter count of the papers' tables that follows from an architecture, from configs alone, without weights.

`CELLS` is a line a printed cell; each is also looked up in the published tables, where these lie beside the repository,
so that no row of a table is left out. What the papers print otherwise than it follows is said in the cell's note.
"""

from __future__ import annotations

import contextlib
import copy
import csv
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
import torch
from torch import nn

from lora_xs.adapters import attach
from lora_xs.adapters.trainable import Counts, count
from lora_xs.models import load_on_meta
from lora_xs.spec import RunSpec
from lora_xs.spec.bind import bind
from lora_xs.spec.compose import compose_config
from lora_xs.spec.resolve import resolve

PAPERS = Path(__file__).resolve().parents[1] / "results" / "published"
FAMILIES = {"table01_glue": "glue", "table02_commonsense": "commonsense", "table03_math": "math",
            "table01_math": "math", "table03_glue": "glue"}  # fmt: skip
UNITS = {"K": 10**3, "M": 10**6, "B": 10**9}
NOT_BUILT = ("dora", "lora_pro")


@dataclass(frozen=True)
class Cell:
    """One printed count, and what follows from the configs."""

    protocol: str
    table: str
    model: str
    method: str
    rank: int | None  # as printed; None: not printed
    printed: str
    computed: int
    how: str = "rounded"  # how the print came from the count: rounded, cut, misprint
    targets: tuple[str, ...] | None = None  # where not the model's: what the method's config says for this table
    given: int | None = None  # the rank that gives the printed count, where none is printed

    @property
    def name(self) -> str:
        """The cell's place, and printed → computed."""
        rank = f" r={self.rank or self.given}" if self.rank or self.given else ""
        return f"{self.protocol} {self.table}: {self.model} {self.method}{rank}: {self.printed} → {self.computed:,}"


QUERY_VALUE = ("attention.self.query", "attention.self.value")
NO_GATE = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")

# fmt: off
CELLS = (
    Cell("lora_xs", "table01_glue", "roberta-large", "full_ft", None, "355000K", 355_361_794),
    Cell("lora_xs", "table01_glue", "roberta-large", "lora", 8, "800K", 786_432, targets=QUERY_VALUE),
    Cell("lora_xs", "table01_glue", "roberta-large", "vera", 256, "61K", 61_440, targets=QUERY_VALUE),
    Cell("lora_xs", "table01_glue", "roberta-large", "lora_xs", 25, "60K", 60_000),
    Cell("lora_xs", "table01_glue", "roberta-large", "lora_xs", 20, "38.4K", 38_400),
    Cell("lora_xs", "table01_glue", "roberta-large", "lora_xs", 16, "24.6K", 24_576),
    Cell("lora_xs", "table01_glue", "roberta-large", "lora_xs", 12, "13.8K", 13_824),
    Cell("lora_xs", "table01_glue", "roberta-large", "lora_xs", 8, "6.1K", 6_144),
    Cell("lora_xs", "table01_glue", "roberta-large", "lora_xs", 4, "1.5K", 1_536),
    Cell("lora_xs", "table02_commonsense", "llama2-7b", "lora", None, "56M", 56_098_816, targets=NO_GATE, given=32),
    Cell("lora_xs", "table02_commonsense", "llama2-7b", "lora_xs", 128, "3.67M", 3_670_016),
    Cell("lora_xs", "table02_commonsense", "llama2-7b", "lora_xs", 64, "0.92M", 917_504),
    Cell("lora_xs", "table02_commonsense", "llama2-7b", "lora_xs", 32, "0.23M", 229_376),
    Cell("lora_xs", "table02_commonsense", "llama3-8b", "lora", None, "57M", 56_623_104, targets=NO_GATE, given=32),
    Cell("lora_xs", "table02_commonsense", "llama3-8b", "lora_xs", 128, "3.67M", 3_670_016),
    Cell("lora_xs", "table02_commonsense", "llama3-8b", "lora_xs", 64, "0.92M", 917_504),
    Cell("lora_xs", "table02_commonsense", "llama3-8b", "lora_xs", 32, "0.23M", 229_376),
    Cell("lora_xs", "table03_math", "mistral-7b", "full_ft", None, "7242M", 7_241_732_096),
    Cell("lora_xs", "table03_math", "mistral-7b", "lora", None, "168M", 167_772_160, given=64),
    Cell("lora_xs", "table03_math", "mistral-7b", "lora_xs", 128, "3.67M", 3_670_016),
    Cell("lora_xs", "table03_math", "mistral-7b", "lora_xs", 64, "0.92M", 917_504),
    Cell("lora_xs", "table03_math", "mistral-7b", "lora_xs", 32, "0.23M", 229_376),
    Cell("lora_xs", "table03_math", "mistral-7b", "lora_xs", 16, "0.057M", 57_344),
    Cell("lora_xs", "table03_math", "gemma-7b", "full_ft", None, "8538M", 8_537_680_896),
    Cell("lora_xs", "table03_math", "gemma-7b", "lora", None, "200M", 200_015_872, given=64),
    Cell("lora_xs", "table03_math", "gemma-7b", "lora_xs", 128, "3.21M", 3_211_264),
    Cell("lora_xs", "table03_math", "gemma-7b", "lora_xs", 64, "0.80M", 802_816),
    Cell("lora_xs", "table03_math", "gemma-7b", "lora_xs", 32, "0.20M", 200_704),
    Cell("lora_xs", "table03_math", "gemma-7b", "lora_xs", 16, "0.050M", 50_176),
    Cell("lora_sb", "table01_math", "mistral-7b", "full_ft", None, "7.24B", 7_241_732_096),
    Cell("lora_sb", "table01_math", "mistral-7b", "lora", 32, "83.88M", 83_886_080, "cut"),
    Cell("lora_sb", "table01_math", "mistral-7b", "rslora", 32, "83.88M", 83_886_080, "cut"),
    Cell("lora_sb", "table01_math", "mistral-7b", "pissa", 32, "83.88M", 83_886_080, "cut"),
    Cell("lora_sb", "table01_math", "mistral-7b", "lora_xs", 32, "0.23M", 229_376),
    Cell("lora_sb", "table01_math", "mistral-7b", "lora_xs", 64, "0.92M", 917_504),
    Cell("lora_sb", "table01_math", "mistral-7b", "lora_xs", 96, "2.06M", 2_064_384),
    Cell("lora_sb", "table01_math", "mistral-7b", "lora_sb", 32, "0.23M", 229_376),
    Cell("lora_sb", "table01_math", "mistral-7b", "lora_sb", 64, "0.92M", 917_504),
    Cell("lora_sb", "table01_math", "mistral-7b", "lora_sb", 96, "2.06M", 2_064_384),
    Cell("lora_sb", "table01_math", "gemma2-9b", "full_ft", None, "9.24B", 9_241_705_984),
    Cell("lora_sb", "table01_math", "gemma2-9b", "lora", 32, "108.04M", 108_036_096),
    Cell("lora_sb", "table01_math", "gemma2-9b", "rslora", 32, "108.04M", 108_036_096),
    Cell("lora_sb", "table01_math", "gemma2-9b", "pissa", 32, "108.04M", 108_036_096),
    Cell("lora_sb", "table01_math", "gemma2-9b", "lora_xs", 32, "0.30M", 301_056),
    Cell("lora_sb", "table01_math", "gemma2-9b", "lora_xs", 64, "1.20M", 1_204_224),
    Cell("lora_sb", "table01_math", "gemma2-9b", "lora_xs", 96, "2.71M", 2_709_504),
    Cell("lora_sb", "table01_math", "gemma2-9b", "lora_sb", 32, "0.30M", 301_056),
    Cell("lora_sb", "table01_math", "gemma2-9b", "lora_sb", 64, "1.20M", 1_204_224),
    Cell("lora_sb", "table01_math", "gemma2-9b", "lora_sb", 96, "2.71M", 2_709_504),
    Cell("lora_sb", "table02_commonsense", "llama3.2-3b", "full_ft", None, "3.21B", 3_212_749_824),
    Cell("lora_sb", "table02_commonsense", "llama3.2-3b", "lora", 32, "48.63M", 48_627_712),
    Cell("lora_sb", "table02_commonsense", "llama3.2-3b", "rslora", 32, "48.63M", 48_627_712),
    Cell("lora_sb", "table02_commonsense", "llama3.2-3b", "pissa", 32, "48.63M", 48_627_712),
    Cell("lora_sb", "table02_commonsense", "llama3.2-3b", "lora_xs", 32, "0.20M", 200_704),
    Cell("lora_sb", "table02_commonsense", "llama3.2-3b", "lora_xs", 64, "0.80M", 802_816),
    Cell("lora_sb", "table02_commonsense", "llama3.2-3b", "lora_xs", 96, "1.81M", 1_806_336),
    Cell("lora_sb", "table02_commonsense", "llama3.2-3b", "lora_sb", 32, "0.20M", 200_704),
    Cell("lora_sb", "table02_commonsense", "llama3.2-3b", "lora_sb", 64, "0.80M", 802_816),
    Cell("lora_sb", "table02_commonsense", "llama3.2-3b", "lora_sb", 96, "1.81M", 1_806_336),
    Cell("lora_sb", "table03_glue", "roberta-large", "full_ft", None, "355.36M", 355_361_794),
    Cell("lora_sb", "table03_glue", "roberta-large", "lora", 8, "2162.69K", 2_162_688),
    Cell("lora_sb", "table03_glue", "roberta-large", "rslora", 8, "2162.69K", 2_162_688),
    Cell("lora_sb", "table03_glue", "roberta-large", "pissa", 8, "2162.69K", 2_162_688),
    Cell("lora_sb", "table03_glue", "roberta-large", "lora_xs", 8, "6.14K", 6_144),
    Cell("lora_sb", "table03_glue", "roberta-large", "lora_xs", 16, "24.57K", 24_576, "cut"),
    Cell("lora_sb", "table03_glue", "roberta-large", "lora_xs", 24, "55.20K", 55_296, "misprint"),
    Cell("lora_sb", "table03_glue", "roberta-large", "lora_sb", 8, "6.14K", 6_144),
    Cell("lora_sb", "table03_glue", "roberta-large", "lora_sb", 16, "24.57K", 24_576, "cut"),
    Cell("lora_sb", "table03_glue", "roberta-large", "lora_sb", 24, "55.20K", 55_296, "misprint"),
)
# fmt: on

OPEN = [f"trainer.{key}" for key in ("learning_rate=1", "head_learning_rate=1", "epochs=1", "batch_size=1",
        "schedule=linear", "warmup_ratio=0", "weight_decay=0", "max_grad_norm=0")]  # fmt: skip


def spec_of(cell: Cell) -> RunSpec:
    """The run of a cell's row, from the configs: nothing that decides the count is said here but its names and rank."""
    rank = cell.rank or cell.given
    config = compose_config(
        ["task=glue/mrpc", f"protocol={cell.protocol}", f"method={cell.method}", f"model={cell.model}", *OPEN]
        + ["task.max_length=128", "method.dropout=0"]
        + ([f"rank.r={rank}"] if rank else [])
        + (["method.alpha=r"] if cell.method in ("lora_xs", "lora_sb") else [])
        + (["init.samples=2"] if cell.method == "lora_sb" else [])
    )
    config.pop("force")
    config["task"]["family"] = FAMILIES[cell.table]
    values, provenance = resolve(config)
    return bind(RunSpec, {**values, "provenance": provenance}, "")


@pytest.fixture(scope="module")
def counted() -> Callable[[RunSpec], Counts]:
    """A function that counts a run's parameters on the meta device; what decides a count is counted once."""
    bases: dict[str, nn.Module] = {}
    found: dict[tuple, Counts] = {}

    def counts(spec: RunSpec) -> Counts:
        key = (spec.model.name, spec.method.name, spec.rank, spec.target_modules)
        if key not in found:
            if spec.model.name not in bases:
                bases[spec.model.name] = load_on_meta(spec.model)
            base = copy.deepcopy(bases[spec.model.name])
            # a LoRA of 10^8 parameters is made on the meta device too; VeRA draws its projections on the CPU
            with contextlib.nullcontext() if spec.method.name == "vera" else torch.device("meta"):
                found[key] = count(attach(base, spec), spec.model.head)
        return found[key]

    return counts


def printed_as(printed: str, number: int, rounding: str) -> bool:
    """Whether `number` is written `printed`. Zeros at the end of a whole number say nothing: 800K may be 786,432."""
    digits, unit = printed[:-1], UNITS[printed[-1]]
    step = Decimal(1).scaleb(-len(digits.partition(".")[2]))
    if "." not in digits:
        step = Decimal(10) ** (len(digits) - len(digits.rstrip("0")))
    return (Decimal(number) / unit / step).quantize(Decimal(1), rounding) * step == Decimal(digits)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_the_count_follows_from_the_configs(cell: Cell, counted: Callable[[RunSpec], Counts]) -> None:
    spec = spec_of(cell)
    assert spec.method.target_modules == cell.targets
    if cell.targets is not None:
        assert spec.provenance["method.target_modules"].startswith("LoRA-XS Table")
    counts = counted(spec)
    found = counts.trainable if cell.method == "full_ft" else counts.adapter
    assert found == cell.computed
    rounded, cut = (printed_as(cell.printed, found, way) for way in (ROUND_HALF_UP, ROUND_DOWN))
    assert {"rounded": rounded, "cut": cut and not rounded, "misprint": not (rounded or cut)}[cell.how]


def test_every_printed_count_is_in_the_list_or_of_a_method_that_is_not_built() -> None:
    known = {(c.protocol, c.table, c.model, c.method, c.rank, c.printed): c for c in CELLS}
    seen: set[tuple] = set()
    tally: Counter[str] = Counter()
    for file in sorted(PAPERS.glob("*/*.csv")):
        for row in csv.DictReader(file.open(encoding="utf-8")):
            if not row.get("trainable_params"):
                continue
            model = row["model"].removesuffix("-v0.1")
            rank = int(row["rank"]) if row["rank"] else None
            key = (file.parent.name, file.stem, model, row["method"], rank, row["trainable_params"])
            tally["rows"] += 1
            if row["method"] in NOT_BUILT:
                tally["not built"] += 1
                continue
            assert key in known, f"{file.name}: {key} is in no list"
            tally[known[key].how] += 1
            seen.add(key)
    assert seen == set(known)
    assert tally == {"rows": 399, "rounded": 325, "cut": 20, "misprint": 14, "not built": 40}
