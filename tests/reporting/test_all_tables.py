"""From synthetic records alone every table of both papers comes out, laid out as printed, beside what is printed."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from latex_check import check_latex
from synthetic import write_synthetic
from tables_command import markdown_rows, tables_script

from lora_xs.reporting.evidence import Evidence, read_evidence
from lora_xs.reporting.layout import Laid
from lora_xs.reporting.noise import Status
from lora_xs.reporting.published import read_published
from lora_xs.reporting.settings import RUN_BY, read_settings
from lora_xs.reporting.table import Table, make_table
from lora_xs.reporting.trace import trace
from lora_xs.sweeps.experiment_file import experiment_names, load_experiment

GOLDEN = Path(__file__).parent / "golden"
GOLDEN_TABLES = ("table01_glue", "table12_init_grid_sst2", "sb_table01_math")
RATES = ("0.0005", "0.001", "0.005")
GLUE = ("SST-2", "MRPC", "CoLA", "QNLI", "RTE", "STS-B", "Avg.")
COMMONSENSE = ("BoolQ", "PIQA", "SIQA", "HellaSwag", "WinoGrande", "ARC-e", "ARC-c", "OBQA", "Avg.")
SB_ROWS = [
    *(("Full FT", "–"), ("LoRA", "32"), ("rsLoRA", "32"), ("PiSSA", "32"), ("DoRA", "32"), ("LoRA-Pro", "32")),
    *((method, rank) for method in ("LoRA-XS", "LoRA-SB") for rank in ("32", "64", "96")),
]
SB_RANKS = {"32": "8", "64": "16", "96": "24"}
GLUE_ROWS = [
    *(("Full FT", "–"), ("LoRA", "8"), ("VeRA", "256")),
    *(("LoRA-XS", rank) for rank in ("25", "20", "16", "12", "8", "4")),
]
MODULES = ("query", "value", "key", "attention.output.dense", "intermediate.dense", "output.dense")
FRACTIONS = ("0.0", "0.1", "0.25", "0.5", "0.75", "0.9", "1.0")
PARTS = ("top", "middle", "bottom")
LAYOUTS: dict[str, tuple[tuple[str, ...], dict[str | None, list[tuple[str, ...]]]]] = {  # columns, rows by block
    "table01_glue": (GLUE, {None: GLUE_ROWS}),
    "table02_commonsense": (
        COMMONSENSE,
        {
            model: [("LoRA", "–"), *(("LoRA-XS", rank) for rank in ("128", "64", "32"))]
            for model in ("LLaMA2-7B", "LLaMA3-8B")
        },
    ),
    "figure01_parameter_efficiency": (GLUE, {None: GLUE_ROWS}),
    "table03_math": (
        ("GSM8K", "MATH"),
        {
            model: [("Full FT", "–"), ("LoRA", "–"), *(("LoRA-XS", rank) for rank in ("128", "64", "32", "16"))]
            for model in ("Mistral-7B", "Gemma-7B")
        },
    ),
    "table17_init_hparams": (
        ("LR", "classifier LR", "epochs"),
        {
            None: [
                (task, init, rank)
                for task in ("SST-2", "CoLA", "QNLI")
                for init in ("SVD of W", "Random")
                for rank in ("8", "12", "20")
            ]
        },
    ),
    "sb_table03_glue": (
        ("CoLA", "RTE", "MRPC", "STS-B", "QNLI", "SST-2", "Avg."),
        {None: [(method, SB_RANKS.get(rank, rank)) for method, rank in SB_ROWS]},
    ),
    "sb_figure03_orthonormality": (("GSM8K", "MATH"), {None: [("orthonormal",), ("not orthonormal",)]}),
    "table04_init_summary": (
        ("SST-2", "CoLA", "MRPC", "QNLI"),
        {None: [("Random",), ("SVD of random",), ("SVD of W",)]},
    ),
    "table05_svd_overhead": (
        ("fine-tuning (s)", "SVD (s)", "overhead (%)"),
        {None: [(task, rank) for task in ("SST-2", "MRPC") for rank in ("4", "25")]},
    ),
    "table06_runtime": (("LoRA", "LoRA-XS"), {None: [("16",), ("32",), ("64",)]}),
    "table07_glue_hparams": (
        ("LR", "classifier LR", "epochs"),
        {
            None: [
                (task, rank)
                for task in ("SST-2", "MRPC", "CoLA", "QNLI", "RTE", "STS-B")
                for rank in ("4", "8", "12", "16", "20", "25")
            ]
        },
    ),
    "table16_init_learning_curve": (
        ("epoch 1", "epoch 2", "best epoch"),
        {
            task: [(rank, init) for rank in ("8", "12", "20") for init in ("Random", "SVD of W")]
            for task in ("CoLA", "SST-2", "QNLI")
        },
    ),
    "sb_table01_math": (("GSM8K", "MATH"), {"Mistral-7B": SB_ROWS, "Gemma-2 9B": SB_ROWS}),
    "sb_table02_commonsense": (COMMONSENSE, {None: SB_ROWS}),
    "sb_table04_decomposed_matrix": (
        ("GSM8K", "MATH"),
        {None: [("Kaiming",), *((f"ΔW + noise 1e-{n}",) for n in (2, 3, 4, 5)), ("ΔW",)]},
    ),
    "sb_table05_init_overhead": (
        ("initialisation (s)", "epoch (s)"),
        {None: [("Mistral-7B",), ("Gemma-2 9B",), ("Llama-3.2 3B",)]},
    ),
    "sb_table06_inference_cost": (
        ("MACs", "FLOPs"),
        {
            "RoBERTa-large": [("LoRA", "8"), ("LoRA-SB", "16"), ("LoRA-SB", "24")],
            **{
                model: [("LoRA", "32"), ("LoRA-SB", "64"), ("LoRA-SB", "96")]
                for model in ("Llama-3.2 3B", "Mistral-7B", "Gemma-2 9B")
            },
        },
    ),
    "sb_table_v4_init_samples": (
        ("Mistral-7B GSM8K", "Mistral-7B MATH", "Gemma-2 9B GSM8K", "Gemma-2 9B MATH"),
        {None: [(samples,) for samples in ("1", "5", "25", "50", "100", "200", "500")]},
    ),
    "table11_delta_projection": (
        ("MRPC", "SST-2", "MNLI"),
        {
            module: [(fraction, part) for fraction in ("0.01", "0.1", "0.25", "0.5") for part in PARTS]
            for module in ("query", "intermediate.dense", "output.dense")
        },
    ),
    **{
        f"table{number}": (PARTS, {f"fraction {float(fraction):g}": [(m,) for m in MODULES] for fraction in FRACTIONS})
        for number in (
            *("08_singular_value_retention_mrpc", "09_singular_value_retention_sst2"),
            "10_singular_value_retention_mnli",
        )
    },
    **{
        name: (
            tuple(f"classifier LR {rate}" for rate in RATES),
            {block: [(rate,) for rate in RATES] for block in blocks},
        )
        for prefix, blocks in {
            "table12": ("Random", "SVD of random", "SVD of W"),
            "table13": ("Random", "SVD of random", "SVD of W"),
            "table14": ("Random", "SVD of random", "SVD of W"),
            "table15": ("Random", "SVD of random", "SVD of W"),
            **{f"table{n}": ("singular vectors bottom", "singular vectors top") for n in (18, 19, 20, 21)},
            **{f"table{n}": ("A with Σ", "A without Σ") for n in (22, 23, 24, 25)},
        }.items()
        for name in experiment_names()
        if name.startswith(prefix)
    },
}
EMPTY: set[Status] = {"not run", "not built"}


@pytest.mark.slow  # one test, so that no worker composes all runs again
def test_every_table_comes_out_of_synthetic_records_as_it_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_synthetic(tmp_path / "runs")
    to = tmp_path / "tables"
    assert tables_script().main(["--results", str(tmp_path / "runs"), "--to", str(to)]) == 0
    assert capsys.readouterr().err.count("\n") == 0  # composed once, for the records
    evidence = read_evidence([tmp_path / "runs"])
    tables = {name: make_table(load_experiment(name), evidence) for name in experiment_names()}
    for name, table in tables.items():
        laid_out_as_printed(name, table.laid)
        every_cell_is_filled(name, table)
        every_published_number_is_written(name, table, to)
        ours_and_published_share_no_column(name, to)
        latex_is_sound(name, to)
        marked_synthetic(name, to)
        traceable(table, evidence)
    assert {status for table in tables.values() for status in table.counts} >= {"reproduced", "within noise", "off"}
    assert (to / "README.md").read_text().count("SYNTHETIC ") >= len(tables)
    for name in GOLDEN_TABLES:
        as_golden(name, to)
    compiles(to)


def laid_out_as_printed(name: str, laid: Laid) -> None:
    if not laid.has_published:
        return
    columns, blocks = LAYOUTS[name]
    assert laid.columns == columns, name
    assert {block.title: [row.labels for row in block.rows] for block in laid.blocks} == blocks, name


def every_cell_is_filled(name: str, table: Table) -> None:
    for cell in table.cells:
        planned = cell.planned and cell.reason is None
        assert not planned or (cell.n == cell.planned and cell.status not in EMPTY), (name, cell.place)


def every_published_number_is_written(name: str, table: Table, to: Path) -> None:
    files = table.experiment.published
    read = read_settings if name in RUN_BY else read_published
    printed = Counter(
        cell.printed + (f" ± {cell.printed_std}" if cell.printed_std else "") for file in files for cell in read(file)
    )
    heads, *rows = markdown_rows((to / f"{name}.md").read_text())
    shown = [number for number, text in enumerate(heads) if text.endswith(": published")]
    assert Counter(row[number] for row in rows for number in shown if row[number] not in ("", "–")) == printed, name
    with open(to / f"{name}.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(table.cells)
    assert sum(line["published"] != "" for line in lines) == sum(printed.values())
    for line, cell in zip(lines, table.cells, strict=True):
        assert line["signatures"].split() == list(cell.signatures) and line["status"] == cell.status


def ours_and_published_share_no_column(name: str, to: Path) -> None:
    heads, *rows = markdown_rows((to / f"{name}.md").read_text())
    assert all(len(row) == len(heads) for row in rows), name
    for number, text in enumerate(heads):
        if text.endswith(": published"):
            base = text.removesuffix("published")
            assert heads[number - 1 : number + 2] == [base + "ours", text, base + "difference"], name


def latex_is_sound(name: str, to: Path) -> None:
    assert check_latex((to / f"{name}.tex").read_text()) > 1, name


def marked_synthetic(name: str, to: Path) -> None:
    assert all("SYNTHETIC" in (to / f"{name}.{ending}").read_text() for ending in ("md", "tex")), name


def traceable(table: Table, evidence: Evidence) -> None:
    lines = list(trace(table, evidence))
    for cell in table.cells:
        assert all(any(line.startswith(f"  {one}") for line in lines) for one in cell.signatures)
    assert all("missing" not in line for line in lines if line.startswith("  ") and " seed " in line), table.name


def as_golden(name: str, to: Path) -> None:
    """`tests/reporting/golden`: of the CSV all but the signatures, which change with the configuration."""
    for ending in ("md", "tex"):
        assert (to / f"{name}.{ending}").read_text() == (GOLDEN / f"{name}.{ending}").read_text(), (name, ending)
    with open(to / f"{name}.csv", newline="") as ours, open(GOLDEN / f"{name}.csv", newline="") as theirs:
        for one, other in zip(csv.DictReader(ours), csv.DictReader(theirs), strict=True):
            assert {**one, "signatures": ""} == other


def compiles(to: Path) -> None:
    """By pdflatex, where it is installed; the strict reading above stands in for it elsewhere."""
    if shutil.which("pdflatex"):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
        done = subprocess.run(command, cwd=to, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout[-2000:]
